"""Errors as application/problem+json (RFC 9457): what problems say, and which error gets which answer."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import StrEnum
from math import ceil
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, ValidationError
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException

from api.http.browsers import FOR_ERRORS
from api.http.problem_types import MEDIA_TYPE, TITLES, URN
from api.http.request_log import current_request_id, route_template
from db.engine import TROUBLE, UNREACHABLE, is_of_erased, will_pass
from domain.problems import (
    Conflict,
    CursorTooOld,
    EventCursorTooOld,
    InvalidField,
    LimitReached,
    NotFound,
    Outdated,
    being_erased,
)

log = structlog.get_logger()
_MAX_ERRORS = 20  # fields named in one answer
_LONGEST_PATH = 200  # characters of a field's name, which may be the caller's
_AT_ONCE = {"Retry-After": "1"}  # seconds


class Detail(StrEnum):
    """What problems say, as format strings. Rules of the domain bring their own sentences."""

    BODY_TOO_LARGE = "A body may have at most {most} bytes."
    CALLER_BODIES = "At most {most} bytes of one caller's bodies are read at a time. Try again in a moment."
    ALL_BODIES = "This process is reading too many bodies. Try again in a moment."
    HEAD_TOO_LARGE = "A request may have at most {headers} headers of {size} bytes together."
    TOO_MANY_IN_PROCESS = "This process has too many requests under way. Try again in a moment."
    TOO_SLOW = "This took too long. Try again: repeats are harmless."
    TOO_MANY_OF_CALLER = "At most {most} requests of one caller run at a time. Try again when others are answered."
    TOO_MANY_REQUESTS = "Too many requests. Try again later."
    TOO_MANY_WRITES = "Too many requests are changing this. Try again: repeats are harmless."
    TOO_MANY_STREAMS = "This process has no room for another stream. Try again, or use sync."
    TOO_MANY_WATCHERS = "This process has no room for another stream. Try again, or ask without a stream."
    TOO_MANY_EXPORTS = "This process has no room for another export. Try again later."
    DATABASE_AWAY = "The database cannot be reached. Try again: repeats are harmless."
    UNEXPECTED = "Something went wrong on our side."
    NOT_SIGNED_IN = "Send a bearer token in the Authorization header."
    NOT_VALID = "The bearer token is not valid ({error})."
    UNKNOWN_API_KEY = "There is no such API key."
    EXPIRED_API_KEY = "This API key has expired."
    REVOKED_API_KEY = "This API key was revoked."
    ONLY_API_KEYS = "Only API keys are accepted here, which begin with fbk_."
    INVALID_SUBJECT = "The bearer token's sub must be a user id of 1 to {most} printable characters."
    TOO_MANY_BATCHES = "This process is working on too many batches. Try again: repeats are harmless."
    NO_KEYS = "The keys that check bearer tokens are not available. Try again."
    NEEDS_SCOPE = "This needs a bearer token with the scope {scope}."
    ACT_FOR_A_USER = "A bearer token with the scope service acts for users: use {path}."
    NOT_JSON = "The body is not valid JSON."
    NOT_AN_OBJECT = "The body must be a JSON object, sent as application/json."
    BATCH_NOT_JSON = "must be valid JSON with a list of items and no other field. Nothing of the batch was done."
    TOO_MANY_ITEMS = "must have at most {most} items. Nothing of the batch was done."
    ITEM_UNCLEAR = "is not valid JSON, and it is not certain where it ends. Nothing of the batch was done."
    ITEM_NOT_JSON = "must be valid JSON"
    ITEM_NOT_UTF_8 = "must be UTF-8"
    ITEM_TOO_DEEP = "is nested too deeply"
    NUMBER_TOO_LONG = "has a number of too many digits"
    FIELD_TWICE = "must not have a field twice"
    ITEM_NOT_AN_OBJECT = "must be a JSON object"
    UNKNOWN_FIELD = "There is no such field."
    UNKNOWN_APP = "There is no such app."
    UNKNOWN_CURSOR = "This is not a cursor of this API. Leave it out to start over."
    FUTURE_CURSOR = "This cursor is ahead of the log, which ends at {head}."
    FUTURE_EVENT = "This cursor is ahead of the feed, which ends at {head}."
    UNKNOWN_TYPE = "There is no such type of event. Known are {known}."
    WEBHOOK_DISABLED = "This webhook is disabled. PUT its url again to enable it."
    FCM_ENVIRONMENT = "FCM knows only production."
    SEQUENCE_NEEDS_DIGEST = "Registrations are numbered within one sign-in: send sign_out_digest, too."
    REV_NOT_QUOTED = 'must be the revision in quotes, such as "7"'
    FIELD_REQUIRED = "Field required"
    QUIET_HOURS_EMPTY = "Quiet hours must end at another time than they start."


class FieldError(BaseModel):
    """What is wrong with one field."""

    field: str = Field(description="Path of the field in the body, or the name of the parameter.")
    detail: str


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(description="Stable: urn:fastbell:problem:…", examples=["urn:fastbell:problem:invalid-request"])
    title: str
    status: int
    detail: str
    field: str | None = Field(default=None, description="The first field that is wrong, if one is.")
    reason: str | None = Field(default=None, description="Stable. Set where one type has several reasons.")
    errors: list[FieldError] | None = None
    next_cursor: int | None = Field(default=None, description="Where to continue when a cursor is too old.")


class ProblemResponse(JSONResponse):
    """A problem on the wire."""

    media_type = MEDIA_TYPE


class Unauthorized(Exception):
    """The request has no valid bearer token."""


class ServiceUnavailable(Exception):
    """Something that the request needs is not available now."""


class Forbidden(Exception):
    """The bearer token may not do this."""

    code = "not-allowed"


class ActForUser(Forbidden):
    """A service came to a route of the user's own."""

    code = "act-for-a-user"

    def __init__(self, path: str) -> None:
        super().__init__(Detail.ACT_FOR_A_USER.format(path=path))


