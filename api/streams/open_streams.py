"""The streams that are open in this process: woken by news, fed from the log, present while they last."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from api.http.problems import ServiceUnavailable
from api.streams.log_feed import LogFeed, LogListener
from db import log as logs
from db import presences
from db.batch import Batch
from db.engine import Sessions
from domain.messages import LogItem
from telemetry import metrics

_TIMEOUT = 4.0  # seconds that a statement may take

log = structlog.get_logger()


class PresenceBeat:
    """Beats every so many seconds; a presence lives so long after the last beat."""

    def __init__(self, sessions: Sessions, *, every: float, life: float) -> None:
        self._sessions = sessions
        self._every = every
        self._life = life
        self._ends = Batch(self._forget, most=1000, in_flight=1)

    async def beat_forever(
        self, streams: Callable[[], Collection[UUID]], on_gone: Callable[[Collection[UUID]], None]
    ) -> None:
        """Put the presence of all these streams off until cancelled; `on_gone` is told whose is not there any more."""
        while True:
            await asyncio.sleep(self._every)
            if beaten := streams():
                await self._beat(beaten, on_gone)

    async def leave(self, stream_id: UUID) -> None:
        """Forget the presence of a stream that ended; if the database is away, it expires."""
        await self._ends.ask(stream_id)

    async def _beat(self, beaten: Collection[UUID], on_gone: Callable[[Collection[UUID]], None]) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT), self._sessions.begin() as db:
                kept = await presences.renew(db, beaten, lives=self._life)
        except Exception as error:  # noqa: BLE001 -- whatever ails the database
            log.warning("presences not put off", streams=len(beaten), error=type(error).__name__)
            return
        on_gone([stream_id for stream_id in beaten if stream_id not in kept])

    async def _forget(self, stream_ids: Sequence[UUID]) -> Sequence[None]:
        try:
            async with asyncio.timeout(_TIMEOUT), self._sessions.begin() as db:
                await presences.leave(db, stream_ids)
        except Exception as error:  # noqa: BLE001 -- whatever ails the database
            log.warning("presences left to expire", streams=len(stream_ids), error=type(error).__name__)
        return [None] * len(stream_ids)


_MAX_NEWS = 200  # beyond this it is cheaper to let every stream look


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms streams are open, in seconds. Tests may live faster."""

    heartbeat: float = 5.0  # of silence, after which a comment is sent, so that a peer that vanished is noticed
    patience: float = 10.0  # for a reader that does not read
    beat: float = 5.0  # between two times that presences are put off
    life: float = 15.0  # of a presence that nobody puts off
    look: float = 5.0  # between two looks whether the listening connection still answers
    longest: float = 24 * 3600.0  # for one stream
    most: int = 5000  # streams of one process
    most_of_user: int = 20


DEFAULT_TERMS = Terms()


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
        """Ask it to end; its client comes again, and nothing is lost."""
        if not self.over.done():
            self.over.set_result(None)


class OpenStreams:
    """Knows who is to be woken by what."""

    def __init__(self, sessions: Sessions, database_url: str, terms: Terms = DEFAULT_TERMS) -> None:
        self.terms = terms
        self._sessions = sessions
        self._streams: dict[UUID, Stream] = {}
        self._of_user: dict[str, list[Stream]] = {}  # the oldest first
        self._news: set[UUID] = set()
        self._heard = asyncio.Event()
        self._listener = LogListener(database_url, self._hear, self._wake_all, look_every=terms.look)
        self._feed = LogFeed(sessions)
        self._presences = PresenceBeat(sessions, every=terms.beat, life=terms.life)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen, tell and beat until the block is left."""
        tasks = [
            asyncio.create_task(self._listener.listen_forever()),
            asyncio.create_task(self._tell_forever()),
            asyncio.create_task(self._presences.beat_forever(self._streams.copy, self._end)),
        ]
        try:
            yield
        finally:
            self._feed.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def check_room(self) -> None:
        """Check that one more stream may be opened here; raises Unavailable."""
        if len(self._streams) >= self.terms.most:
            raise ServiceUnavailable("This process has no room for another stream. Try again, or sync.")

    def add(self, stream: Stream) -> None:
        """Wake a stream from now on. An older one of the same installation ends, and the oldest of too many."""
        of_user = self._of_user.setdefault(stream.user_id, [])
        for older in of_user:
            if older.installation_id == stream.installation_id:
                older.end()
        lasting = [older for older in of_user if not older.over.done()]
        if len(lasting) >= self.terms.most_of_user:
            lasting[0].end()
        of_user.append(stream)
        self._streams[stream.stream_id] = stream
        metrics.streams_open.inc()
        stream.news.set()

    async def remove(self, stream: Stream) -> None:
        """Forget a stream that ended, and its presence."""
        del self._streams[stream.stream_id]
        metrics.streams_open.dec()
        of_user = self._of_user[stream.user_id]
        of_user.remove(stream)
        if not of_user:
            del self._of_user[stream.user_id]
        await self._presences.leave(stream.stream_id)

    async def next_page(self, stream: Stream) -> Sequence[LogItem]:
        """Wait for items that follow what the stream has."""
        while True:
            await stream.news.wait()
            stream.news.clear()
            page = await self._feed.page_after(stream.user_id, stream.seq)
            if page.has_more:
                stream.news.set()
            if page.items:
                return page.items

    def _hear(self, message_id: UUID) -> None:
        self._news.add(message_id)
        self._heard.set()

    def _wake_all(self) -> None:
        for stream in self._streams.values():
            stream.news.set()

    async def _tell_forever(self) -> None:
        while True:
            await self._heard.wait()
            self._heard.clear()
            news, self._news = self._news, set()
            if self._streams:
                await self._tell(news)

    async def _tell(self, news: Collection[UUID]) -> None:
        if len(news) > _MAX_NEWS:
            self._wake_all()
            return
        try:
            async with self._sessions() as db:
                owners = await logs.owners(db, news)
        except Exception as error:  # noqa: BLE001 -- whatever ails the database
            log.warning("news not read", error=type(error).__name__)
            self._wake_all()
            return
        for user_id in owners & self._of_user.keys():
            for stream in self._of_user[user_id]:
                stream.news.set()

    def _end(self, stream_ids: Collection[UUID]) -> None:
        for stream_id in stream_ids:
            if stream := self._streams.get(stream_id):
                stream.end()
