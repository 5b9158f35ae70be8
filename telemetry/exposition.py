"""Metrics as text for Prometheus, and a server for processes without one of their own.

Everything here runs in threads: a scrape never blocks the event loop.
"""

import http.client
import sys
import threading
from collections.abc import Callable, Collection
from contextlib import closing, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.registry import Collector

from telemetry import metrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SDK_TIMEOUT = 2.0  # seconds
_READ_TIMEOUT = 5.0  # seconds

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Exposition:
    """All metrics of one process: its counters, its collectors, and those of the Temporal SDK.

    `sdk_port`: the local port of the SDK's exporter; None leaves the SDK's metrics out.
    """

    registries: Collection[CollectorRegistry]
    sdk_port: int | None

    def text(self) -> bytes:
        """Give all metrics as text; called in a thread."""
        own = b"".join(generate_latest(registry) for registry in self.registries)
        return own + _sdk_metrics(self.sdk_port)


def expose(registry: CollectorRegistry, collectors: Collection[Collector], sdk_port: int | None) -> Exposition:
    """Combine the metrics of a process; `registry` is the one of its kind."""
    held = CollectorRegistry()
    ProcessCollector(registry=held)
    for collector in collectors:
        held.register(collector)
    return Exposition((metrics.BOTH, registry, held), sdk_port)


class MetricsServer:
    """Serves GET /metrics until it is closed."""

    def __init__(self, host: str, port: int, text: Callable[[], bytes]) -> None:
        """Listen; raises OSError."""

        class Handler(BaseHTTPRequestHandler):
            timeout = _READ_TIMEOUT

            def do_GET(self) -> None:
                if self.path.partition("?")[0] != "/metrics":
                    self.send_error(404)
                    return
                body = text()
                self.send_response(200)
                self.send_header("Content-Type", CONTENT_TYPE)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Do not log scrapes."""

        self._server = _Listener((host, port), Handler)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Log a failed scrape on one line, unless the scraper hung up."""
        error = sys.exc_info()[1]
        if not isinstance(error, (ConnectionError, TimeoutError)):
            log.error("scrape failed", exc_info=error)


def _sdk_metrics(port: int | None) -> bytes:
    if port is None:
        return b""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SDK_TIMEOUT)
    with suppress(OSError, http.client.HTTPException), closing(connection):
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        if answer.status == 200:
            return answer.read()
    log.warning("reading the temporal sdk's metrics failed")

    return b""
