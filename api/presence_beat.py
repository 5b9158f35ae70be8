"""Keeps the streams of this process present: one statement for all of them, every few seconds."""

import asyncio
import random
from collections.abc import Callable, Collection, Sequence
from uuid import UUID

import structlog

from activities.batch import Batch
from db import presences
from db.engine import Sessions

_TIMEOUT = 4.0  # seconds that a statement may take
_SWEEP_EVERY = 60.0  # seconds

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

    async def sweep_forever(self) -> None:
        """Forget, now and then, what processes left behind that are gone for good."""
        while True:
            await asyncio.sleep(random.uniform(0.5, 1.5) * _SWEEP_EVERY)  # noqa: S311
            try:
                async with asyncio.timeout(_TIMEOUT), self._sessions.begin() as db:
                    await presences.forget_expired(db)
            except Exception as error:  # noqa: BLE001 -- whatever ails the database
                log.warning("presences not swept", error=type(error).__name__)

    async def leave(self, stream_id: UUID) -> None:
        """Forget the presence of a stream that ended; if the database is away, it expires."""
        await self._ends.ask(stream_id)

    async def _beat(self, beaten: Collection[UUID], on_gone: Callable[[Collection[UUID]], None]) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT), self._sessions.begin() as db:
                kept = await presences.put_off(db, beaten, lives=self._life)
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
