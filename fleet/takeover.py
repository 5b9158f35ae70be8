"""Which sends wait in this worker, and how it takes over those of a lost one, by the check and call of every send.

The database learns what waits here, so that others take it over once it is due and this worker is lost.

A worker shows life twice a second. It counts as lost when it has not done so while this one did several times: a slow
database or a stalled event loop of this worker loses nobody, and a worker that is slow itself loses only what it has
not sent when that is due. Its check fails for those, so nothing is sent twice.

After a loss, and after a start, a worker also takes over what nobody holds though it is due: a killed worker may not
have recorded it yet, or was calling, which is over with the lease of that attempt.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog

from db import holds, push_tasks, withheld_pushes, workers
from db.engine import Sessions
from domain.kinds import RULES, Kind, Priority
from domain.push import PlannedSend, Provider
from sending.precheck import ATTEMPT_LEASE
from telemetry import metrics

_GATHERS = 0.2  # seconds between statements, so that many pushes join one
_PROMPT = 0.2  # seconds; a push that is due and claimed within them is never recorded
_ROUNDING = 0.01  # seconds, by which a timer may fire early
_MAX_AT_ONCE = 1_000
_RESTS = 1.0  # seconds after trouble
_TIMEOUT = 4.0  # seconds for one statement
_BETWEEN = 0.1  # seconds between batches, in which the other workers take theirs
_SPARES = 10  # times as long as a look took passes before the next, to spare the database
_MAX_TAKEN = 5_000  # of one priority, in this worker at a time
_SENDS_WITHIN = 20.0  # seconds; then Temporal has noticed the loss, and runs their activities again
_KINDS = tuple(
    frozenset(kind for kind in Kind if (RULES[kind].priority is Priority.REMINDER) is are_reminders)
    for are_reminders in (True, False)
)

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


SendTaken = Callable[[PlannedSend, Hold], Coroutine[Any, Any, None]]
OnLoss = Callable[[Collection[UUID]], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class TakeoverTimings:
    """Seconds, but for `lost_after` and `batch`. Tests use others."""

    shows_life_every: float = 0.5
    lost_after: int = 4  # signs of life of this worker without one of the other
    looks_every: float = 5.0  # for pushes of workers whose row is gone
    looks_soon_every: float = 1.0  # while it also takes what nobody holds
    unheld_for: float = 3.0  # after it was due; a living worker records a push within 0.4 s
    unheld_until: float = 120.0  # after a loss or the start: a reminder is armed a minute before it is due
    batch: int = 1_000  # pushes of one priority taken over at once


DEFAULT_TAKEOVER = TakeoverTimings()


class Takeover:
    """Shows that this worker lives, records what it holds, and takes over what lost workers held."""

    def __init__(self, sessions: Sessions, timings: TakeoverTimings = DEFAULT_TAKEOVER) -> None:
        self.holds = Holds()
        self._sessions = sessions
        self._timings = timings
        self._others = Others(timings.lost_after)
        self._sends: dict[Provider, SendTaken] = {}
        self._taken: dict[frozenset[Kind], set[asyncio.Task[None]]] = {kinds: set() for kinds in _KINDS}
        self._on_loss: OnLoss | None = None
        self._look, self._loss = asyncio.Event(), asyncio.Event()
        self._takes_unheld_until = time.monotonic() + timings.unheld_until
        self._unsure = 0  # after the database failed: signs of life to show before we know again who lives

    def serve(self, provider: Provider, send: SendTaken) -> None:
        """Take over pushes of this provider, and send them so."""
        self._sends[provider] = send

    def after_losses(self, do: OnLoss) -> None:
        """Do this with the living workers, in one of them, when it starts and whenever one is lost."""
        self._on_loss = do

    async def run_forever(self, worker_id: UUID) -> None:
        """Run until cancelled; calls that are under way then are seen through. The heartbeat has the worker's id."""
        loops = (self._show_life(worker_id), self._take_over(worker_id), self._tell_of_losses(worker_id))
        tasks = [asyncio.create_task(each) for each in (*loops, self.holds.record_forever(self._sessions))]
        try:
            await asyncio.gather(*tasks)
        finally:
            sends = [task for taken in self._taken.values() for task in taken]
            for task in (*tasks, *sends):
                task.cancel()
            await asyncio.gather(*tasks, *sends, return_exceptions=True)

    async def _show_life(self, worker_id: UUID) -> None:
        while True:
            try:
                async with asyncio.timeout(_TIMEOUT), self._sessions() as db:
                    signs = await workers.show_life(db, worker_id)
            except Exception as error:  # noqa: BLE001 -- whatever ails the database; while it lasts, nobody is lost
                if not self._unsure:
                    log.warning("showing life failed", error=type(error).__name__)
                self._unsure = self._timings.lost_after + 1
            else:
                is_news = self._others.learn({each: at for each, at in signs.items() if each != worker_id})
                if is_news or self._unsure == 1 or self.holds.seen_as is None:
                    self._look.set()
                self._unsure = max(self._unsure - 1, 0)
                if is_news or (self.holds.seen_as is None and worker_id in signs):
                    self._loss.set()
                    self._takes_unheld_until = time.monotonic() + self._timings.unheld_until
                self.holds.seen_as = worker_id if worker_id in signs else None
            is_new = self.holds.seen_as is None and not self._unsure  # its first heartbeat is about to write its row
            await asyncio.sleep(self._timings.shows_life_every / (5 if is_new else 1))

    async def _take_over(self, worker_id: UUID) -> None:
        while True:
            wait, began = self._timings.looks_every, time.monotonic()
            if began < self._takes_unheld_until:
                wait = min(wait, self._timings.looks_soon_every)
            try:
                if self.holds.seen_as is not None and not self._unsure:
                    soon = await self._take_due(worker_id)
                    took = time.monotonic() - began
                    wait = _rests(soon, took, wait)
            except Exception as error:  # noqa: BLE001 -- whatever ails the database
                log.warning("taking over failed, will retry", error=type(error).__name__)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._look.wait()
            self._look.clear()

    async def _tell_of_losses(self, worker_id: UUID) -> None:
        while True:
            await self._loss.wait()
            self._loss.clear()
            if self._on_loss is None or self._part(worker_id).place > 0:
                continue
            try:
                await self._on_loss((*self._others.living, worker_id))
            except Exception as error:  # noqa: BLE001 -- whatever ails Temporal or the database
                log.warning("acting on the loss of a worker failed", error=type(error).__name__)

    async def _take_due(self, worker_id: UUID) -> float | None:
        """Take over what is due; returns the seconds until there may be more, None when there is nothing in sight.

        Zero: there is more that this worker can take.
        """
        async with asyncio.timeout(_TIMEOUT), self._sessions() as db:
            soon = await holds.next_due(db, self._lost(frozenset(Kind)), self._timings.looks_every)
        if soon is None or soon > 0:
            return soon
        has_more = False
        for kinds in _KINDS:
            most = min(self._timings.batch, _MAX_TAKEN - len(self._taken[kinds]))
            async with asyncio.timeout(_TIMEOUT), self._sessions() as db:
                taken = await holds.take(db, worker_id, self._lost(kinds), self._part(worker_id), most)
            for each in taken:
                hold = Hold(each.send.task_id, time.monotonic() + _SENDS_WITHIN, recorded_by=worker_id)
                self._begin(each, hold, kinds)
            if taken:
                log.warning("took over pushes of a lost worker", count=len(taken))
                planning = self._plan_for_new_phones([each.send.task_id for each in taken])
                self._keep(kinds, planning, trouble="looking for phones registered meanwhile failed")
            has_more = has_more or len(taken) == self._timings.batch
        return 0.0 if has_more else _BETWEEN

    async def _plan_for_new_phones(self, task_ids: Collection[UUID]) -> None:
        """Plan these reminders for phones that were registered meanwhile; their workflows go on too late for that.

        What is planned so is due, and nobody holds it: it is taken over next.
        """
        async with asyncio.timeout(_TIMEOUT), self._sessions() as db:
            plans = await withheld_pushes.reaching_not(db, task_ids)
        for message, devices in plans:
            try:
                async with asyncio.timeout(_TIMEOUT), self._sessions.begin() as db:
                    await push_tasks.plan(db, message, devices)
            except Exception as error:  # noqa: BLE001 -- one that fails does not stop the others
                log.warning("planning for a new phone failed", error=type(error).__name__)

    def _lost(self, kinds: frozenset[Kind]) -> holds.Lost:
        takes_unheld = time.monotonic() < self._takes_unheld_until
        unheld_for = self._timings.unheld_for if takes_unheld else None
        lease = ATTEMPT_LEASE.total_seconds()
        return holds.Lost(self._others.lost, kinds, self._sends.keys(), unheld_for, lease)

    def _part(self, worker_id: UUID) -> holds.Part:
        """Give this worker's part: each of the living takes another one first."""
        living = sorted((*self._others.living, worker_id))
        return holds.Part(living.index(worker_id), len(living))

    def _begin(self, taken: holds.Taken, hold: Hold, kinds: frozenset[Kind]) -> None:
        send = taken.send
        metrics.pushes_taken_over.labels(send.provider, send.kind).inc()
        metrics.takeover_lateness.labels(send.provider, send.kind).observe(taken.lateness)
        sending = self._sends[send.provider](send, hold)
        self._keep(kinds, sending, trouble="sending a push that was taken over failed")

    def _keep(self, kinds: frozenset[Kind], work: Coroutine[Any, Any, None], *, trouble: str) -> None:
        """Let it run, so that no other push waits for it."""
        task = asyncio.create_task(_logged(work, trouble))
        self._taken[kinds].add(task)
        task.add_done_callback(self._taken[kinds].discard)


