"""Bounds of one request, and of all that wait for an answer, so that no caller can hold the process up."""

import asyncio

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.problems import ProblemResponse, problem
from api.http.request_log import route_template

MAX_HEADERS = 100
LARGEST_HEAD = 16 * 1024  # bytes; what arrives in pieces is cut off at the same size by the connection
UNBOUNDED = frozenset({"/livez", "/readyz", "/metrics"})  # answer while the process is busy, too

log = structlog.get_logger()


class RequestBounds:
    """Turns away what is too large or too much, and gives up on what takes too long to be answered.

    It comes behind `BodyLimit`: a request counts once its body is there. How long a body may take, and how many may be
    on their way, the connection says.
    An answer that has begun has all the time it needs: streams last.
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
            detail = f"A request may have at most {MAX_HEADERS} headers of {LARGEST_HEAD} bytes together."
            await problem(431, "head-too-large", detail)(scope, receive, send)
        elif self._waiting >= self._most:
            await _unavailable("This process has too many requests under way. Try again.")(scope, receive, send)
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
            log.warning("request given up", route=route_template(scope), method=scope["method"])
            await _unavailable("This took too long. Try again: repeats are harmless.")(scope, receive, send)
        finally:
            answered()


def _is_too_large(scope: Scope) -> bool:
    headers = scope["headers"]
    return len(headers) > MAX_HEADERS or sum([len(name) + len(value) for name, value in headers]) > LARGEST_HEAD


def _unavailable(detail: str) -> ProblemResponse:
    return problem(503, "unavailable", detail, headers={"Retry-After": "1"})
