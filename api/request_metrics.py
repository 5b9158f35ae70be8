"""Counts requests by the route that served them, never by the path that was asked for."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.route_template import route_template
from telemetry import metrics

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestMetrics:
    """Counts each request once its answer begins; a stream's end is not waited for."""

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
            method = scope["method"] if scope["method"] in _METHODS else "other"
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
                count(500)  # answered further out
            raise
