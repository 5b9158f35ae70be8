"""The preference page as an application of its own below /preferences.

A link is exchanged for a cookie, the cookie shows the page, its forms change preferences.
"""

from collections.abc import Collection
from dataclasses import replace

import structlog
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.datastructures import State
from starlette.exceptions import HTTPException

from api.dependencies import Database, Dispatch, RowWrites
from api.http.browsers import UNKNOWN_FORM, FormRefused, check_origin, page_headers
from api.http.problems import ServiceUnavailable, answer_server_errors, retry_after
from api.http.rates import address
from api.http.request_log import NO_TELEMETRY, route_template
from api.preference_page import form
from api.preference_page.rendering import STYLE, Plain, confirm_page, plain_page, preference_page
from api.preference_page.session import FormOfOtherPage, Holder, LinkHolder, NoOpenPage, Page, PageServices
from api.preference_page.view import (
    BASE_FIELD,
    PATH,
    REV_FIELD,
    SIGN_OUT_PATH,
    STOP_FIELD,
    STOP_PATH,
    STYLE_PATH,
    Notice,
    Stop,
    View,
    view_of,
)
from api.preference_page.words import chosen
from api.preferences import PreferencesPatch, apply
from api.writes import Writes
from db import preference_links as preference_sessions
from db import preferences
from db.engine import Sessions
from db.preference_links import LinkFor
from domain.naming import digest
from domain.problems import Conflict, InvalidField, LimitReached, Outdated
from telemetry import metrics

log = structlog.get_logger()
_router = APIRouter()
_IN_QUERY = {Notice.SAVED, Notice.REMINDERS_STOPPED, Notice.MESSAGES_STOPPED}  # allowed in the query of the address


def make_preference_page(state: State) -> FastAPI:
    """Make the page. `state` is what the API holds for all requests."""
    page = FastAPI(openapi_url=None, redirect_slashes=False, telemetry=NO_TELEMETRY)
    page.state = state
    page.add_middleware(page_headers)
    page.include_router(_router)
    page.add_exception_handler(BadCode, _bad_code)
    page.add_exception_handler(NoOpenPage, _link_gone)
    page.add_exception_handler(Conflict, _link_gone)  # its user is being erased
    page.add_exception_handler(FormOfOtherPage, _expired)
    page.add_exception_handler(FormRefused, _expired)
    page.add_exception_handler(LimitReached, _busy)
    page.add_exception_handler(HTTPException, _http)
    page.add_exception_handler(ServiceUnavailable, _unavailable)
    answer_server_errors(
        page,
        on_erased=_link_gone,
        on_unavailable=lambda request: _plain(request, Plain.TROUBLE, 503),
        on_unexpected=lambda request: _plain(request, Plain.TROUBLE, 500),
    )
    return page


async def _bad_code(request: Request, _: Exception) -> Response:
    """Give the same answer to every unusable code, until one address has sent too many."""
    metrics.preference_links.labels("refused").inc()
    services: PageServices = request.app.state.preference_page
    try:
        services.bad_codes.spend(address(request))
    except LimitReached as error:
        return await _busy(request, error)
    return _plain(request, Plain.GONE, 404)


async def _link_gone(request: Request, _: Exception) -> Response:
    return _plain(request, Plain.GONE, 404)


async def _expired(request: Request, _: Exception) -> Response:
    return _plain(request, Plain.EXPIRED, 403)


async def _busy(request: Request, error: Exception) -> Response:
    assert isinstance(error, LimitReached)
    answer = _plain(request, Plain.BUSY, 429)
    answer.headers.update(retry_after(error))
    return answer


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = _plain(request, Plain.GONE if error.status_code == 404 else Plain.TROUBLE, error.status_code)
    answer.headers.update(error.headers or {})
    return answer


async def _unavailable(request: Request, error: Exception) -> Response:
    log.warning("preference page unavailable", route=route_template(request.scope), error=str(error))
    return _plain(request, Plain.TROUBLE, 503)


def _plain(request: Request, what: Plain, status: int) -> Response:
    return HTMLResponse(plain_page(_locale(request), what), status)


_STOPPED = {
    Stop.REMINDERS: (PreferencesPatch(reminders=False), Notice.REMINDERS_STOPPED),
    Stop.MESSAGES: (PreferencesPatch(messages=False), Notice.MESSAGES_STOPPED),
}


class BadCode(Exception):
    """The link does not exist, or is not valid any more."""


def _below(path: str) -> str:
    """Give a path relative to where this application is mounted."""
    return path.removeprefix(PATH.rstrip("/"))


@_router.api_route(_below(PATH), methods=["GET", "HEAD"])
async def show(request: Request, holder: Holder, sessions: Database) -> Response:
    """Show the page."""
    view = await _view(request, holder, sessions)
    notice = request.url.query
    return HTMLResponse(preference_page(replace(view, notice=Notice(notice) if notice in _IN_QUERY else None)))


