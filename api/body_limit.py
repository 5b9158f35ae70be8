"""Bodies: the largest one that is read at all, and how many bytes of those on their way are held."""

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

from fastapi.security.utils import get_authorization_scheme_param
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.dependencies import Services
from api.http.auth import Caller
from api.http.problems import ProblemResponse, ServiceUnavailable, Unauthorized, problem

LARGEST_BODY = 64 * 1024  # bytes
MAX_HELD = 16 * 1024 * 1024  # bytes of all bodies that are not whole yet
MAX_OF_USER = 8 * LARGEST_BODY
MAX_OF_SERVICE = 64 * LARGEST_BODY
MAX_OF_NOBODY = 16 * LARGEST_BODY  # of all together who send no bearer token that is valid
_NOW = {"Retry-After": "1"}


@dataclass(frozen=True, slots=True)
class _Owner:
    """Whose bodies count together."""

    name: tuple[str, ...]
    most: int  # bytes

    def refusal(self) -> ProblemResponse:
        if self is _NOBODY:
            return _unavailable()
        detail = f"At most {self.most} bytes of one caller's bodies are read at a time. Try again when they are read."
        return problem(429, "too-many-concurrent-requests", detail, headers=_NOW)


_NOBODY = _Owner((), MAX_OF_NOBODY)


class BodyLimit:
    """Reads each body whole before the app sees it, up to the limit; a longer one is answered with 413.

    What is there at the first look takes nobody's room, so slow bodies, which have little, turn no others away.
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
        found: Message | ProblemResponse = first
        if first["type"] == "http.request" and first.get("more_body", False):
            found = await self._rest(first.get("body", b""), scope, receive)
        if isinstance(found, ProblemResponse):
            await found(scope, receive, send)
            return
        if found["type"] == "http.disconnect":
            return
        if len(found.get("body", b"")) > LARGEST_BODY:
            await _too_large()(scope, receive, send)
            return
        whole: Message | None = found

        async def receive_whole() -> Message:
            nonlocal whole
            message, whole = whole, None
            return await receive() if message is None else message

        await self._app(scope, receive_whole, send)

    async def _rest(self, first: bytes, scope: Scope, receive: Receive) -> Message | ProblemResponse:
        """Read a body on; gives it whole, or what to answer in its place."""
        owner, body, piece, more = _NOBODY, bytearray(), first, True
        asking = asyncio.create_task(_caller(scope))
        await asyncio.sleep(0)  # then it has its answer, unless the issuer's keys have to be fetched
        try:
            while True:
                if owner is _NOBODY and asking.done():
                    self._give_back(owner, len(body))
                    owner = _owner(asking.result())
                    self._take(owner, len(body))
                self._take(owner, len(piece))
                body += piece
                if len(body) > LARGEST_BODY:
                    return _too_large()
                if more and self._held[owner.name] > owner.most:
                    return owner.refusal()
                if more and self._all > MAX_HELD:
                    return _unavailable()
                if not more:
                    return {"type": "http.request", "body": bytes(body), "more_body": False}
                message = await receive()
                if message["type"] == "http.disconnect":
                    return message
                piece, more = message.get("body", b""), message.get("more_body", False)
        finally:
            asking.cancel()
            self._give_back(owner, len(body))

    def _take(self, owner: _Owner, count: int) -> None:
        self._held[owner.name] += count
        self._all += count

    def _give_back(self, owner: _Owner, count: int) -> None:
        self._take(owner, -count)
        if not self._held[owner.name]:
            del self._held[owner.name]


async def _caller(scope: Scope) -> Caller | None:
    """Say whose a request is, before its body is there; None for nobody's."""
    services: Services = scope["app"].state.services
    scheme, token = get_authorization_scheme_param(Headers(scope=scope).get("authorization"))
    with suppress(Unauthorized, ServiceUnavailable):
        if scheme.lower() == "bearer":
            return await services.tokens.caller(token)
    return None


def _owner(caller: Caller | None) -> _Owner:
    if caller is None:
        return _NOBODY
    if "service" in caller.scopes:
        return _Owner(("service", caller.user_id), MAX_OF_SERVICE)
    return _Owner(("user", caller.user_id), MAX_OF_USER)


def _too_large() -> ProblemResponse:
    return problem(413, "body-too-large", f"A body may have at most {LARGEST_BODY} bytes.")


def _unavailable() -> ProblemResponse:
    return problem(503, "unavailable", "This process reads too many bodies at the moment. Try again.", headers=_NOW)
