"""The preference page as an application of its own below /preferences: its answers to errors, its headers."""

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from starlette.datastructures import State
from starlette.exceptions import HTTPException

from api.http.forms import FormRefused
from api.http.problems import ServiceUnavailable, answer_server_errors, retry_after
from api.http.rates import address
from api.http.request_log import NO_TELEMETRY, route_template
from api.http.security_headers import page_headers
from api.preference_page import routes
from api.preference_page.languages import chosen
from api.preference_page.rendering import Plain, plain_page
from api.preference_page.routes import BadCode
from api.preference_page.session import FormOfOtherPage, NoOpenPage, PageServices
from domain.problems import Conflict, LimitReached
from telemetry import metrics

log = structlog.get_logger()


def make_preference_page(state: State) -> FastAPI:
    """Make the page. `state` is what the API holds for all requests."""
    page = FastAPI(openapi_url=None, redirect_slashes=False, telemetry=NO_TELEMETRY)
    page.state = state
    page.add_middleware(page_headers)
    page.include_router(routes.router)
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
    return HTMLResponse(plain_page(chosen(request.headers.get("accept-language")), what), status)
