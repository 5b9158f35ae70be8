"""HTTP/2 connections to one address: streams are leased one by one, and connections opened when the others are full."""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from urllib.parse import urlsplit

import structlog
from hpack import HeaderTuple

from push.http2.connection import ANSWERS_WITHIN, Connection
from push.http2.proxy import Proxy, ProxyTrouble, connect
from push.http2.streams import Response
from push.sender import Delivery, NoRoom, Unavailable, Until
from push.wait_queue import FairQueue

log = structlog.get_logger()

MAX_ISOLATED = 4096  # users; beyond, the first ones are forgotten, which costs them nothing
MIN_USERS = 3  # who have to lose calls with connections that never answered, before new connections are delayed


class Isolation:
    """Limits which users share a connection: a user whose calls end connections is isolated step by step."""

    def __init__(self) -> None:
        self._max_users: dict[int, int] = {}  # on a connection with this user, who lost calls

    def may_join(self, user: int, others: Collection[int], silent: Sequence[Collection[int]]) -> bool:
        """Whether a user may share a connection with the users who have calls on it.

        Users with calls on a silent connection, whose peer's reply is awaited, are isolated until it replies.
        """
        if not others or not (self._max_users or silent):
            return True
        together = {user, *others}
        most = {each: self._max_users[each] for each in self._max_users.keys() & together}
        most |= {each: _fewer(len(users)) for users in silent for each in together.intersection(users)}
        return len(together) == 1 or all(len(together) <= limit for limit in most.values())

    def lost(self, user: int, sharing: int) -> None:
        """Note that a user's call ended with its connection, on which so many users had calls."""
        if len(self._max_users) >= MAX_ISOLATED:
            del self._max_users[next(iter(self._max_users))]
        self._max_users[user] = _fewer(sharing)

    def answered(self, user: int) -> None:
        """Note that a user's call was answered."""
        self._max_users.pop(user, None)


