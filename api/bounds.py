"""Bounds of requests, so that no caller can block the process: their bodies, their number, their heads, their time."""

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

import structlog
from fastapi.security.utils import get_authorization_scheme_param
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.dependencies import Services
from api.http.auth import Caller
from api.http.connection import LARGEST_HEAD
from api.http.problems import Detail, ProblemResponse, ServiceUnavailable, Unauthorized, problem, unavailable
from api.http.request_log import route_template

LARGEST_BODY = 64 * 1024  # bytes
LARGEST_BATCH = 4 * 1024 * 1024  # bytes; 500 items of the longest device tokens are half of it
BATCHES = frozenset({"/v1/fasting-sessions/batch", "/v1/device-tokens/batch"})
MAX_HELD = 16 * 1024 * 1024  # bytes of all unfinished bodies
MAX_PER_USER = 8 * LARGEST_BODY
MAX_PER_SERVICE = 2 * LARGEST_BATCH
MAX_ANONYMOUS = 16 * LARGEST_BODY  # of all requests without a valid bearer token together
MAX_HEADERS = 100
UNBOUNDED = frozenset({"/livez", "/readyz", "/metrics"})  # these answer while the process is busy
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Owner:
    """The caller, or all anonymous callers, whose bodies are counted together."""

    name: tuple[str, ...]
    most: int  # bytes

    def largest(self, path: str) -> int:
        """Give the largest body that is read from it there, in bytes."""
        return LARGEST_BATCH if self.most == MAX_PER_SERVICE and path in BATCHES else LARGEST_BODY

    def refusal(self) -> ProblemResponse:
        if self is _ANONYMOUS:
            return unavailable(Detail.ALL_BODIES)
        detail = Detail.CALLER_BODIES.format(most=self.most)
        return problem(429, "too-many-concurrent-requests", detail, headers={"Retry-After": "1"})


_ANONYMOUS = _Owner((), MAX_ANONYMOUS)


class BodyLimit:
    """Reads each body up to the limit before the app sees the request; a longer one is answered with 413.

    The limit is `LARGEST_BODY`, and `LARGEST_BATCH` for a service that sends a batch.

    A body that has arrived with its head is not counted. So slow bodies, which hold little, turn no others away.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._held: Counter[tuple[str, ...]] = Counter()  # bytes by owner
        self._all = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        first = await receive()
        read: Message | ProblemResponse = first
        if first["type"] == "http.request" and (
            first.get("more_body", False) or len(first.get("body", b"")) > LARGEST_BODY
        ):
            read = await self._rest(first, scope, receive)
        if isinstance(read, ProblemResponse):
            await read(scope, receive, send)
            return
        if read["type"] == "http.disconnect":
            return
        whole: Message | None = read

        async def receive_whole() -> Message:
            nonlocal whole
            message, whole = whole, None
            return await receive() if message is None else message

        await self._app(scope, receive_whole, send)

    async def _rest(self, first: Message, scope: Scope, receive: Receive) -> Message | ProblemResponse:
        """Read the rest of a body; gives the whole body, or the problem to answer with."""
        owner, body = _ANONYMOUS, bytearray()
        piece, more = first.get("body", b""), first.get("more_body", False)
        owner_task = asyncio.create_task(_caller(scope))
        await asyncio.sleep(0)  # the task is done after this, unless the issuer's keys have to be fetched
        try:
            while True:
                if scope["path"] in BATCHES and len(body) + len(piece) > LARGEST_BODY:
                    await asyncio.wait({owner_task})  # only a service may send more
                if owner is _ANONYMOUS and owner_task.done():
                    self._give_back(owner, len(body))
                    owner = _owner(owner_task.result())
                    self._take(owner, len(body))
                self._take(owner, len(piece))
                body += piece
                if len(body) > owner.largest(scope["path"]):
                    return _too_large(owner.largest(scope["path"]))
                if more and self._held[owner.name] > owner.most:
                    return owner.refusal()
                if more and self._all > MAX_HELD:
                    return unavailable(Detail.ALL_BODIES)
                if not more:
                    return {"type": "http.request", "body": bytes(body), "more_body": False}
                message = await receive()
                if message["type"] == "http.disconnect":
                    return message
                piece, more = message.get("body", b""), message.get("more_body", False)
        finally:
            owner_task.cancel()
            self._give_back(owner, len(body))

    def _take(self, owner: _Owner, count: int) -> None:
        self._held[owner.name] += count
        self._all += count

    def _give_back(self, owner: _Owner, count: int) -> None:
        self._take(owner, -count)
        if not self._held[owner.name]:
            del self._held[owner.name]


async def _caller(scope: Scope) -> Caller | None:
    """Find the caller of a request before its body is there; None where no valid token came."""
    services: Services = scope["app"].state.services
    scheme, token = get_authorization_scheme_param(Headers(scope=scope).get("authorization"))
    with suppress(Unauthorized, ServiceUnavailable):
        if scheme.lower() == "bearer":
            return await services.tokens.caller(token)
    return None


def _owner(caller: Caller | None) -> _Owner:
    if caller is None:
        return _ANONYMOUS
    if "service" in caller.scopes:
        return _Owner(caller.account, MAX_PER_SERVICE)
    return _Owner(caller.account, MAX_PER_USER)


def _too_large(most: int) -> ProblemResponse:
    return problem(413, "body-too-large", Detail.BODY_TOO_LARGE.format(most=most))


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