@_router.post(_below(PATH))
async def save(request: Request, holder: Holder, sessions: Database, writes: RowWrites, relay: Dispatch) -> Response:
    """Store the changes of the form by the rules of the API's PATCH, then show the stored preferences."""
    typed, rev = form.typed(holder.form), holder.form.get(REV_FIELD, "")
    async with sessions() as db:
        stored = await preferences.of_user(db, holder.user_id)
    body, problems = form.changes(typed, stored)
    notice = None
    if not problems:
        try:
            changes = PreferencesPatch.model_validate(form.asked_for(body, typed, stored))
            await apply(changes, holder.user_id, f'"{_digits(rev)}"', writes, relay)
            return RedirectResponse(f"{PATH}?{Notice.SAVED}", 303)
        except Outdated:
            notice = Notice.CONFLICT
        except (ValidationError, InvalidField) as error:
            problems = {_field(error): "problem_choose"}
    view = await _view(request, holder, sessions)
    if notice is Notice.CONFLICT:
        typed = form.merged(typed, holder.form.get(BASE_FIELD, ""), view.preferences)
    shown = replace(view, notice=notice, problems=problems, typed=typed)
    return HTMLResponse(preference_page(shown), 409 if notice else 422)


@_router.post(_below(STOP_PATH))
async def stop(holder: Holder, writes: RowWrites, relay: Dispatch) -> Response:
    """Stop reminders or messages, whatever the revision."""
    try:
        body, notice = _STOPPED[Stop(holder.form.get(STOP_FIELD, ""))]
    except ValueError:
        raise FormRefused(UNKNOWN_FORM) from None
    await apply(body, holder.user_id, None, writes, relay)
    return RedirectResponse(f"{PATH}?{notice}", 303)


@_router.post(_below(SIGN_OUT_PATH))
async def sign_out(request: Request, holder: Holder, sessions: Database, services: Page) -> Response:
    """Close the page here and in the browser."""
    async with sessions.begin() as db:
        await preference_sessions.close(db, holder.value)
    answer = HTMLResponse(plain_page(_locale(request), Plain.SIGNED_OUT))
    services.delete_cookie(answer)
    return answer


@_router.get(_below(STYLE_PATH))
async def style() -> Response:
    """Give the style sheet. Its address changes with its content, so it may be cached."""
    return Response(STYLE, media_type="text/css", headers={"Cache-Control": "public, max-age=31536000, immutable"})


@_router.get("/{code}")
async def follow(code: str, request: Request, sessions: Database, writes: RowWrites, services: Page) -> Response:
    """Exchange an app's link for a cookie. For other links, and for prefetches, show a button that does it."""
    if not _is_prefetch(request):
        answer = await _redeemed(code, {LinkFor.APP}, request, writes, services)
        if answer is not None:
            return answer
    if await _kind(code, sessions) is None:
        raise BadCode
    return HTMLResponse(confirm_page(_locale(request), f"{PATH}{code}"))


@_router.head("/{code}")
async def look(code: str, sessions: Database) -> Response:
    """Tell whether the link is valid, without using it up."""
    if await _kind(code, sessions) is None:
        raise BadCode
    return HTMLResponse()


@_router.post("/{code}")
async def confirm(code: str, request: Request, writes: RowWrites, services: Page) -> Response:
    """Exchange a link for a cookie: the button was pressed."""
    check_origin(request, services.origins)
    answer = await _redeemed(code, set(LinkFor), request, writes, services)
    if answer is None:
        raise BadCode
    return answer


async def _redeemed(
    code: str, kinds: Collection[LinkFor], request: Request, writes: Writes, services: PageServices
) -> Response | None:
    """Use up a link and redirect to the page. It replaces the page that was open; None if the link is not valid."""

    async def redeem(db: AsyncSession) -> str | None:
        user_id = await preference_sessions.redeem(db, code, kinds)
        if user_id is None:
            return None
        return await preference_sessions.open_for(db, user_id, request.cookies.get(services.cookie))

    value = await writes.run(redeem, f"preference-link/{digest(code).hex()}")
    if value is None:
        return None
    metrics.preference_links.labels("opened").inc()
    answer = RedirectResponse(PATH, 303)
    services.set_cookie(answer, value)
    return answer


async def _kind(code: str, sessions: Sessions) -> LinkFor | None:
    async with sessions() as db:
        return await preference_sessions.kind_of(db, code)


async def _view(request: Request, holder: LinkHolder, sessions: Sessions) -> View:
    services: PageServices = request.app.state.preference_page
    async with sessions() as db:
        return await view_of(db, holder.page, request.headers.get("accept-language"), services.presentations)


def _locale(request: Request) -> str:
    return chosen(request.headers.get("accept-language"))


def _is_prefetch(request: Request) -> bool:
    """Tell whether a browser only prefetches. It would not ask again when the user opens the link."""
    purposes = (request.headers.get(name, "") for name in ("sec-purpose", "purpose", "x-purpose", "x-moz"))
    return any("prefetch" in each.lower() or "preview" in each.lower() for each in purposes)


def _digits(rev: str) -> str:
    """Give a revision for the tag; empty, which matches no revision, for anything else."""
    return rev if rev.isascii() and rev.isdigit() else ""


def _field(error: ValidationError | InvalidField) -> str:
    """Name the field of the form that broke a rule of the API."""
    path = error.field.split(".") if isinstance(error, InvalidField) else [str(p) for p in error.errors()[0]["loc"]]
    named = [part for part in path if part in form.FIELDS]
    if not named:
        raise error
    return named[-1]
