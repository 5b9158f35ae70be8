"""The preference page as an application of its own below /preferences: its answers to trouble, its headers."""

import math

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from sqlalchemy.exc import DBAPIError
from starlette.datastructures import State
from starlette.exceptions import HTTPException

from api.http.forms import FormRefused
from api.http.problems import ServiceUnavailable
from api.http.rates import address
from api.http.request_log import UNTOLD, route_template
from api.http.security_headers import PageHeaders
from api.preference_page import routes
from api.preference_page.languages import chosen
from api.preference_page.rendering import Plain, plain_page
from api.preference_page.routes import BadCode
from api.preference_page.session import NotOpen, OtherForm, PageServices
from db.engine import UNREACHABLE, will_pass
from domain.problems import LimitReached
from telemetry import metrics

log = structlog.get_logger()


def make_preference_page(state: State) -> FastAPI:
    """Make it, to share what the API holds for all requests."""
    page = FastAPI(openapi_url=None, redirect_slashes=False, telemetry=UNTOLD)
    page.state = state
    page.add_middleware(PageHeaders)
    page.include_router(routes.router)
    page.add_exception_handler(BadCode, _bad_code)
    page.add_exception_handler(NotOpen, _gone)
    page.add_exception_handler(OtherForm, _expired)
    page.add_exception_handler(FormRefused, _expired)
    page.add_exception_handler(LimitReached, _busy)
    page.add_exception_handler(HTTPException, _http)
    page.add_exception_handler(ServiceUnavailable, _unreachable)
    page.add_exception_handler(DBAPIError, _database_error)
    for unreachable in UNREACHABLE:
        page.add_exception_handler(unreachable, _unreachable)
    page.add_exception_handler(Exception, _unexpected)
    return page


async def _bad_code(request: Request, _: Exception) -> Response:
    """Answer the same to every code that opens nothing, until there were too many from one address."""
    metrics.preference_links.labels("refused").inc()
    services: PageServices = request.app.state.preference_page
    try:
        services.bad_codes.spend(address(request))
    except LimitReached as error:
        return await _busy(request, error)
    return _said(request, Plain.GONE, 404)


async def _gone(request: Request, _: Exception) -> Response:
    return _said(request, Plain.GONE, 404)


async def _expired(request: Request, _: Exception) -> Response:
    return _said(request, Plain.EXPIRED, 403)


async def _busy(request: Request, error: Exception) -> Response:
    assert isinstance(error, LimitReached)
    answer = _said(request, Plain.BUSY, 429)
    answer.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after.total_seconds())))
    return answer


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = _said(request, Plain.GONE if error.status_code == 404 else Plain.TROUBLE, error.status_code)
    answer.headers.update(error.headers or {})
    return answer


async def _unreachable(request: Request, error: Exception) -> Response:
    log.warning("preference page unavailable", route=route_template(request.scope), error=type(error).__name__)
    return _said(request, Plain.TROUBLE, 503)


async def _database_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, DBAPIError)
    if not will_pass(error):
        raise error
    return await _unreachable(request, error)


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("unexpected error", route=route_template(request.scope), exc_info=error)
    return _said(request, Plain.TROUBLE, 500)


def _said(request: Request, what: Plain, status: int) -> Response:
    return HTMLResponse(plain_page(chosen(request.headers.get("accept-language")), what), status)
