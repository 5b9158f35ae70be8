"""Bounds of one request and of all requests that wait for an answer, so that no caller can block the process."""

import asyncio

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.problems import Detail, problem, unavailable
from api.http.request_log import route_template

MAX_HEADERS = 100
LARGEST_HEAD = 16 * 1024  # bytes; the connection cuts off a head that arrives in pieces at the same size
UNBOUNDED = frozenset({"/livez", "/readyz", "/metrics"})  # these answer while the process is busy
log = structlog.get_logger()


class RequestBounds:
    """Refuses a request that is too large or one too many, and gives up on one that takes too long.

    It is behind `BodyLimit`: a request counts once its body is there. The connection bounds how long a body may
    take, and how many requests may be arriving. An answer that has begun may take any time, since streams last.
    """

    def __init__(self, app: ASGIApp, *, timeout: float, most: int) -> None:
        self._app = app
        self._timeout = timeout  # seconds
        self._most = most
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or scope["path"] in UNBOUNDED:
            await self._app(scope, receive, send)
        elif _is_too_large(scope):
            detail = Detail.HEAD_TOO_LARGE.format(headers=MAX_HEADERS, size=LARGEST_HEAD)
            await problem(431, "head-too-large", detail)(scope, receive, send)
        elif self._waiting >= self._most:
            await unavailable(Detail.TOO_MANY_IN_PROCESS)(scope, receive, send)
        else:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        waits = True

        def answered() -> None:
            nonlocal waits
            self._waiting -= waits
            waits = False

        async def send_in_time(message: Message) -> None:
            if waits:
                if not deadline.expired():
                    deadline.reschedule(None)
                answered()
            await send(message)

        self._waiting += 1
        try:
            async with asyncio.timeout(self._timeout) as deadline:
                await self._app(scope, receive, send_in_time)
        except TimeoutError:
            if not (waits and deadline.expired()):
                raise
            log.warning("request timed out", route=route_template(scope), method=scope["method"])
            await unavailable(Detail.TOO_SLOW)(scope, receive, send)
        finally:
            answered()


def _is_too_large(scope: Scope) -> bool:
    headers = scope["headers"]
    return len(headers) > MAX_HEADERS or sum([len(name) + len(value) for name, value in headers]) > LARGEST_HEAD