def _rests(soon: float | None, took: float, looks_every: float) -> float:
    """Say how many seconds pass until the next look, after one that took so long."""
    if soon is None:
        return max(looks_every, _SPARES * took)
    return max(soon, 2 * took) if soon else _BETWEEN


class Others:
    """The other workers, by how often this one has shown life since they did."""

    def __init__(self, lost_after: int) -> None:
        self._lost_after = lost_after
        self._seen: dict[UUID, tuple[datetime | None, int]] = {}

    @property
    def lost(self) -> list[UUID]:
        """Those that have stopped."""
        return [each for each, (_, missed) in self._seen.items() if missed >= self._lost_after]

    @property
    def living(self) -> list[UUID]:
        """Those that have not."""
        return [each for each, (_, missed) in self._seen.items() if missed < self._lost_after]

    def learn(self, signs: Mapping[UUID, datetime | None]) -> bool:
        """Take their last signs of life; tells whether one is lost or gone that was not."""
        before, gone = set(self.living), self._seen.keys() - signs.keys()
        seen = {each: self._seen.get(each, (None, 0)) for each in signs}
        self._seen = {each: (at, seen[each][1] + 1 if seen[each][0] == at else 0) for each, at in signs.items()}
        return bool(gone or before.intersection(self.lost))


async def _logged(work: Coroutine[Any, Any, None], trouble: str) -> None:
    try:
        await work
    except Exception as error:  # noqa: BLE001 -- Temporal runs the activity again
        log.warning(trouble, error=type(error).__name__)
