"""The sends that wait in this worker; the database learns which, so that others take them over if it is lost."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

import structlog

from db import holds
from db.engine import Sessions

_GATHERS = 0.2  # seconds, while more join one statement; what is claimed within them is never recorded
_MAX_AT_ONCE = 1_000
_TIMEOUT = 4.0  # seconds for one statement
_RESTS = 1.0  # seconds after trouble

log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class Hold:
    """One send that waits for its due instant, its limiter or a stream."""

    task_id: UUID
    ends_at: float  # by the monotonic clock; afterwards Temporal has given the send to another worker
    recorded_by: UUID | None = None  # this worker, once the database has it; then the claim fails if another one has it


class Holds:
    """What this worker holds."""

    def __init__(self) -> None:
        self.seen_as: UUID | None = None  # this worker's id; None while it has no row, since it would count as lost
        self._unrecorded: dict[Hold, None] = {}
        self._some = asyncio.Event()

    @contextmanager
    def holding(self, hold: Hold) -> Iterator[Hold]:
        """Hold a send; it is recorded if it waits for longer than a moment."""
        self._unrecorded[hold] = None
        self._some.set()
        try:
            yield hold
        finally:
            self._unrecorded.pop(hold, None)

    def claimed(self, hold: Hold) -> UUID | None:
        """Give whom the database has for a hold whose check comes now, which clears that; None if nobody was recorded.

        A second check of the same send has no hold any more.
        """
        self._unrecorded.pop(hold, None)
        recorded_by, hold.recorded_by = hold.recorded_by, None
        return recorded_by

    async def record_forever(self, sessions: Sessions) -> None:
        """Record until cancelled."""
        while True:
            await self._some.wait()
            await asyncio.sleep(_GATHERS)
            try:
                if self.seen_as is not None:
                    await self._record(sessions, self.seen_as)
                    continue
            except Exception as error:  # noqa: BLE001 -- whatever ails the database
                log.warning("recording held pushes failed, will retry", error=type(error).__name__)
                self._some.set()
            await asyncio.sleep(_RESTS)

    async def _record(self, sessions: Sessions, worker_id: UUID) -> None:
        """Record what waits; what the database does not take now is left to Temporal."""
        self._some.clear()
        now = time.monotonic()
        waiting = [hold for hold in self._unrecorded if hold.ends_at > now]
        for start in range(0, len(waiting), _MAX_AT_ONCE):
            part = waiting[start : start + _MAX_AT_ONCE]
            async with asyncio.timeout(_TIMEOUT), sessions() as db:
                recorded = await holds.record(db, worker_id, [hold.task_id for hold in part])
            for hold in part:
                if hold in self._unrecorded:  # not claimed meanwhile
                    del self._unrecorded[hold]
                    hold.recorded_by = worker_id if hold.task_id in recorded else None
