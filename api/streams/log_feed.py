"""Hears from PostgreSQL which messages entered a log, and says when it may have missed some."""

import asyncio
import random
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import structlog

from db.engine import connect_alone, look_alone
from db.log import CHANNEL
from domain.back_off import BackOff

APPLICATION_NAME = "fastbell log listener"
_BACK_OFF = BackOff(first=timedelta(seconds=0.2), longest=timedelta(seconds=5))

log = structlog.get_logger()


class LogListener:
    """One connection of this process, outside of the pool, on which it listens.

    `on_news` gets the id of each message that entered a log. `on_gap` is told that any message may have: listening
    begins, or is not possible. `look_every`: seconds between looks whether the connection still answers, and how long
    the answer may take.
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
        """Listen until cancelled; whatever ails the database is outlived."""
        while True:
            try:
                await self._listen()
            except Exception as error:  # noqa: BLE001 -- whatever ails the database
                self._failures += 1
                log.warning("not listening", error=type(error).__name__)
            self._on_gap()
            wait = _BACK_OFF.delay(max(self._failures, 1), random.random(), None)  # noqa: S311
            await asyncio.sleep(wait.total_seconds())

    async def _listen(self) -> None:
        lost = asyncio.Event()
        connection = await connect_alone(self._database_url, APPLICATION_NAME)
        try:
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(CHANNEL, self._heard)
            self._failures = 0
            self._on_gap()  # only now: what was committed before is read, what is committed after is heard
            log.info("listening")
            while not await _is_set(lost, within=self._look_every):
                await look_alone(connection, within=self._look_every)
        finally:
            connection.terminate()
        raise ConnectionError("The connection was closed.")

    def _heard(self, _connection: object, _pid: int, _channel: str, message_id: str) -> None:
        self._on_news(UUID(message_id))


async def _is_set(event: asyncio.Event, *, within: float) -> bool:
    try:
        async with asyncio.timeout(within):
            return await event.wait()
    except TimeoutError:
        return False
