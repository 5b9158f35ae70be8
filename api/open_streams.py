"""The streams that are open in this process: woken by new items, filled from the log, present while they last.

One connection listens to PostgreSQL for new items, and the logs of many streams are read at once.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

import structlog

from api.http.problems import Detail, ServiceUnavailable
from db import log as logs
from db import presences
from db.batch import Batch
from db.engine import TROUBLE, Sessions, connect_alone, look_alone, refused_for_its_content
from db.log import CHANNEL
from db.messages import PageSize
from db.migrate import check_readiness
from domain.back_off import BackOff
from domain.messages import LogItem
from telemetry import metrics

_TIMEOUT = 4.0  # seconds that a statement may take

log = structlog.get_logger()
_MAX_NEWS = 200  # beyond this it is cheaper to wake every stream
PAGE = PageSize(items=10, bytes=32 * 1024)  # the most that a stream holds, besides the last item
_STREAMS_AT_ONCE = 50  # in one statement
_STATEMENTS = 2  # at a time
APPLICATION_NAME = "fastbell log listener"
_BACK_OFF = BackOff(first=timedelta(seconds=0.2), longest=timedelta(seconds=5))


class PresenceRenewal:
    """Renews presences every `every` seconds; one expires `life` seconds after its last renewal."""

    def __init__(self, sessions: Sessions, *, every: float, life: float) -> None:
        self._sessions = sessions
        self._every = every
        self._life = life
        self._ends = Batch(self._forget, most=1000, in_flight=1)

    async def renew_forever(
        self, streams: Callable[[], Collection[UUID]], on_gone: Callable[[Collection[UUID]], None]
    ) -> None:
        """Renew the presence of all open streams until cancelled. `on_gone` gets the streams whose presence is gone."""
        while True:
            await asyncio.sleep(self._every)
            if stream_ids := streams():
                await self._renew(stream_ids, on_gone)

    async def leave(self, stream_id: UUID) -> None:
        """Delete the presence of a stream that ended. If the database is away, it expires."""
        await self._ends.ask(stream_id)

    async def _renew(self, stream_ids: Collection[UUID], on_gone: Callable[[Collection[UUID]], None]) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT), self._sessions.begin() as db:
                kept = await presences.renew(db, stream_ids, lives=self._life)
        except Exception as error:  # noqa: BLE001 -- any error of the database
            log.warning("renewing presences failed", streams=len(stream_ids), error=type(error).__name__)
            return
        on_gone([stream_id for stream_id in stream_ids if stream_id not in kept])

    async def _forget(self, stream_ids: Sequence[UUID]) -> Sequence[None]:
        try:
            async with asyncio.timeout(_TIMEOUT), self._sessions.begin() as db:
                await presences.leave(db, stream_ids)
        except Exception as error:  # noqa: BLE001 -- any error of the database
            log.warning("deleting presences failed", streams=len(stream_ids), error=type(error).__name__)
        return [None] * len(stream_ids)


@dataclass(frozen=True, slots=True)
class OpenStreamLimits:
    """Timings of streams, in seconds, and limits. Tests use shorter timings."""

    heartbeat: float = 5.0  # of silence, then a comment is sent, so that a vanished peer is noticed
    write_timeout: float = 10.0  # for a client that does not read
    renew_every: float = 5.0  # between renewals of presences
    presence_lifetime: float = 15.0  # of a presence without renewal
    check_every: float = 5.0  # between checks of the listening connection
    max_duration: float = 24 * 3600.0  # duration of one stream
    max_streams: int = 5000  # streams of one process
    max_streams_per_user: int = 20


DEFAULT_STREAM_LIMITS = OpenStreamLimits()


@dataclass(slots=True, eq=False)
class Stream:
    """One open stream."""

    stream_id: UUID
    user_id: str
    installation_id: UUID
    seq: int  # of the last item that was sent
    over: asyncio.Future[None]  # done when it has to end
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self) -> None:
        """Ask it to end. Its client reconnects, and nothing is lost."""
        if not self.over.done():
            self.over.set_result(None)


class OpenStreams:
    """Wakes streams when their users' logs grow."""

    def __init__(self, sessions: Sessions, database_url: str, limits: OpenStreamLimits = DEFAULT_STREAM_LIMITS) -> None:
        self.limits = limits
        self._sessions = sessions
        self._streams: dict[UUID, Stream] = {}
        self._of_user: dict[str, list[Stream]] = {}  # the oldest first
        self._news: set[UUID] = set()
        self._has_news = asyncio.Event()
        self._listener = LogListener(database_url, self._add_news, self._wake_all, look_every=limits.check_every)
        self._feed = LogFeed(sessions)
        self._presences = PresenceRenewal(sessions, every=limits.renew_every, life=limits.presence_lifetime)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen, wake streams and renew presences until the block is left."""
        tasks = [
            asyncio.create_task(self._listener.listen_forever()),
            asyncio.create_task(self._deliver_news_forever()),
            asyncio.create_task(self._presences.renew_forever(self._streams.copy, self._end)),
        ]
        try:
            yield
        finally:
            self._feed.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def check_room(self) -> None:
        """Check that one more stream may be opened here; raises ServiceUnavailable."""
        if len(self._streams) >= self.limits.max_streams:
            raise ServiceUnavailable(Detail.TOO_MANY_STREAMS)

    def add(self, stream: Stream) -> None:
        """Wake a stream from now on. Ends an older one of the same installation, and the user's oldest of too many."""
        of_user = self._of_user.setdefault(stream.user_id, [])
        for older in of_user:
            if older.installation_id == stream.installation_id:
                older.end()
        lasting = [older for older in of_user if not older.over.done()]
        if len(lasting) >= self.limits.max_streams_per_user:
            lasting[0].end()
        of_user.append(stream)
        self._streams[stream.stream_id] = stream
        metrics.streams_open.inc()
        stream.news.set()

    async def remove(self, stream: Stream) -> None:
        """Remove a stream that ended, and its presence."""
        del self._streams[stream.stream_id]
        metrics.streams_open.dec()
        of_user = self._of_user[stream.user_id]
        of_user.remove(stream)
        if not of_user:
            del self._of_user[stream.user_id]
        await self._presences.leave(stream.stream_id)

    async def next_page(self, stream: Stream) -> Sequence[LogItem]:
        """Wait for items after those that the stream has."""
        while True:
            await stream.news.wait()
            stream.news.clear()
            page = await self._feed.page_after(stream.user_id, stream.seq)
            if page.has_more:
                stream.news.set()
            if page.items:
                return page.items

    def _add_news(self, message_id: UUID) -> None:
        self._news.add(message_id)
        self._has_news.set()

    def _wake_all(self) -> None:
        for stream in self._streams.values():
            stream.news.set()

    async def _deliver_news_forever(self) -> None:
        while True:
            await self._has_news.wait()
            self._has_news.clear()
            news, self._news = self._news, set()
            if self._streams:
                await self._deliver(news)

    async def _deliver(self, news: Collection[UUID]) -> None:
        if len(news) > _MAX_NEWS:
            self._wake_all()
            return
        try:
            async with self._sessions() as db:
                owners = await logs.owners(db, news)
        except Exception as error:  # noqa: BLE001 -- any error of the database
            log.warning("reading owners of new items failed", error=type(error).__name__)
            self._wake_all()
            return
        for user_id in owners & self._of_user.keys():
            for stream in self._of_user[user_id]:
                stream.news.set()

    def _end(self, stream_ids: Collection[UUID]) -> None:
        for stream_id in stream_ids:
            if stream := self._streams.get(stream_id):
                stream.end()


