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

_GATHERS = 0.2  # seconds between statements, so that many pushes join one
_PROMPT = 0.2  # seconds; a push that is due and claimed within them is never recorded
_ROUNDING = 0.01  # seconds, by which a timer may fire early
_MAX_AT_ONCE = 1_000
_TIMEOUT = 4.0  # seconds for one statement
_RESTS = 1.0  # seconds after trouble

log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class Hold:
    """One send that waits for its due instant, its limiter or a stream."""

    task_id: UUID
    ends_at: float  # by the monotonic clock; afterwards Temporal has given the send to another worker
    due_at: float = 0.0  # likewise
    record_from: float = 0.0  # likewise; at once where it waits for its due instant
    recorded_by: UUID | None = None  # this worker, once the database has it; then the claim fails if another one has it


def hold_for(task_id: UUID, left: float, budget: float) -> Hold:
    """Make the hold of a send that is due in `left` seconds, and that Temporal gives to another `budget` after that."""
    now = time.monotonic()
    return Hold(task_id, now + left + budget, now + left, record_from=now if left > 0 else now + _PROMPT)


class Holds:
    """What this worker holds."""

    def __init__(self) -> None:
        self.seen_as: UUID | None = None  # this worker's id; None while it has no row, since it would count as lost
        self._unrecorded: dict[Hold, None] = {}
        self._some = asyncio.Event()

    @contextmanager
    def holding(self, hold: Hold) -> Iterator[Hold]:
        """Hold a send until the block is left, or until it is claimed."""
        self._unrecorded[hold] = None
        if (wait := hold.record_from - time.monotonic()) > 0:
            asyncio.get_running_loop().call_later(wait + _ROUNDING, self._some.set)
        else:
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
            try:
                if self.seen_as is not None:
                    await self._record(sessions, self.seen_as)
                    await asyncio.sleep(_GATHERS)
                    continue
            except Exception as error:  # noqa: BLE001 -- whatever ails the database
                log.warning("recording held pushes failed, will retry", error=type(error).__name__)
                self._some.set()
            await asyncio.sleep(_RESTS)

    async def _record(self, sessions: Sessions, worker_id: UUID) -> None:
        """Record what waits; what the database does not take now is left to Temporal."""
        self._some.clear()
        now = time.monotonic()
        waiting = [hold for hold in self._unrecorded if hold.record_from <= now < hold.ends_at]
        for start in range(0, len(waiting), _MAX_AT_ONCE):
            part = waiting[start : start + _MAX_AT_ONCE]
            async with asyncio.timeout(_TIMEOUT), sessions() as db:
                recorded = await holds.record(db, worker_id, [hold.task_id for hold in part])
            for hold in part:
                if hold in self._unrecorded:  # not claimed meanwhile
                    del self._unrecorded[hold]
                    hold.recorded_by = worker_id if hold.task_id in recorded else None
