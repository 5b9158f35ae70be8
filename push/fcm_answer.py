"""Reads what FCM answered: JSON with details, or a proxy's HTML."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from push.http2_call import Response
from push.verdict import code

FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
QUOTA_FAILURE = "type.googleapis.com/google.rpc.QuotaFailure"
LONGEST_REST = timedelta(days=1)
TOKEN_FIELD = "message.token"  # noqa: S105 (a field's name)


@dataclass(frozen=True, slots=True)
class FcmRefusal:
    """What matters of an error answer."""

    status: int
    word: str  # FcmError.errorCode; "" where there is none
    reason: str  # the word, or the next best code
    retry_after: timedelta | None


def message_name(response: Response) -> str:
    """Read the name that FCM gave to an accepted message; "" where the answer was cut off."""
    return str(_json(response.body).get("name", ""))


def refusal(response: Response) -> FcmRefusal:
    """Read an error answer."""
    error = _table(_json(response.body).get("error"))
    details = [_table(detail) for detail in _rows(error.get("details"))]
    word = next((str(detail.get("errorCode", "")) for detail in details if detail.get("@type") == FCM_ERROR), "")
    if word == "INVALID_ARGUMENT" and TOKEN_FIELD in _violated_fields(details):
        word = "INVALID_ARGUMENT_TOKEN"
    quota = _quota(details)
    reason = code(word or error.get("status"), response.status) + quota
    if quota and word in {"QUOTA_EXCEEDED", ""}:
        word = "QUOTA_EXCEEDED" + quota
    return FcmRefusal(response.status, word, reason, _retry_after(response))


def _violated_fields(details: list[dict[str, Any]]) -> set[object]:
    violations = [detail.get("fieldViolations") for detail in details if detail.get("@type") == BAD_REQUEST]
    return {_table(violation).get("field") for rows in violations for violation in _rows(rows)}


def _quota(details: list[dict[str, Any]]) -> str:
    """Tell whose quota it was: a device's, or the whole project's."""
    violations = [detail.get("violations") for detail in details if detail.get("@type") == QUOTA_FAILURE]
    subjects = [str(_table(violation).get("subject")) for rows in violations for violation in _rows(rows)]
    if any(subject.startswith("device") for subject in subjects):
        return "_DEVICE"
    return "_PROJECT" if any(subject.startswith("project") for subject in subjects) else ""


def _retry_after(response: Response) -> timedelta | None:
    """Read both forms: seconds, and an HTTP date. Neither is believed beyond a day."""
    text = response.headers.get(b"retry-after", b"").decode("ascii", "replace").strip()
    try:
        rest = timedelta(seconds=int(text)) if text.isdecimal() else _until(parsedate_to_datetime(text))
    except OverflowError:  # beyond all dates
        return LONGEST_REST
    except ValueError:
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
