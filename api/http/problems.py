"""Errors as application/problem+json (RFC 9457): the one table from domain error to answer."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException

from api.http.request_log import current_request_id, route_template
from api.http.security_headers import FOR_ERRORS
from db.engine import UNREACHABLE, will_pass
from domain.problems import Conflict, CursorTooOld, InvalidField, LimitReached, NotFound, Outdated

log = structlog.get_logger()

_MEDIA_TYPE = "application/problem+json"
_MAX_ERRORS = 20  # fields named in one answer


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
    field: str | None = Field(default=None, description="The first offending field, where one is to blame.")
    reason: str | None = Field(default=None, description="Stable, where one type has several.")
    errors: list[FieldError] | None = None
    next_cursor: int | None = Field(default=None, description="Of a cursor that is too old: where to go on.")


class ProblemResponse(JSONResponse):
    """A problem on the wire."""

    media_type = _MEDIA_TYPE


class Unauthorized(Exception):
    """No valid bearer token came with the request."""


class ServiceUnavailable(Exception):
    """What the request needs cannot be had at the moment."""


class Forbidden(Exception):
    """The bearer token lacks a scope."""


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document the problems that a route may answer with, besides those of every route."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": _TITLES[status], "content": {_MEDIA_TYPE: {"schema": schema}}}
        for status in (401, 413, 422, 429, 503, *statuses)
    }


def install(app: FastAPI) -> None:
    """Make every error of the app a problem, and the API document say so."""
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        document = describe()
        definitions = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        for name, schema in definitions.pop("$defs").items():
            document["components"]["schemas"][name] = schema
        document["components"]["schemas"]["Problem"] = definitions
        return document

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way to extend the document
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(InvalidField, _invalid_field)
    app.add_exception_handler(NotFound, _not_found)
    app.add_exception_handler(CursorTooOld, _cursor_too_old)
    app.add_exception_handler(Conflict, _conflict)
    app.add_exception_handler(Outdated, _outdated)
    app.add_exception_handler(LimitReached, _limit_reached)
    app.add_exception_handler(Unauthorized, _unauthorized)
    app.add_exception_handler(Forbidden, _forbidden)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ServiceUnavailable, _unavailable)
    app.add_exception_handler(DBAPIError, _database_error)
    for unreachable in UNREACHABLE:
        app.add_exception_handler(unreachable, _unreachable)
    app.add_exception_handler(Exception, _unexpected)


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
    body = Problem(
        type=f"urn:fastbell:problem:{code}",
        title=_TITLES.get(status, "Error"),
        status=status,
        detail=detail,
        field=errors[0].field if errors else None,
        errors=list(errors) or None,
        **(more or {}),
    )
    return ProblemResponse(body.model_dump(exclude_none=True), status, headers=headers)


_NOT_JSON = "The body is not valid JSON."
_TITLES = {
    401: "Not signed in",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    410: "Gone",
    412: "Changed meanwhile",
    413: "Body too large",
    422: "Invalid request",
    429: "Too many requests",
    431: "Head too large",
    500: "Internal error",
    503: "Temporarily unavailable",
}


async def _invalid_request(_: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, RequestValidationError)
    errors = [FieldError(field=_path(each["loc"]), detail=_detail(each)) for each in error.errors()[:_MAX_ERRORS]]
    return problem(422, "invalid-request", f"{errors[0].field}: {errors[0].detail}", errors=errors)


async def _invalid_field(_: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, InvalidField)
    errors = [FieldError(field=error.field, detail=error.detail)]
    return problem(422, "invalid-request", error.detail, errors=errors)


async def _not_found(_: Request, error: Exception) -> ProblemResponse:
    return problem(404, "not-found", str(error))


async def _cursor_too_old(_: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, CursorTooOld)
    return problem(410, "cursor-too-old", str(error), more={"next_cursor": error.horizon})


async def _conflict(_: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, Conflict)
    return problem(409, error.code, str(error), more={"reason": error.reason})


async def _outdated(_: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, Outdated)
    return problem(412, error.code, str(error))


async def _limit_reached(_: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, LimitReached)
    retry_after = max(1, ceil(error.retry_after.total_seconds()))
    return problem(429, error.code, str(error), headers={"Retry-After": str(retry_after)})


async def _unauthorized(_: Request, error: Exception) -> ProblemResponse:
    return problem(401, "not-signed-in", str(error), headers={"WWW-Authenticate": "Bearer"})


async def _forbidden(_: Request, error: Exception) -> ProblemResponse:
    return problem(403, "not-allowed", str(error))


async def _http(_: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 400:  # FastAPI's answer to a body that its parser chokes on
        errors = [FieldError(field="body", detail=_NOT_JSON)]
        return problem(422, "invalid-request", f"body: {_NOT_JSON}", errors=errors)
    code = _TITLES.get(error.status_code, "error").lower().replace(" ", "-")
    return problem(error.status_code, code, str(error.detail), headers=error.headers)


async def _unavailable(_: Request, error: Exception) -> ProblemResponse:
    return problem(503, "unavailable", str(error), headers={"Retry-After": "1"})


async def _unreachable(request: Request, error: Exception) -> ProblemResponse:
    log.warning("database unreachable", route=route_template(request.scope), error=type(error).__name__)
    return await _unavailable(
        request, ServiceUnavailable("The database cannot be reached. Try again: repeats are harmless.")
    )


async def _database_error(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, DBAPIError)
    if not will_pass(error):
        raise error
    return await _unreachable(request, error)


async def _unexpected(request: Request, error: Exception) -> ProblemResponse:
    log.error("unexpected error", route=route_template(request.scope), exc_info=error)
    detail = "Something went wrong on our side."
    headers = FOR_ERRORS | current_request_id()  # this answer passes by the middleware
    return problem(500, "internal-error", detail, headers=headers)


def _path(location: Sequence[str | int]) -> str:
    inside = location[1:] if location and location[0] in {"body", "path", "query", "header"} else location
    return ".".join(str(part) for part in inside if not isinstance(part, int) or len(inside) > 1) or "body"


def _detail(error: Mapping[str, Any]) -> str:
    if error["type"] == "json_invalid":
        return _NOT_JSON
    if error["type"] == "model_attributes_type" and len(error["loc"]) == 1:
        return "The body must be a JSON object, sent as application/json."
    if error["type"] == "extra_forbidden":
        return "There is no such field."
    words = str(error["msg"]).removeprefix("Value error, ")
    return words.replace("tuple", "list").replace("Tuple", "List")  # JSON knows no tuples