EXPECTED: Mapping[type[Exception], tuple[int, str]] = {  # status, and the type's last part unless the error has one
    Unauthorized: (401, "not-signed-in"),
    Forbidden: (403, "not-allowed"),
    NotFound: (404, "not-found"),
    Conflict: (409, "conflict"),
    CursorTooOld: (410, "cursor-too-old"),
    EventCursorTooOld: (410, "event-cursor-too-old"),
    Outdated: (412, "outdated"),
    InvalidField: (422, "invalid-request"),
    LimitReached: (429, "too-many-requests"),
    ServiceUnavailable: (503, "unavailable"),
}


def install(app: FastAPI) -> None:
    """Answer every error of the app with a problem."""
    for expected in EXPECTED:
        app.add_exception_handler(expected, _expected)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http)
    answer_server_errors(
        app, on_erased=_expected, on_unavailable=lambda _: unavailable(Detail.DATABASE_AWAY), on_unexpected=_unexpected
    )


def answer_server_errors(
    app: FastAPI,
    *,
    on_erased: Callable[[Request, Exception], Awaitable[Response]],
    on_unavailable: Callable[[Request], Response],
    on_unexpected: Callable[[Request], Response],
) -> None:
    """Log the errors that no client can cause, and answer them: database errors that will pass, and all others.

    A row that names a person who is being erased is no error: `on_erased` answers it as any Conflict.
    """

    async def answer_database_error(request: Request, error: Exception) -> Response:
        if isinstance(error, DBAPIError) and is_of_erased(error):
            return await on_erased(request, being_erased())
        if isinstance(error, DBAPIError) and not (isinstance(error, UNREACHABLE) or will_pass(error)):
            raise error
        log.warning("database unreachable", route=route_template(request.scope), error=type(error).__name__)
        return on_unavailable(request)

    async def answer_unexpected_error(request: Request, error: Exception) -> Response:
        log.error("unexpected error", route=route_template(request.scope), exc_info=error)
        return on_unexpected(request)

    for kind in TROUBLE:
        app.add_exception_handler(kind, answer_database_error)
    app.add_exception_handler(Exception, answer_unexpected_error)


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    errors: Sequence[FieldError] = (),
    more: Mapping[str, str | int | None] | None = None,
    headers: Mapping[str, str] | None = None,
) -> ProblemResponse:
    """Make the answer for one problem."""
    body = _body(status, code, detail, errors=errors, more=more)
    return ProblemResponse(body.model_dump(exclude_none=True), status, headers=headers)


