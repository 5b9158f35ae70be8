"""The console as an application of its own below /console: its pages, its answers to errors, its headers."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from pydantic import ValidationError
from starlette.datastructures import State
from starlette.exceptions import HTTPException

from api.console import analytics, events, overview, payloads, person, pushes, sign_in
from api.console import rendering as style
from api.console.rendering import page
from api.console.session import PATH, NotSignedIn, operator
from api.http.browsers import FormRefused, page_headers
from api.http.problems import EXPECTED, Detail, answer_server_errors, retry_after
from api.http.request_log import NO_TELEMETRY
from domain.problems import LimitReached

_STATUSES = {kind: status for kind, (status, _) in EXPECTED.items()} | {FormRefused: 403}
_HEADINGS = {403: "Not allowed", 404: "Not found", 503: "Not available"}
_HEADING = "That did not work"
_SOURCES = f"img-src 'self' data:; script-src '{style.SCRIPT}'"  # charts and the icon; the one script, for times
_DATABASE_AWAY = "The database cannot be reached. Try again."


def make_console(state: State) -> FastAPI:
    """Make the console. `state` is what the API holds for all requests."""
    console = FastAPI(openapi_url=None, redirect_slashes=False, telemetry=NO_TELEMETRY)
    console.state = state
    console.add_middleware(page_headers, also=_SOURCES)
    for public in (sign_in, style, payloads):
        console.include_router(public.router)
    for private in (overview, person, pushes, events, analytics):
        console.include_router(private.router, dependencies=[Depends(operator)])
    console.add_exception_handler(NotSignedIn, _ask_to_sign_in)
    console.add_exception_handler(RequestValidationError, _invalid)
    console.add_exception_handler(ValidationError, _invalid)
    console.add_exception_handler(HTTPException, _http)
    for expected in _STATUSES:
        console.add_exception_handler(expected, _expected)
    answer_server_errors(
        console,
        on_erased=_expected,
        on_unavailable=lambda request: _problem(request, 503, _DATABASE_AWAY),
        on_unexpected=lambda request: _problem(request, 500, Detail.UNEXPECTED),
    )
    return console


async def _ask_to_sign_in(request: Request, _: Exception) -> Response:
    """Ask for a sign-in. Browsers withhold the cookie where a link on another site led here, so load the page again."""
    where = f"{PATH}/sign-in"
    if request.method == "GET":
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        where += f"?{urlencode({'next': wanted})}"
        if request.headers.get("sec-fetch-site") == "cross-site":
            return page(request, "from_another_site", where=where)
    return RedirectResponse(where, 303)


async def _expected(request: Request, error: Exception) -> Response:
    answer = _problem(request, _STATUSES[type(error)], str(error))
    if isinstance(error, LimitReached):
        answer.headers.update(retry_after(error))
    return answer


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError | ValidationError)
    return _problem(request, 422, _in_words(error.errors()[0]))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _problem(request, error.status_code, str(error.detail))


def _problem(request: Request, status: int, detail: str) -> Response:
    return page(request, "problem", status=status, heading=_HEADINGS.get(status, _HEADING), detail=detail)


def _in_words(error: Mapping[str, Any]) -> str:
    field = ".".join(str(part) for part in error["loc"] if part not in {"query", "path"})
    return f"{field}: {error['msg'].removeprefix('Value error, ')}"