class LogFeed:
    """Reads logs. While the database is away, one task checks it and all others wait. Idle, it holds no connection."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._batch = Batch(self._read, most=_STREAMS_AT_ONCE, in_flight=_STATEMENTS)
        self._available = asyncio.Event()
        self._available.set()
        self._recovery: asyncio.Task[None] | None = None

    async def page_after(self, user_id: str, seq: int) -> logs.LogPage:
        """Read at most a page of a log after a sequence number, as soon as the database can answer."""
        while True:
            await self._available.wait()
            page = await self._batch.ask((user_id, seq))
            if page is not None:
                return page

    def close(self) -> None:
        """Stop checking the database."""
        if self._recovery is not None:
            self._recovery.cancel()

    async def _read(self, queries: Sequence[tuple[str, int]]) -> Sequence[logs.LogPage | None]:
        if self._available.is_set():
            try:
                async with self._sessions() as db:
                    return await logs.pages_after(db, queries, PAGE)
            except TROUBLE as error:
                if refused_for_its_content(error):
                    raise  # the batch then asks for each alone
                log.warning("reading logs for streams failed", streams=len(queries), error=type(error).__name__)
                self._start_recovery()
        return [None] * len(queries)

    def _start_recovery(self) -> None:
        if self._available.is_set():
            self._available.clear()
            self._recovery = asyncio.create_task(self._recover())

    async def _recover(self) -> None:
        is_available = False
        while not is_available:
            await asyncio.sleep(random.uniform(0.5, 1.5))  # noqa: S311 -- spreads load
            is_available, _ = await check_readiness(self._sessions)
        self._available.set()


class LogListener:
    """Listens on one connection outside of the pool.

    `on_news` gets the id of each message that entered a log. `on_gap` is called when messages may have been missed:
    listening begins, or fails. `look_every`: seconds between checks of the connection, and the timeout of each.
    """

    def __init__(
        self, database_url: str, on_news: Callable[[UUID], None], on_gap: Callable[[], None], *, look_every: float
    ) -> None:
        self._database_url = database_url
        self._on_news = on_news
        self._on_gap = on_gap
        self._look_every = look_every
        self._failures = 0

    async def listen_forever(self) -> None:
        """Listen until cancelled; errors of the database are logged, and listening starts again."""
        while True:
            try:
                await self._listen()
            except Exception as error:  # noqa: BLE001 -- any error of the database
                self._failures += 1
                log.warning("listening failed, will retry", error=type(error).__name__)
            self._on_gap()
            wait = _BACK_OFF.delay(max(self._failures, 1), random.random(), None)  # noqa: S311 -- spreads load
            await asyncio.sleep(wait.total_seconds())

    async def _listen(self) -> None:
        lost = asyncio.Event()
        connection = await connect_alone(self._database_url, APPLICATION_NAME)
        try:
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(CHANNEL, self._notified)
            self._failures = 0
            self._on_gap()  # only now: what was committed before is read, what is committed later is announced
            log.info("listening")
            while not await _is_set(lost, within=self._look_every):
                await look_alone(connection, within=self._look_every)
        finally:
            connection.terminate()
        raise ConnectionError("The connection was closed.")

    def _notified(self, _connection: object, _pid: int, _channel: str, message_id: str) -> None:
        self._on_news(UUID(message_id))


async def _is_set(event: asyncio.Event, *, within: float) -> bool:
    try:
        async with asyncio.timeout(within):
            return await event.wait()
    except TimeoutError:
        return False
