"""FCM's error bodies.

https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode
"""

import json
import time
from email.utils import formatdate
from typing import Any

from simulator.exchange import Answer
from simulator.fault_kinds import Error

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


def unregistered() -> Answer:
    """Say that the app was removed."""
    status, message = _ERROR_CODES["UNREGISTERED"]
    return _error(status, message, "UNREGISTERED", [_fcm_error("UNREGISTERED")])


def sender_id_mismatch() -> Answer:
    """Say that the token belongs to another project."""
    status, message = _ERROR_CODES["SENDER_ID_MISMATCH"]
    return _error(status, message, "SENDER_ID_MISMATCH", [_fcm_error("SENDER_ID_MISMATCH")])


def invalid_argument(invalid: InvalidMessage) -> Answer:
    """Say that a field is wrong, named in `details`; of a token that looks like one FCM may say so in words alone."""
    named = [] if invalid.field is None else [_field_violation(invalid.field, invalid.description)]
    details = [*named, _fcm_error("INVALID_ARGUMENT")]
    return _error(400, invalid.description, "INVALID_ARGUMENT", details)


def unauthenticated(reason: str) -> Answer:
    """Say that the access token is missing, unknown, expired or revoked: no FcmError here."""
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
    """Build what a fault asked for."""
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