def _fewer(sharing: int) -> int:
    return max(1, sharing // 4)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait for a connection, for a stream on one, and for an answer."""

    connect: timedelta = timedelta(seconds=5)
    lease: timedelta = timedelta(seconds=5)
    answer: timedelta = timedelta(seconds=10)


DEFAULT_TIMEOUTS = Timeouts()


class StreamLease:
    """The right to make one call at once, on a connection that is open and has room."""

    def __init__(self, pool: "Pool", connection: Connection, user: int) -> None:
        self._pool = pool
        self._connection = connection
        self._user = user
        self._used = False

    @property
    def authority(self) -> bytes:
        """Host and port, as `:authority` names them."""
        return self._pool.authority

    async def call(self, headers: list[HeaderTuple], body: bytes) -> Response:
        """Make the one call; raises Unavailable."""
        if self._used:
            raise RuntimeError("a lease is for one call")
        self._used = True
        try:
            response = await self._connection.call(self._user, headers, body)
        except Unavailable as trouble:
            if trouble.delivery is not Delivery.NOT_SENT and not self._connection.usable:
                self._pool.isolation.lost(self._user, len(self._connection.ended_with))
            raise
        self._pool.answered(self._user)
        return response

    def retire_connection(self, why: str) -> None:
        """Let no more calls start on this connection."""
        self._connection.retire(why)

    def give_back(self) -> None:
        """Return the stream if it was not used."""
        if not self._used:
            self._used = True
            self._connection.give_back(self._user)


class Pool:
    """Leases streams, users in turn. One connection is opened at a time, each with a fresh DNS answer."""

    def __init__(
        self, url: str, *, ca_file: Path | None, connections: int, timeouts: Timeouts, proxy: Proxy | None = None
    ) -> None:
        address = urlsplit(url)
        self.tls: ssl.SSLContext | None = None
        if address.scheme == "https":
            self.tls = _tls(ca_file) if ca_file else _common_tls()
        self.authority = address.netloc.encode()
        self._host = address.hostname or ""
        self._port = address.port or (443 if self.tls else 80)
        self._proxy = proxy
        self._max_connections = connections
        self._timeouts = timeouts
        self._connections: list[Connection] = []
        self._waiters: FairQueue[Connection] = FairQueue()
        self._opening: asyncio.Task[None] | None = None
        self.isolation = Isolation()
        self._losers: set[int] = set()  # users who lost calls with unproven connections, since the last answer
        self._failures = 0
        self._rest_until = 0.0  # no new connection before; for all waiters together
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def lease(self, user: int = 0, until: Until | None = None) -> AsyncIterator[StreamLease]:
        """Wait for a free stream, then `until` it is needed; one that is not used goes back. Users take turns.

        A stream is exchanged if its connection has died or gone silent meanwhile. Raises Unavailable.
        """
        connection = await self._take(user)
        if until is not None:
            try:
                await until()
            except BaseException:
                connection.give_back(user)
                raise
            if connection.awaits_reply or not connection.usable:
                connection.give_back(user)
                connection = await self._take(user)
        lease = StreamLease(self, connection, user)
        try:
            yield lease
        finally:
            lease.give_back()

    def answered(self, user: int) -> None:
        """Note that the peer answered a user's call."""
        self._failures = 0
        self._losers.clear()
        self.isolation.answered(user)

    async def close(self) -> None:
        """Let calls in flight finish, bounded by the answer timeout; then close."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._refuse(lambda: NoRoom("closing"))
        if self._opening:
            self._opening.cancel()
            await asyncio.wait([self._opening])
            self._opening = None
        connections = list(self._connections)
        for connection in connections:
            connection.retire("closing")
        if connections:
            await asyncio.wait([connection.closed for connection in connections])

    def _with_room(self, user: int) -> Connection | None:
        for connection in self._connections:
            if connection.room > 0 and self._may_join(user, connection):
                if not connection.quiet:
                    return connection
                connection.ask_for_reply()  # it may have died; it has room again when the peer replies
        return None

    def _may_join(self, user: int, connection: Connection) -> bool:
        silent = [each.users for each in self._connections if each.awaits_reply]
        return self.isolation.may_join(user, connection.users, silent)

    async def _take(self, user: int) -> Connection:
        connection = self._with_room(user)
        if connection is None:
            return await self._wait(user)
        connection.take(user)
        return connection

    async def _wait(self, user: int) -> Connection:
        waiter = self._waiters.join(user)
        self._grow()
        try:
            async with asyncio.timeout(self._timeouts.lease.total_seconds()):
                return await waiter
        except BaseException as error:
            self._waiters.give_up(user, waiter)
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                waiter.result().give_back(user)  # given at the very moment we gave up
            if isinstance(error, TimeoutError):
                raise self._too_late() from None
            raise

    def _too_late(self) -> Unavailable:
        """Say whose fault it is that no stream was free; an idle connection without room is retired."""
        stuck = [connection for connection in self._connections if connection.is_stuck]
        is_providers = self._opening or stuck
        for connection in stuck:
            connection.retire("gives_no_room")
        return Unavailable("no_slot_in_time", Delivery.NOT_PROCESSED) if is_providers else NoRoom("no_slot_in_time")

    def _serve(self) -> None:
        with_room: Connection | None = None

        def has_none(user: int) -> bool:
            nonlocal with_room
            with_room = self._with_room(user)
            return with_room is None

        while any(connection.room > 0 for connection in self._connections):
            user = self._waiters.first(has_none)
            if user is None or with_room is None:
                break
            with_room.take(user)
            self._waiters.next(user).set_result(with_room)
        if self._waiters.first() is not None:
            self._grow()

    def _grow(self) -> None:
        """Open one more connection if that helps the waiters; refuse them at once if nothing can."""
        usable = [connection for connection in self._connections if connection.usable]
        if self._opening or len(usable) >= self._max_connections:
            return
        if not all(self._is_no_help(connection) for connection in usable):
            self._grow_later()
            return
        if self._closed:
            self._refuse(lambda: NoRoom("closing"))
        elif asyncio.get_running_loop().time() >= self._rest_until:
            self._opening = asyncio.create_task(self._open(), context=Context())  # it outlives the caller
        elif not usable:
            self._refuse(lambda: NoRoom("resting_after_failed_connection"))

    def _is_no_help(self, connection: Connection) -> bool:
        user = self._waiters.first()
        return connection.full or (user is not None and not self._may_join(user, connection))

    def _grow_later(self) -> None:
        """Look again soon: a connection with one stream gets a little time to answer its call."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(ANSWERS_WITHIN / 3, self._serve_again)

    def _serve_again(self) -> None:
        self._timer = None
        self._serve()

    async def _open(self) -> None:
        try:
            connection = await self._connected()
        except Exception as error:  # noqa: BLE001 -- a host that is no name raises UnicodeError, for one
            reason = error.reason if isinstance(error, ProxyTrouble) else None
            self._failed(reason or type(error).__name__)
            if not any(connection.usable for connection in self._connections):
                self._refuse(lambda: Unavailable(reason or "connect_failed", Delivery.NOT_PROCESSED))
            self._opening = None  # not before: a new waiter would open another one at once
        else:
            self._opening = None
            self._connections.append(connection)
            connection.closed.add_done_callback(partial(self._lost, connection))
            log.debug("connection opened", host=self._host, connections=len(self._connections))
            self._serve()

    async def _connected(self) -> Connection:
        async with asyncio.timeout(self._timeouts.connect.total_seconds()):
            return await connect(
                partial(Connection, answer_timeout=self._timeouts.answer.total_seconds(), on_change=self._serve),
                (self._host, self._port),
                tls=self.tls,
                proxy=self._proxy,
                ready=_greeted,
            )

    def _lost(self, connection: Connection, _: asyncio.Future[None]) -> None:
        self._connections.remove(connection)
        if connection.greeted and not connection.has_answered and not self._closed:
            self._losers |= connection.ended_with
            if not connection.ended_with or len(self._losers) >= MIN_USERS:
                self._failed("lost_without_an_answer")
        self._serve()

    def _failed(self, error: str) -> None:
        self._failures += 1
        rest = min(0.1 * 2**self._failures, 3.0) * random.uniform(0.5, 1.0)  # noqa: S311 (spreads load, keeps no secret)
        self._rest_until = asyncio.get_running_loop().time() + rest
        log.warning("connection failed", host=self._host, error=error, rest=round(rest, 2))

    def _refuse(self, trouble: Callable[[], Unavailable]) -> None:
        while (user := self._waiters.first()) is not None:
            self._waiters.next(user).set_exception(trouble())


async def _greeted(connection: Connection) -> None:
    await connection.ready.wait()
    if not connection.usable:
        raise ConnectionResetError("closed before its SETTINGS came")


@cache
def _common_tls() -> ssl.SSLContext:
    """Trust the system's authorities: one context for all pools, since loading those takes 30 ms and 1 MB."""
    return _tls(None)


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    return context
