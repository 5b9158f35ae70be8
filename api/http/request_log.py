"""The log line, the span and the metrics of each request, and the id that its log lines and its answer carry."""

import re
import time
from uuid import UUID, uuid4

import structlog
from fastapi.telemetry import TelemetryConfig
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from telemetry import metrics, tracing

UNMATCHED = "unmatched"


def route_template(scope: Scope) -> str:
    """Name the route that took a request. For nested routers FastAPI keeps the whole template elsewhere."""
    whole = scope.get("fastapi", {}).get("effective_route_context")
    template = getattr(whole or scope.get("route"), "path_format", None)
    return UNMATCHED if template is None else f"{scope.get('root_path', '')}{template}"


HEADER = "X-Request-ID"
_GIVEN = re.compile(rb"[A-Za-z0-9._-]{8,40}")  # shorter than device and bearer tokens, which must not be logged
_METHODS = {"GET", "PUT", "PATCH", "POST", "DELETE", "HEAD", "OPTIONS"}
_QUIET = {"/livez", "/readyz", "/metrics"}
_NAMED = ("session_id", "conversation_id", "message_id", "task_id", "installation_id")  # in paths


NO_TELEMETRY: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
}  # FastAPI's own would log the texts of exceptions


log = structlog.get_logger()


class RequestLog:
    """Logs each request and gives it an id; the outermost middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = _GIVEN.fullmatch(headers.get(b"x-request-id", b""))
        request_id = given[0].decode() if given else uuid4().hex
        structlog.contextvars.clear_contextvars()  # requests of one connection may share a context
        structlog.contextvars.bind_contextvars(request_id=request_id)
        status: int | None = None  # None: the client had left

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (HEADER.lower().encode(), request_id.encode())]
            await send(message)

        if scope["path"] in _QUIET:
            await self._app(scope, receive, send_named)
            return
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        began = time.perf_counter()
        parent = tracing.context_of(headers.get(b"traceparent", b"").decode("latin-1"))
        with tracing.span(method, tracing.Kind.SERVER, parent, {"http.request.method": method}) as span:
            try:
                await self._app(scope, receive, send_named)
            except Exception:
                status = 500  # answered by an outer handler
                raise
            finally:
                route = route_template(scope)
                ms = round((time.perf_counter() - began) * 1000, 1)
                span.update_name(f"{method} {route}")
                span.set_attributes({"http.route": route, "http.response.status_code": status or 0})
                log.info("request", method=method, route=route, status=status, ms=ms, **_ids(scope))


def current_request_id() -> dict[str, str]:
    """Give the header for an answer that does not pass through the middleware."""
    request_id = structlog.contextvars.get_contextvars().get("request_id")
    return {HEADER: request_id} if request_id else {}


def _ids(scope: Scope) -> dict[str, str]:
    """Find the ids in the path, by the names of the route. Values that are not ids are left out."""
    path = scope.get("path_params", {})
    ids = {name: _id(path[name]) for name in _NAMED if name in path}
    return {name: value for name, value in ids.items() if value is not None}


def _id(given: object) -> str | None:
    try:
        return str(UUID(str(given)))
    except ValueError:
        return None


_COUNTED = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestMetrics:
    """Counts each request when its answer begins, so a stream counts before it ends."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, is_counted = time.monotonic(), False

        def count(status: int) -> None:
            nonlocal is_counted
            is_counted = True
            method = scope["method"] if scope["method"] in _COUNTED else "other"
            route = route_template(scope)
            metrics.http_requests.labels(method, route, f"{status // 100}xx").inc()
            metrics.http_answer.labels(method, route).observe(time.monotonic() - began)

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                count(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, send_counted)
        except Exception:
            if not is_counted:
                count(500)  # answered by an outer handler
            raise
