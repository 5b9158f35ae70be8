"""The application: routers, problems, middleware, and what the process holds while it runs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware

from api import (
    acting,
    bulk,
    conversations,
    device_tokens,
    document,
    erasures,
    events,
    fasting_sessions,
    operations,
    preferences,
    stream,
    support,
    sync,
    test_pushes,
)
from api.bounds import BodyLimit, RequestBounds
from api.console.app import make_console
from api.console.session import PATH as CONSOLE
from api.console.session import ConsoleServices
from api.dependencies import ReadinessCheck, Services
from api.http import problems
from api.http.auth import ApiKeys, TokenCheck
from api.http.browsers import SecurityHeaders
from api.http.rates import Rate, Rates, RunningRequests
from api.http.request_log import NO_TELEMETRY, RequestLog, RequestMetrics
from api.open_streams import DEFAULT_STREAM_LIMITS, OpenStreamLimits, OpenStreams
from api.operations import front_page
from api.preference_page.app import make_preference_page
from api.preference_page.session import PageServices, links_router
from api.preference_page.view import PATH as PREFERENCES
from api.writes import LOCK_TIMEOUT, SharedStarts, Writes
from db.engine import make_engine, make_sessions
from dispatch.client import UNMETERED, Metered, certificate_files, connect, watch
from dispatch.relay import Relay
from domain.naming import VERSION
from domain.problems import MessageQuota, Quotas, read_rate
from settings.apps_file import AppIds
from settings.environment import DEFAULT_LIMITS, AuthSettings, LimitSettings, ServiceSettings
from settings.presentations import PresentationFiles
from telemetry import metrics
from telemetry.certificates import CertificateExpiry
from telemetry.exposition import expose

SIGN_OUTS = "30/minute"  # by ticket, from one address; a phone has at most eight to send


def create_app(
    settings: ServiceSettings,
    auth: AuthSettings,
    stream_limits: OpenStreamLimits = DEFAULT_STREAM_LIMITS,
    limits: LimitSettings = DEFAULT_LIMITS,
    metered: Metered = UNMETERED,
) -> FastAPI:
    """Make the application, to be served over `HttpConnection`. Raises ConfigError.

    It starts without its database and without Temporal.
    """
    app_ids, presented = AppIds(settings.apps_file), PresentationFiles(settings)
    rates = Rates(limits.rate_limit, limits.rate_limit_service)
    running = RunningRequests(
        limits.max_concurrent_requests_per_caller or None, limits.max_concurrent_requests_per_service or None
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database_url = settings.database_url.get_secret_value()
        engine = make_engine(database_url, pool_size=settings.database_pool_size, lock_timeout=LOCK_TIMEOUT)
        sessions = make_sessions(engine)
        temporal = await connect(lazy=True, runtime=metered.runtime)
        relay = Relay(sessions, temporal, settings.arm_window)
        writes = Writes(sessions, settings.database_pool_size, _quotas(limits))
        starts = SharedStarts(writes, relay)
        streams = OpenStreams(sessions, database_url, stream_limits)
        exposition = expose(metrics.API, [CertificateExpiry(certificate_files())], metered.port)
        app.state.services = Services(
            sessions=sessions,
            tokens=TokenCheck(auth, ApiKeys(sessions)),
            rates=rates,
            sign_outs=Rate(read_rate(SIGN_OUTS)),
            running=running,
            readiness=ReadinessCheck(sessions),
            writes=writes,
            starts=starts,
            relay=relay,
            app_ids=app_ids,
            streams=streams,
            presentations=presented.presentations,
            exposition=exposition,
            allow_private_webhooks=settings.webhooks_allow_private,
            erasure_key=settings.erasure_key.get_secret_value().encode() if settings.erasure_key else None,
        )
        app.state.console = ConsoleServices(temporal, settings.temporal_ui_url)
        app.state.preference_page = PageServices(settings.public_address, presented.presentations)
        watching = [asyncio.create_task(watch(temporal)), asyncio.create_task(presented.follow())]
        async with streams.running():
            yield
        for task in watching:
            task.cancel()
        await starts.close()
        await relay.close()
        await engine.dispose()

    app = FastAPIOffline(  # its pages load their scripts from here, not from the internet
        redoc_url=None,  # it loads a picture from the internet
        title="Fastbell",
        version=VERSION,
        summary=document.SUMMARY,
        description=document.DESCRIPTION,
        generate_unique_id_function=document.operation_id,
        lifespan=lifespan,
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
    )
    problems.install(app)
    document.install(app, settings.public_address)
    app.add_middleware(acting.RawUserIds)
    app.add_middleware(RequestBounds, timeout=limits.request_timeout, most=limits.most_requests)
    app.add_middleware(BodyLimit)  # added later, so passed earlier: an unfinished body takes no request's place
    if limits.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=limits.cors_origins,
            allow_methods=("GET", "PUT", "POST", "PATCH", "DELETE"),
            allow_headers=("Authorization", "Content-Type", "If-Match", "Last-Event-ID"),
            expose_headers=("ETag", "Retry-After"),
        )
    app.add_middleware(SecurityHeaders)
    app.add_middleware(RequestMetrics)
    app.add_middleware(RequestLog)
    acting.include_user_routers(
        app,
        [
            device_tokens.user_router,
            fasting_sessions.user_router,
            conversations.user_router,
            sync.user_router,
            preferences.user_router,
            links_router,
            sync.opened_router,
        ],
    )
    app.include_router(bulk.router)
    for router in (
        device_tokens.router,
        conversations.router,
        stream.router,
        events.router,
        events.webhooks_router,
        erasures.router,
        support.router,
        test_pushes.router,
        operations.router,
    ):
        app.include_router(router)
    front = front_page(settings)
    app.add_route("/", lambda _: front, include_in_schema=False)
    _mount(app, CONSOLE, make_console(app.state))
    _mount(app, PREFERENCES.rstrip("/"), make_preference_page(app.state))
    return app


def _mount(app: FastAPI, path: str, pages: FastAPI) -> None:
    app.mount(path, pages)
    app.add_route(path, lambda _: RedirectResponse(f"{path}/", 303), include_in_schema=False)


def _quotas(granted: LimitSettings) -> Quotas:
    messages = None
    if granted.message_burst and granted.message_rate != "0":
        rate = read_rate(granted.message_rate)
        messages = MessageQuota(granted.message_burst, timedelta(seconds=rate.seconds) / rate.amount)
    return Quotas(granted.max_installations_per_user or None, granted.max_active_fasts_per_user or None, messages)
