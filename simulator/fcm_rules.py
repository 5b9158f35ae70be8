"""Google's rules for one message.

https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages
"""

import json
import re
import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

from simulator.fault_kinds import Error
from simulator.http.exchange import Answer
from simulator.phones import Notification

_JSON = (b"content-type", b"application/json; charset=UTF-8")
_FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
_BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
_QUOTA_FAILURE = "type.googleapis.com/google.rpc.QuotaFailure"
_ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"


# HTTP status and message of each FcmError.errorCode.
_ERROR_CODES = {
    "UNREGISTERED": (404, "Requested entity was not found."),
    "INVALID_ARGUMENT": (400, "Request contains an invalid argument."),
    "SENDER_ID_MISMATCH": (403, "SenderId mismatch"),
    "QUOTA_EXCEEDED": (429, "Resource has been exhausted (e.g. check quota)."),
    "UNAVAILABLE": (503, "The service is currently unavailable."),
    "INTERNAL": (500, "Internal error encountered."),
    "THIRD_PARTY_AUTH_ERROR": (401, "Request is missing required authentication credential."),
}
_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
NO_TOKEN = "The registration token is not a valid FCM registration token"  # noqa: S105 (a sentence)


class InvalidMessage(Exception):
    """A message that FCM does not understand; `field` is its path, None where FCM names none."""

    def __init__(self, field: str | None, description: str) -> None:
        super().__init__(description)
        self.field = field
        self.description = description


def json_answer(status: int, content: object, *, reason: str | None = None) -> Answer:
    """Build any JSON answer of Google's."""
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    return Answer(status, reason, (_JSON, _date()), (body,))


def refused(code: str) -> Answer:
    """Refuse a token with an FcmError.errorCode: the app was removed, or the token belongs to another project."""
    status, message = _ERROR_CODES[code]
    return _error(status, message, code, [_fcm_error(code)])


def invalid_argument(invalid: InvalidMessage) -> Answer:
    """Refuse a field, named in `details`. FCM may name a malformed token in the message only."""
    named = [] if invalid.field is None else [_field_violation(invalid.field, invalid.description)]
    details = [*named, _fcm_error("INVALID_ARGUMENT")]
    return _error(400, invalid.description, "INVALID_ARGUMENT", details)


def unauthenticated(reason: str) -> Answer:
    """Refuse an access token that is missing, unknown, expired or revoked: no FcmError here."""
    message = (
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid "
        "authentication credential."
    )
    info = {"@type": _ERROR_INFO, "reason": reason, "domain": "googleapis.com", "metadata": {"service": "fcm"}}
    return _error(401, message, reason, [info])


def permission_denied(project: str) -> Answer:
    """Refuse another project: no FcmError here."""
    message = (
        f"Permission 'cloudmessaging.messages.create' denied on resource '//cloudresourcemanager/projects/{project}'."
    )
    return _error(403, message, "PERMISSION_DENIED", [])


def not_found() -> Answer:
    """Build Google's bare 404, which says nothing about any token."""
    body = b"<!DOCTYPE html>\n<html lang=en><title>Error 404 (Not Found)!!1</title><p><b>404.</b> Not Found\n"
    return Answer(404, "not_found", ((b"content-type", b"text/html; charset=UTF-8"), _date()), (body,))


def scripted(error: Error) -> Answer:
    """Build the answer of a scripted error."""
    default_status, default_message = _ERROR_CODES.get(error.error_code or "", (error.status or 500, "Scripted."))
    status = error.status or default_status
    message = error.message or default_message
    details: list[dict[str, Any]] = []
    if error.field is not None:
        details.append(_field_violation(error.field, message))
    if error.quota is not None:
        subject = f"{error.quota}:simulator"
        details.append({"@type": _QUOTA_FAILURE, "violations": [{"subject": subject, "description": message}]})
    if error.error_code is not None:
        details.append(_fcm_error(error.error_code))
    answer = _error(status, message, error.error_code or _STATUSES.get(status, "UNKNOWN"), details)
    if error.retry_after is None:
        return answer
    as_date = error.retry_after_form == "http_date"
    value = formatdate(time.time() + error.retry_after, usegmt=True) if as_date else str(error.retry_after)
    return Answer(answer.status, answer.reason, (*answer.headers, (b"retry-after", value.encode())), answer.chunks)


