"""The source of open streams: listens to PostgreSQL for new log items, and reads logs for many streams at once."""

import asyncio
import random
from collections.abc import Callable, Sequence
from datetime import timedelta
from uuid import UUID

import structlog

from db import log as logs
from db.batch import Batch
from db.engine import TROUBLE, Sessions, connect_alone, look_alone, refused_for_its_content
from db.log import CHANNEL
from db.messages import PageSize
from db.migrate import check_readiness
from domain.back_off import BackOff

PAGE = PageSize(items=10, bytes=32 * 1024)  # the most that a stream holds, besides the last item
_STREAMS_AT_ONCE = 50  # in one statement
_STATEMENTS = 2  # at a time
log = structlog.get_logger()


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
            await asyncio.sleep(random.uniform(0.5, 1.5))  # noqa: S311
            is_available, _ = await check_readiness(self._sessions)
        self._available.set()


APPLICATION_NAME = "fastbell log listener"
_BACK_OFF = BackOff(first=timedelta(seconds=0.2), longest=timedelta(seconds=5))


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
            wait = _BACK_OFF.delay(max(self._failures, 1), random.random(), None)  # noqa: S311
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
