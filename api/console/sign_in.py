"""Sign-in with a one-time code, or with a bearer token that has the scope `support`; sign-out."""

import re
from datetime import timedelta

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from api.console.rendering import page
from api.console.session import COOKIE, PATH, Console, Signed, check_cookie_allowed, set_cookie, signed_in
from api.dependencies import AllServices, Database, Services, supporter
from api.http.auth import LEEWAY
from api.http.browsers import Form, check_origin, read_form
from api.http.problems import Forbidden, Unauthorized
from api.http.rates import address
from db import console_sessions
from db.console_sessions import Opened

router = APIRouter()
log = structlog.get_logger()
_OURS = re.compile(r"/console(/\w[\w.~%+-]*)*/?(\?[\w.~%+=&:-]*)?", re.ASCII)  # paths that `next` may name


@router.get("/sign-in")
async def ask(request: Request, sessions: Database) -> Response:
    """Ask for a code or a token; redirect if already signed in."""
    where = _page_after_sign_in(request.query_params.get("next"))
    if await signed_in(request, sessions) is not None:
        return RedirectResponse(where, 303)
    return page(request, "sign_in", next=where, trouble=None)


@router.post("/sign-in")
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


@router.post("/sign-out")
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
