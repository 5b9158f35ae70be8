"""The streams that are open in this process: woken by news, fed from the log, present while they last."""

import asyncio
import random
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from activities.batch import Batch
from api.log_listener import LogListener
from api.problems import Unavailable
from db import log as logs
from db import presences
from db.engine import Sessions
from domain.messages import LogItem

_PAGE = 10  # items of a log that a stream holds at most
_MOST_NEWS = 1000  # beyond this it is cheaper to let every stream look
_TIMEOUT = 4.0  # seconds that a statement about presence may take
_SWEEP_EVERY = 60.0  # seconds

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms streams are open, in seconds. Tests may live faster."""

    heartbeat: float = 5.0  # of silence, after which a comment is sent, so that a peer that vanished is noticed
    patience: float = 10.0  # for a reader that does not read
    beat: float = 5.0  # between two times that presences are put off
    life: float = 15.0  # of a presence that nobody puts off
    look: float = 5.0  # between two looks whether the listening connection still answers
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
    """Holds no connection while nothing happens; however many streams there are, few statements run at a time."""

    def __init__(self, sessions: Sessions, database_url: str, terms: Terms = DEFAULT_TERMS) -> None:
        self.terms = terms
        self._sessions = sessions
        self._streams: dict[UUID, Stream] = {}
        self._of_user: dict[str, list[Stream]] = {}  # the oldest first
        self._listener = LogListener(database_url, self._hear, self._wake_all, look_every=terms.look)
        self._news: set[UUID] = set()
        self._heard = asyncio.Event()
        self._pages = Batch(self._read, most=50, in_flight=2)
        self._ends = Batch(self._leave, most=1000, in_flight=1)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen, tell and beat until the block is left."""
        tasks = [
            asyncio.create_task(each)
            for each in (
                self._listener.listen_forever(),
                self._tell_forever(),
                self._beat_forever(),
                self._sweep_forever(),
            )
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def check_room(self) -> None:
        """Check that one more stream may be opened here; raises Unavailable."""
        if len(self._streams) >= self.terms.most:
            raise Unavailable("This process has no room for another stream. Try again, or sync.")

    def add(self, stream: Stream) -> None:
        """Wake a stream from now on. An older one of the same installation ends, and the oldest of too many."""
        others = self._of_user.setdefault(stream.user_id, [])
        for other in others:
            if other.installation_id == stream.installation_id:
                other.end()
        if len(others) >= self.terms.most_of_user:
            others[0].end()
        others.append(stream)
        self._streams[stream.stream_id] = stream
        stream.news.set()

    async def remove(self, stream: Stream) -> None:
        """Forget a stream that ended, and its presence; if the database is away, that expires."""
        del self._streams[stream.stream_id]
        others = self._of_user[stream.user_id]
        others.remove(stream)
        if not others:
            del self._of_user[stream.user_id]
        await self._ends.ask(stream.stream_id)

    async def next_page(self, stream: Stream) -> Sequence[LogItem]:
        """Wait for items that follow what the stream has; at most a page. An outage of the database is waited out."""
        while True:
            await stream.news.wait()
            stream.news.clear()
            page = await self._pages.ask((stream.user_id, stream.seq))
            if page is None:
                await asyncio.sleep(random.uniform(0.5, 1.5))  # noqa: S311
                stream.news.set()
            elif page:
                if len(page) == _PAGE:
                    stream.news.set()
                return page

    async def _read(self, asked: Sequence[tuple[str, int]]) -> Sequence[Sequence[LogItem] | None]:
        try:
            async with self._sessions() as db:
                return await logs.pages_after(db, asked, _PAGE)
        except Exception as error:  # noqa: BLE001 -- whatever ails the database
            log.warning("streams not fed", streams=len(asked), error=type(error).__name__)
            return [None] * len(asked)

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
        if len(news) > _MOST_NEWS:
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

    async def _beat_forever(self) -> None:
        while True:
            await asyncio.sleep(self.terms.beat)
            beaten = list(self._streams.values())
            if not beaten:
                continue
            try:
                async with asyncio.timeout(_TIMEOUT), self._sessions.begin() as db:
                    ids = [stream.stream_id for stream in beaten]
                    kept = await presences.put_off(db, ids, lives=self.terms.life)
            except Exception as error:  # noqa: BLE001 -- whatever ails the database
                log.warning("presences not put off", streams=len(beaten), error=type(error).__name__)
                continue
            for stream in beaten:
                if stream.stream_id not in kept:  # its installation has opened another one elsewhere
                    stream.end()

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(random.uniform(0.5, 1.5) * _SWEEP_EVERY)  # noqa: S311
            try:
                async with asyncio.timeout(_TIMEOUT), self._sessions.begin() as db:
                    await presences.forget_expired(db)
            except Exception as error:  # noqa: BLE001 -- whatever ails the database
                log.warning("presences not swept", error=type(error).__name__)

    async def _leave(self, stream_ids: Sequence[UUID]) -> Sequence[None]:
        try:
            async with asyncio.timeout(_TIMEOUT), self._sessions.begin() as db:
                await presences.leave(db, stream_ids)
        except Exception as error:  # noqa: BLE001 -- whatever ails the database
            log.warning("left without a word", streams=len(stream_ids), error=type(error).__name__)
        return [None] * len(stream_ids)
