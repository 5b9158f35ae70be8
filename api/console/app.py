"""The console as an application of its own below /console: its pages, sign-in, answers to errors, headers.

Operators sign in with a one-time code, or with a bearer token that has the scope `support`. Who is signed in may also
decrypt payloads in Temporal's Web UI, which calls from its own origin, in the form of its codec servers: see
`dispatch.payload_encryption`.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode, urlsplit

import structlog
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from google.protobuf.json_format import MessageToJson, Parse, ParseError
from pydantic import ValidationError
from starlette.datastructures import State
from starlette.exceptions import HTTPException
from temporalio.api.common.v1 import Payloads

from api.console import events, overview, person, pushes
from api.console import rendering as style
from api.console.rendering import page
from api.console.session import (
    COOKIE,
    PATH,
    Console,
    ConsoleServices,
    NotSignedIn,
    Signed,
    check_cookie_allowed,
    operator,
    set_cookie,
    signed_in,
)
from api.dependencies import AllServices, Database, Services, supporter
from api.http.auth import LEEWAY
from api.http.browsers import Form, FormRefused, check_origin, page_headers, read_form
from api.http.problems import EXPECTED, Detail, Forbidden, Unauthorized, answer_server_errors, retry_after
from api.http.rates import address
from api.http.request_log import NO_TELEMETRY
from db import console_sessions
from db.console_sessions import Opened
from dispatch.payload_encryption import UnreadablePayload
from domain.problems import LimitReached

_STATUSES = {kind: status for kind, (status, _) in EXPECTED.items()} | {FormRefused: 403}
_HEADINGS = {403: "Not allowed", 404: "Not found", 503: "Not available"}
_HEADING = "That did not work"
_SOURCES = f"img-src 'self' data:; script-src '{style.SCRIPT}'"  # charts and the icon; the one script, for times
_DATABASE_AWAY = "The database cannot be reached. Try again."
_public = APIRouter()  # routes that need no session, or check it themselves
log = structlog.get_logger()
_OURS = re.compile(r"/console(/\w[\w.~%+-]*)*/?(\?[\w.~%+=&:-]*)?", re.ASCII)  # paths that `next` may name


def make_console(state: State) -> FastAPI:
    """Make the console. `state` is what the API holds for all requests."""
    console = FastAPI(openapi_url=None, redirect_slashes=False, telemetry=NO_TELEMETRY)
    console.state = state
    console.add_middleware(page_headers, also=_SOURCES)
    console.include_router(_public)
    console.include_router(style.router)
    for private in (overview, person, pushes, events):
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


@_public.get("/sign-in")
async def ask(request: Request, sessions: Database) -> Response:
    """Ask for a code or a token; redirect if already signed in."""
    where = _page_after_sign_in(request.query_params.get("next"))
    if await signed_in(request, sessions) is not None:
        return RedirectResponse(where, 303)
    return page(request, "sign_in", next=where, trouble=None)


@_public.post("/sign-in")
async def sign_in(request: Request, services: AllServices, console: Console) -> Response:
    """Open a session, and go on to the page that was asked for."""
    check_cookie_allowed(request)
    check_origin(request)
    console.sign_ins.spend(address(request))
    form = await read_form(request)
    where = _page_after_sign_in(form.get("next"))
    try:
        opened = await _opened(services, form)
    except (Unauthorized, Forbidden) as error:
        log.warning("sign-in refused", by="token" if form.get("token") else "code")
        status = 403 if isinstance(error, Forbidden) else 401
        return page(request, "sign_in", status=status, next=where, trouble=str(error))
    answer = RedirectResponse(where, 303)
    set_cookie(request, answer, opened)
    return answer


@_public.post("/sign-out")
async def sign_out(request: Request, _: Signed, sessions: Database) -> Response:
    """End the session here and in the browser."""
    async with sessions.begin() as db:
        await console_sessions.close(db, request.cookies[COOKIE])
    answer = RedirectResponse(f"{PATH}/sign-in", 303)
    answer.delete_cookie(COOKIE, path=PATH, httponly=True, samesite="strict")
    return answer


async def _opened(services: Services, form: Form) -> Opened:
    """Open a session by token or code; raises Unauthorized, Forbidden."""
    if token := form.get("token", "").strip():
        caller = await supporter(await services.tokens.caller(token))
        async with services.sessions.begin() as db:
            until = caller.expires_at - timedelta(seconds=LEEWAY)
            return await console_sessions.open_for(db, caller.actor, "token", until)
    async with services.sessions.begin() as db:
        operator = await console_sessions.redeem(db, form.get("code", ""))
        if operator is not None:
            return await console_sessions.open_for(db, operator, "code")
    raise Unauthorized("This code is not valid. A code works once, and only for a short time.")


def _page_after_sign_in(wanted: str | None) -> str:
    return wanted if wanted and _OURS.fullmatch(wanted) else f"{PATH}/"


@_public.options("/payloads/decode", status_code=204)
async def ask_first(request: Request, console: Console) -> Response:
    """Tell the browser that the Web UI, and nobody else, may call from another origin."""
    return Response(status_code=204, headers=_cors(request, console))


@_public.post("/payloads/decode")
async def decode(request: Request, console: Console, sessions: Database) -> Response:
    """Decrypt payloads: `{"payloads": [{"metadata": {…}, "data": base64}]}` in and out."""
    headers = _cors(request, console)
    if await signed_in(request, sessions) is None:
        return Response("Sign in to the console of Fastbell first.", 401, headers)
    codec = console.temporal.data_converter.payload_codec
    try:
        payloads = Parse(await request.body(), Payloads()).payloads
    except (ParseError, ValueError, RecursionError):  # ValueError: no UTF-8; RecursionError: nested without end
        return Response("The body is not a JSON object of payloads.", 400, headers)
    try:
        decoded = payloads if codec is None else await codec.decode(payloads)
    except UnreadablePayload as error:
        return Response(str(error), 400, headers)
    return Response(MessageToJson(Payloads(payloads=decoded)), headers=headers, media_type="application/json")


def _cors(request: Request, console: ConsoleServices) -> dict[str, str]:
    """Give the headers for the Web UI's origin; raises FormRefused for any other."""
    ui = urlsplit(console.temporal_ui_url or "")
    origin = f"{ui.scheme}://{ui.netloc}"
    if request.headers.get("origin") != origin:
        raise FormRefused("Only Temporal's Web UI at TEMPORAL_UI_URL may ask for this.")
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Allow-Headers": "authorization, content-type, x-namespace",
        "Access-Control-Allow-Methods": "POST",
        "Vary": "Origin",
    }
