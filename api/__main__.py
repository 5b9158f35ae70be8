"""Composition root of the API process: `python -m api`."""

import gc
import sys
from contextlib import suppress

import uvicorn
from uvicorn.config import STARTUP_FAILURE

from api.app import create_app
from api.http.connection import allow_connections, bind, connection_of
from api.open_streams import DEFAULT_STREAM_LIMITS, OpenStreamLimits
from dispatch.client import check_settings, leave, metered_runtime
from settings import logs
from settings.environment import ConfigError, auth_settings, limit_settings, service_settings, tracing_settings
from telemetry import tracing

KEEP_ALIVE = 75  # seconds; proxies keep idle connections for less, so they never write to a closed one


def main() -> None:
    """Serve until SIGTERM or SIGINT, then finish the requests under way."""
    try:
        settings, auth = service_settings(), auth_settings()
        logs.configure(settings.log_format, settings.log_level)
        check_settings()  # a wrong one is one sentence here; later, as the app starts, it would be a traceback
        limits, streams = limit_settings(), allow_connections(DEFAULT_STREAM_LIMITS.max_streams)
        if endpoint := tracing_settings().endpoint:
            tracing.start(tracing_settings().otel_service_name or "fastbell-api", endpoint)
        app = create_app(settings, auth, OpenStreamLimits(max_streams=streams), limits, metered_runtime())
    except ConfigError as error:
        sys.exit(str(error))
    config = uvicorn.Config(
        app,
        host=settings.api_host,
        port=settings.api_port,
        loop="uvloop",
        http=connection_of(lasting=streams),
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        proxy_headers=bool(limits.forwarded_allow_ips),
        forwarded_allow_ips=limits.forwarded_allow_ips,
        timeout_graceful_shutdown=10,
    )
    server = uvicorn.Server(config)
    try:
        bound = bind(config)
    except SystemExit:  # uvicorn has logged the cause
        sys.exit(f"API_HOST and API_PORT: cannot listen at {settings.api_host}:{settings.api_port}.")
    gc.freeze()  # collections leave out modules and classes, which took them 0.1 s
    with suppress(KeyboardInterrupt):
        server.run([bound])
    tracing.stop()
    leave(0 if server.started else STARTUP_FAILURE)


if __name__ == "__main__":
    main()