def _error(status: int, message: str, reason: str, details: list[dict[str, Any]]) -> Answer:
    error: dict[str, Any] = {"code": status, "message": message, "status": _STATUSES.get(status, "UNKNOWN")}
    if details:
        error["details"] = details
    return json_answer(status, {"error": error}, reason=reason)


def _date() -> tuple[bytes, bytes]:
    return b"date", formatdate(usegmt=True).encode()


def _fcm_error(code: str) -> dict[str, Any]:
    return {"@type": _FCM_ERROR, "errorCode": code}


def _field_violation(field: str, description: str) -> dict[str, Any]:
    return {"@type": _BAD_REQUEST, "fieldViolations": [{"field": field, "description": description}]}


_TOKEN = re.compile(r"[A-Za-z0-9_:%.~-]{1,4096}")
_DURATION = re.compile(r"(\d{1,9})(\.\d{1,9})?s")
_LONGEST_TTL = 28 * 24 * 60 * 60
_LARGEST_MESSAGE = 4096
_TARGETS = ("token", "fid", "topic", "condition")
_MESSAGE_FIELDS = frozenset(
    {"name", "data", "notification", "android", "webpush", "apns", "fcm_options", "fcmOptions", *_TARGETS}
)
_APNS_HEADERS = {
    "apns-collapse-id": re.compile(r".{1,64}"),
    "apns-expiration": re.compile(r"\d{1,12}"),
    "apns-priority": re.compile(r"1|5|10"),
}
_PRIORITIES = frozenset({"normal", "high", "NORMAL", "HIGH"})
_QUIET_CHANNEL = "quiet"  # of low importance; others are recognized by the priority that goes with them
_FORBIDDEN_KEYS = re.compile(r"from$|message_type$|gcm|google")


@dataclass(frozen=True, slots=True)
class FcmMessage:
    """A message that FCM accepts."""

    ttl: float | None  # seconds
    notification: Notification


def target(body: object) -> str:
    """Read the registration token or installation id, unchecked; empty where there is none."""
    message = body.get("message") if isinstance(body, dict) else None
    if not isinstance(message, dict):
        return ""
    token = message.get("token") or message.get("fid")
    return token if isinstance(token, str) else ""


def checked_message(body: object, raw: bytes) -> FcmMessage:
    """Read the message; raise InvalidMessage naming the first wrong field."""
    if not isinstance(body, dict):
        raise InvalidMessage("", "Invalid JSON payload received.")
    _no_unknown(body, frozenset({"message", "validate_only", "validateOnly"}), "")
    message = body.get("message")
    if not isinstance(message, dict):
        raise InvalidMessage("message", "Recipient of the message is not set.")
    _no_unknown(message, _MESSAGE_FIELDS, "message")
    _check_target(message)
    data = _checked_data(message.get("data", {}), "message.data")
    android = _object(message, "android", "message.android")
    notification = _object(message, "notification", "message.notification")
    on_android = _object(android, "notification", "message.android.notification")
    if "data" in android:
        data = _checked_data(android["data"], "message.android.data")
    if android.get("priority", "normal") not in _PRIORITIES:
        raise InvalidMessage("message.android.priority", "Invalid value at 'message.android.priority'")
    by_app = {} if notification or on_android else data  # the app itself shows a data message that has a text
    tag = _text(on_android, "tag", "message.android.notification") or by_app.get("tag")
    title, text = (
        _text(on_android, name, "message.android.notification") or _text(notification, name, "message.notification")
        for name in ("title", "body")
    )
    _check_apns(message)
    if len(raw) > _LARGEST_MESSAGE:
        _check_size(data, notification, on_android)
    task_id = data.get("task_id")
    channel = _text(on_android, "channel_id", "message.android.notification") or by_app.get("channelId")
    if by_app.get("silent") == "true":
        channel = channel or _QUIET_CHANNEL
    is_low = on_android.get("notification_priority") == "PRIORITY_LOW" or by_app.get("silent") == "true"
    is_quiet = is_low or channel == _QUIET_CHANNEL
    count = on_android.get("notification_count")
    shown = Notification(
        title=title or by_app.get("title"),
        body=text or by_app.get("body") or by_app.get("message"),
        data=data,
        collapse_key=tag,
        identity=raw if task_id is None else task_id,
        is_visible=bool(notification or on_android or by_app.keys() & {"title", "message"}),
        has_sound=not is_quiet,
        level="passive" if is_quiet else "active",
        channel=channel,
        sound=_text(on_android, "sound", "message.android.notification"),
        badge=count if isinstance(count, int) else None,
    )
    return FcmMessage(ttl=_ttl(android.get("ttl")), notification=shown)


