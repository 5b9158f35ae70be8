"""The application: routers, problems, and what is held while it runs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.responses import RedirectResponse

from api import (
    conversations,
    device_tokens,
    fasting_sessions,
    operations,
    preferences,
    problems,
    push_tasks,
    stream,
    support,
    sync,
)
from api.auth import TokenCheck
from api.console.app import make_console
from api.console.door import PATH
from api.console.means import ConsoleMeans
from api.dependencies import Services
from api.limits import BodyLimit
from api.open_streams import DEFAULT_TERMS, OpenStreams, Terms
from apps_file import AppIds
from config import AuthSettings, ServiceSettings
from db.engine import make_engine, make_sessions
from relay import Relay
from temporal import connect


def create_app(settings: ServiceSettings, auth: AuthSettings, terms: Terms = DEFAULT_TERMS) -> FastAPI:
    """Make the application, to be served over `HttpConnection`. Raises ConfigError.

    It comes up while its database and Temporal are away.
    """
    app_ids = AppIds(settings.apps_file)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database_url = settings.database_url.get_secret_value()
        engine = make_engine(database_url, pool_size=settings.database_pool_size)
        sessions = make_sessions(engine)
        temporal = await connect(lazy=True)
        relay = Relay(sessions, temporal, settings.arm_window)
        streams = OpenStreams(sessions, database_url, terms)
        app.state.services = Services(sessions, TokenCheck(auth), relay, app_ids, streams)
        app.state.console = ConsoleMeans(temporal, settings.temporal_ui_url)
        async with streams.running():
            yield
        await relay.close()
        await engine.dispose()

    app = FastAPI(
        title="Fastbell",
        summary="Push notifications that stay boring.",
        description="Reminders of fasting sessions, on every phone of a person, once, on time. The backend is the "
        "source of truth; a push only says: come and look.",
        lifespan=lifespan,
        redirect_slashes=False,
    )
    problems.install(app)
    app.add_middleware(BodyLimit)
    for resource in (
        device_tokens,
        fasting_sessions,
        conversations,
        sync,
        stream,
        preferences,
        push_tasks,
        support,
        operations,
    ):
        app.include_router(resource.router)
    app.mount(PATH, make_console(app.state))
    app.add_route(PATH, lambda _: RedirectResponse(f"{PATH}/", 303), include_in_schema=False)
    return app
