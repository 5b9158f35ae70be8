"""What each of Google's refusals means, and how its answers are read: JSON with details, or a proxy's HTML."""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from push.http2.streams import Response
from push.sender import Accepted
from push.verdict import Verdict, by_status, code, note_unknown

# https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode
# By status and FcmError.errorCode, which alone decides about a token; "" is an error without one.
VERDICTS: dict[tuple[int, str], Verdict] = {
    (400, "INVALID_ARGUMENT"): Verdict.OUR_BUG,
    (400, "INVALID_ARGUMENT_TOKEN"): Verdict.SUSPECT_TOKEN,  # a violation of the field `message.token`
    (400, ""): Verdict.OUR_BUG,
    (401, "THIRD_PARTY_AUTH_ERROR"): Verdict.TOKEN_MISCONFIGURED,  # an iPhone; Firebase has no APNs key of its app
    (401, ""): Verdict.STALE_CREDENTIAL,
    (403, "SENDER_ID_MISMATCH"): Verdict.MISMATCHED_TOKEN,
    (403, ""): Verdict.MISCONFIGURED,
    (404, "UNREGISTERED"): Verdict.DEAD_TOKEN,
    (404, ""): Verdict.MISCONFIGURED,  # a wrong project or address
    (429, "QUOTA_EXCEEDED"): Verdict.TOKEN_THROTTLED,  # of the message's target, where nothing else is said
    (429, "QUOTA_EXCEEDED_DEVICE"): Verdict.TOKEN_THROTTLED,
    (429, "QUOTA_EXCEEDED_PROJECT"): Verdict.ROUTE_THROTTLED,
    (429, ""): Verdict.THROTTLED_UNNAMED,
    (500, "INTERNAL"): Verdict.TRANSIENT,
    (500, ""): Verdict.TRANSIENT,
    (502, ""): Verdict.TRANSIENT,
    (503, "UNAVAILABLE"): Verdict.TRANSIENT,
    (503, ""): Verdict.TRANSIENT,
    (504, ""): Verdict.TRANSIENT,
}
BY_STATUS: dict[int, Verdict] = {  # for codes that the table does not know yet; the rest is `by_status`
    403: Verdict.MISCONFIGURED,
    404: Verdict.MISCONFIGURED,
    429: Verdict.TOKEN_THROTTLED,
}
FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
QUOTA_FAILURE = "type.googleapis.com/google.rpc.QuotaFailure"
LONGEST_REST = timedelta(days=1)
TOKEN_FIELD = "message.token"  # noqa: S105 (a field's name)
_NAME = re.compile(r"projects/[\w.:-]{1,100}/messages/[\w.:%~=-]{1,200}", re.ASCII)
_NAME_BEGUN = re.compile(rb'\s*\{\s*"name"\s*:\s*"projects/')  # where the rest is cut off
_OF_APPLE = re.compile(r"\bAPNS\b|\bWeb Push\b", re.IGNORECASE)  # "Auth error from APNS or Web Push Service"
_TOKEN_IS_INVALID = re.compile(
    r"registration[ -]?token\b.*\b(not|invalid)|invalid.*\bregistration[ -]?token", re.IGNORECASE | re.DOTALL
)


def verdict(status: int, error_code: str) -> Verdict:
    """Look a refusal up; one that the table does not know is judged by its status, logged and counted."""
    known = VERDICTS.get((status, error_code))
    if known:
        return known
    note_unknown("fcm", status, code(error_code, status))
    return BY_STATUS.get(status) or by_status(status)


@dataclass(frozen=True, slots=True)
class FcmRefusal:
    """The parts of an error answer that decide."""

    status: int
    error_code: str  # FcmError.errorCode, in three cases made more precise; "" where there is none
    reason: str  # the same, or the next best code
    retry_after: timedelta | None


def acceptance(response: Response) -> Accepted | None:
    """Read a 200: FCM names the accepted message. None: without a name, the answer is somebody else's."""
    name = _json(response.body).get("name")
    if isinstance(name, str) and name:
        return Accepted(name if _NAME.fullmatch(name) else None)
    return Accepted(None) if _NAME_BEGUN.match(response.body) else None


def refusal(response: Response) -> FcmRefusal:
    """Read an error answer."""
    error = _table(_json(response.body).get("error"))
    details = [_table(detail) for detail in _rows(error.get("details"))]
    codes = (detail.get("errorCode") for detail in details if detail.get("@type") == FCM_ERROR)
    error_code = next((each for each in codes if isinstance(each, str)), "")
    if _concerns_the_token(response.status, error_code, error, details):
        error_code = "INVALID_ARGUMENT_TOKEN"
    if response.status == 401 and not error_code and _OF_APPLE.search(str(error.get("message"))):
        error_code = "THIRD_PARTY_AUTH_ERROR"  # only the message says so
    quota = _quota(details)
    reason = code(error_code or error.get("status"), response.status) + quota
    if quota and response.status == 429 and error_code in {"QUOTA_EXCEEDED", ""}:
        error_code = "QUOTA_EXCEEDED" + quota
    return FcmRefusal(response.status, error_code, reason, _retry_after(response))


def _concerns_the_token(status: int, error_code: str, error: dict[str, Any], details: list[dict[str, Any]]) -> bool:
    """Whether the invalid argument is the token: by the named field, or else by the message."""
    fields = _violated_fields(details)
    if fields:
        return error_code == "INVALID_ARGUMENT" and TOKEN_FIELD in fields
    is_invalid = error_code == "INVALID_ARGUMENT" or (not error_code and error.get("status") == "INVALID_ARGUMENT")
    message = error.get("message")
    return status == 400 and is_invalid and isinstance(message, str) and bool(_TOKEN_IS_INVALID.search(message))


def _violated_fields(details: list[dict[str, Any]]) -> list[object]:
    violations = [detail.get("fieldViolations") for detail in details if detail.get("@type") == BAD_REQUEST]
    return [_table(violation).get("field") for rows in violations for violation in _rows(rows)]


def _quota(details: list[dict[str, Any]]) -> str:
    """Say whose quota it is: a device's, or the whole project's."""
    violations = [detail.get("violations") for detail in details if detail.get("@type") == QUOTA_FAILURE]
    subjects = [str(_table(violation).get("subject")) for rows in violations for violation in _rows(rows)]
    if any(subject.startswith("device") for subject in subjects):
        return "_DEVICE"
    return "_PROJECT" if any(subject.startswith("project") for subject in subjects) else ""


def _retry_after(response: Response) -> timedelta | None:
    """Read both forms: seconds, and an HTTP date; at most a day."""
    text = response.headers.get(b"retry-after", b"").decode("ascii", "replace").strip()
    try:
        rest = timedelta(seconds=int(text)) if text.isdecimal() else _until(parsedate_to_datetime(text))
    except OverflowError:  # beyond all dates
        return LONGEST_REST
    except (ValueError, TypeError, IndexError):  # no date
        return None
    return min(max(rest, timedelta(0)), LONGEST_REST)


def _until(at: datetime) -> timedelta:
    return (at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)


def _json(body: bytes) -> dict[str, Any]:
    try:
        return _table(json.loads(body))
    except (ValueError, RecursionError):  # a proxy's HTML, or worse
        return {}


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _rows(value: object) -> list[object]:
    return value if isinstance(value, list) else []