def is_dry_run(body: dict[str, Any]) -> bool:
    """Whether `validate_only` is set."""
    return body.get("validate_only", body.get("validateOnly")) is True


def _check_target(message: dict[str, Any]) -> None:
    targets = [name for name in _TARGETS if name in message]
    if len(targets) != 1:
        raise InvalidMessage("message", "Exactly one of token, fid, topic or condition must be set.")
    if targets[0] in {"topic", "condition"}:
        raise InvalidMessage(f"message.{targets[0]}", "The simulator sends to single phones only.")
    value = message[targets[0]]
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise InvalidMessage(f"message.{targets[0]}", NO_TOKEN)


def _check_apns(message: dict[str, Any]) -> None:
    """Check the part for Apple by Apple's rules for one push."""
    apns = _object(message, "apns", "message.apns")
    _no_unknown(
        apns, frozenset({"headers", "payload", "fcm_options", "fcmOptions", "live_activity_token"}), "message.apns"
    )
    headers = _object(apns, "headers", "message.apns.headers")
    for name in headers:
        value, path = _text(headers, name, "message.apns.headers") or "", f"message.apns.headers[{name}].value"
        form = _APNS_HEADERS.get(name)
        if form and not form.fullmatch(value):
            raise InvalidMessage(path, f"Invalid value at '{path}'")
    payload = _object(apns, "payload", "message.apns.payload")
    if payload and not _object(payload, "aps", "message.apns.payload.aps"):
        raise InvalidMessage("message.apns.payload.aps", "Invalid APNs payload: aps is missing.")


def _checked_data(data: object, path: str) -> dict[str, str]:
    if not isinstance(data, dict):
        raise InvalidMessage(path, f"Invalid value at '{path}'")
    for key, value in data.items():
        if not isinstance(value, str):
            raise InvalidMessage(f"{path}[{key}].value", f"Invalid value at '{path}[{key}].value' (TYPE_STRING)")
        if _FORBIDDEN_KEYS.match(key):
            raise InvalidMessage(f"{path}.{key}", f"Invalid data payload key: {key}")
    return data


def _ttl(value: object) -> float | None:
    if value is None:
        return None
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None or not isinstance(value, str) or float(value[:-1]) > _LONGEST_TTL:
        raise InvalidMessage("message.android.ttl", "Invalid value at 'message.android.ttl' (0s to 2419200s)")
    return float(value[:-1])


def _check_size(*parts: dict[str, Any]) -> None:
    size = sum(
        len(key.encode()) + len((value if isinstance(value, str) else json.dumps(value)).encode())
        for part in parts
        for key, value in part.items()
    )
    if size > _LARGEST_MESSAGE:
        raise InvalidMessage("message", "Message is too big: at most 4096 bytes are allowed.")


def _object(parent: dict[str, Any], name: str, path: str) -> dict[str, Any]:
    value = parent.get(name, {})
    if not isinstance(value, dict):
        raise InvalidMessage(path, f"Invalid value at '{path}'")
    return value


def _text(parent: dict[str, Any], name: str, path: str) -> str | None:
    value = parent.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidMessage(f"{path}.{name}", f"Invalid value at '{path}.{name}' (TYPE_STRING)")
    return value


def _no_unknown(fields: dict[str, Any], known: frozenset[str], path: str) -> None:
    for name in fields:
        if name not in known:
            where = f" at '{path}'" if path else ""
            raise InvalidMessage(
                path, f'Invalid JSON payload received. Unknown name "{name}"{where}: Cannot find field.'
            )
