"""The console as an application of its own below /console: its pages, its answers to trouble, its headers."""

import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import structlog
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError
from starlette.datastructures import State
from starlette.exceptions import HTTPException

from api.console import analytics, overview, person, pushes, sign_in
from api.console import rendering as style
from api.console.rendering import page
from api.console.session import PATH, NotSignedIn, operator
from api.http.forms import FormRefused
from api.http.problems import ServiceUnavailable
from api.http.request_log import UNTOLD, route_template
from api.http.security_headers import PageHeaders
from db.engine import UNREACHABLE, will_pass
from domain.problems import Conflict, InvalidField, LimitReached, NotFound

log = structlog.get_logger()

_STATUSES: dict[type[Exception], int] = {
    Conflict: 409,
    InvalidField: 422,
    LimitReached: 429,
    NotFound: 404,
    FormRefused: 403,
    ServiceUnavailable: 503,
}
_HEADINGS = {403: "Not allowed", 404: "Not found", 503: "Not now"}
_AWAY = "The database cannot be reached. Try again."


def make_console(state: State) -> FastAPI:
    """Make it, to share what the API holds for all requests."""
    console = FastAPI(openapi_url=None, redirect_slashes=False, telemetry=UNTOLD)
    console.state = state
    console.add_middleware(PageHeaders, also="img-src 'self' data:")  # charts, and the icon
    for open_to_all in (sign_in, style):
        console.include_router(open_to_all.router)
    for behind_the_door in (overview, person, pushes, analytics):
        console.include_router(behind_the_door.router, dependencies=[Depends(operator)])
    console.add_exception_handler(NotSignedIn, _to_the_door)
    console.add_exception_handler(RequestValidationError, _invalid)
    console.add_exception_handler(ValidationError, _invalid)
    console.add_exception_handler(HTTPException, _http)
    console.add_exception_handler(DBAPIError, _database_error)
    for told_as_it_is in _STATUSES:
        console.add_exception_handler(told_as_it_is, _told)
    for unreachable in UNREACHABLE:
        console.add_exception_handler(unreachable, _unreachable)
    console.add_exception_handler(Exception, _unexpected)
    return console


async def _to_the_door(request: Request, _: Exception) -> Response:
    """Ask for a sign-in. Where a link on another site led here, the browser only held the cookie back."""
    where = f"{PATH}/sign-in"
    if request.method == "GET":
        asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        where += f"?{urlencode({'next': asked})}"
        if request.headers.get("sec-fetch-site") == "cross-site":
            return page(request, "come_in", where=where)
    return RedirectResponse(where, 303)


async def _told(request: Request, error: Exception) -> Response:
    answer = await _trouble(request, _STATUSES[type(error)], str(error))
    if isinstance(error, LimitReached):
        answer.headers["Retry-After"] = str(math.ceil(error.retry_after.total_seconds()))
    return answer


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError | ValidationError)
    return await _trouble(request, 422, _in_words(error.errors()[0]))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return await _trouble(request, error.status_code, str(error.detail))


async def _unreachable(request: Request, error: Exception) -> Response:
    log.warning("database unreachable", route=route_template(request.scope), error=type(error).__name__)
    return await _trouble(request, 503, _AWAY)


async def _database_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, DBAPIError)
    if not will_pass(error):
        raise error
    return await _unreachable(request, error)


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("unexpected error", route=route_template(request.scope), exc_info=error)
    return await _trouble(request, 500, "Something went wrong on our side.")


async def _trouble(request: Request, status: int, detail: str) -> Response:
    return page(request, "trouble", status=status, heading=_HEADINGS.get(status, "That did not work"), detail=detail)


def _in_words(error: Mapping[str, Any]) -> str:
    field = ".".join(str(part) for part in error["loc"] if part not in {"query", "path"})
    return f"{field}: {error['msg'].removeprefix('Value error, ')}"
