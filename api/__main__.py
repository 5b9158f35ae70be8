"""Composition root of the API process: `python -m api`."""

import sys
from contextlib import suppress

import uvicorn
from uvicorn.config import STARTUP_FAILURE

import logs
from api.app import create_app
from api.connection import HttpConnection, allow_connections, bind
from api.open_streams import DEFAULT_TERMS, Terms
from config import ConfigError, auth_settings, service_settings
from temporal import metered_runtime


def main() -> None:
    """Serve until SIGTERM or SIGINT, then let requests under way finish."""
    try:
        settings, auth = service_settings(), auth_settings()
        logs.configure(settings.log_format, settings.log_level)
        app = create_app(settings, auth, Terms(most=allow_connections(DEFAULT_TERMS.most)), metered_runtime())
    except ConfigError as error:
        sys.exit(str(error))
    config = uvicorn.Config(
        app,
        host=settings.api_host,
        port=settings.api_port,
        loop="uvloop",
        http=HttpConnection,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=10,
    )
    server = uvicorn.Server(config)
    with suppress(KeyboardInterrupt):
        server.run([bind(config)])
    if not server.started:
        sys.exit(STARTUP_FAILURE)


if __name__ == "__main__":
    main()