def problem_of(error: Exception) -> Problem:
    """Give the problem of one item of a batch: what the single route would answer to an error."""
    if isinstance(error, ValidationError):
        errors = _field_errors(error.errors(include_url=False))
        return _body(422, "invalid-request", f"{errors[0].field}: {errors[0].detail}", errors=errors)
    if isinstance(error, tuple(EXPECTED)):
        status, parts, _ = _parts_of(error)
        return _body(status, **parts)
    return _body(500, "internal-error", Detail.UNEXPECTED)


def _body(
    status: int,
    code: str,
    detail: str,
    *,
    errors: Sequence[FieldError] = (),
    more: Mapping[str, str | int | None] | None = None,
) -> Problem:
    return Problem(
        type=URN + code,
        title=TITLES.get(status, "Error"),
        status=status,
        detail=detail,
        field=errors[0].field if errors else None,
        errors=list(errors) or None,
        **(more or {}),
    )


def unavailable(detail: str) -> ProblemResponse:
    """Make the answer for what will pass soon."""
    return problem(503, "unavailable", detail, headers=_AT_ONCE)


def retry_after(error: LimitReached) -> dict[str, str]:
    """Make the header that says when to try again, in whole seconds."""
    return {"Retry-After": str(max(1, ceil(error.retry_after.total_seconds())))}


async def _expected(_: Request, error: Exception) -> ProblemResponse:
    status, parts, headers = _parts_of(error)
    return problem(status, **parts, headers=headers)


def _parts_of(error: Exception) -> tuple[int, dict[str, Any], Mapping[str, str]]:
    """Say what an expected error is answered with: status, the parts of the problem, headers."""
    status, code = next(answer for kind, answer in EXPECTED.items() if isinstance(error, kind))
    errors: list[FieldError] = []
    more: Mapping[str, str | int | None] = {}
    headers: Mapping[str, str] = {}
    match error:
        case Unauthorized():
            headers = {"WWW-Authenticate": "Bearer"}
        case Forbidden():
            code = error.code
        case Conflict():
            code, more = error.code, {"reason": error.reason}
        case CursorTooOld() | EventCursorTooOld():
            more = {"next_cursor": error.horizon}
        case Outdated():
            code = error.code
        case InvalidField():
            errors = [FieldError(field=error.field, detail=error.detail)]
        case LimitReached():
            code, headers = error.code, retry_after(error)
        case ServiceUnavailable():
            headers = _AT_ONCE
    return status, {"code": code, "detail": str(error), "errors": errors, "more": more}, headers


async def _invalid_request(_: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, RequestValidationError)
    errors = _field_errors(error.errors())
    return problem(422, "invalid-request", f"{errors[0].field}: {errors[0].detail}", errors=errors)


async def _http(_: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 400:  # FastAPI's answer to a body that its parser chokes on
        errors = [FieldError(field="body", detail=Detail.NOT_JSON)]
        return problem(422, "invalid-request", f"body: {Detail.NOT_JSON}", errors=errors)
    code = TITLES.get(error.status_code, "error").lower().replace(" ", "-")
    return problem(error.status_code, code, str(error.detail), headers=error.headers)


def _unexpected(_: Request) -> ProblemResponse:
    headers = FOR_ERRORS | current_request_id()  # this answer does not pass through the middleware
    return problem(500, "internal-error", Detail.UNEXPECTED, headers=headers)


def _field_errors(found: Sequence[Any]) -> list[FieldError]:
    return [FieldError(field=_path(each["loc"]), detail=_detail(each)) for each in found[:_MAX_ERRORS]]


def _path(location: Sequence[str | int]) -> str:
    inside = location[1:] if location and location[0] in {"body", "path", "query", "header"} else location
    path = ".".join(str(part) for part in inside if not isinstance(part, int) or len(inside) > 1) or "body"
    return path[:_LONGEST_PATH]


def _detail(error: Mapping[str, Any]) -> str:
    if error["type"] == "json_invalid":
        return Detail.NOT_JSON
    if error["type"] == "model_attributes_type" and len(error["loc"]) == 1:
        return Detail.NOT_AN_OBJECT
    if error["type"] == "extra_forbidden":
        return Detail.UNKNOWN_FIELD
    words = str(error["msg"]).removeprefix("Value error, ")
    return words.replace("tuple", "list").replace("Tuple", "List")  # JSON has no tuples
