"""Stores what calls came to, however the database fares: the provider has acted, so no outcome is lost by our fault."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from uuid import UUID

import structlog

from activities.batch import Batch
from activities.judging import IN_FLIGHT
from activities.outcomes import Outcome, bare, end_attempts, note_calls, unheld_outcomes
from db.engine import Sessions, may_be_ones_fault, refused_for_its_content
from db.push_attempts import Ended
from domain.push import Route, TaskState
from telemetry import labels, metrics

MOST_KEPT = 10_000  # outcomes that could not be stored; beyond, the oldest is forgotten
_KEPT_FOR = 900.0  # seconds

log = structlog.get_logger()


class NotStored(Exception):
    """The database did not take an outcome for as long as nobody else may call; it is kept for the next try."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An outcome that is on record."""

    outcome: Outcome  # without its content, where the database refused that
    state: TaskState


@dataclass(frozen=True, slots=True)
class _Kept:
    outcome: Outcome
    route: Route
    at: float


class Recording:
    """Records the outcomes of one provider's calls of one priority.

    A task whose row is stuck, or whose outcome holds what no text may hold, costs the outcomes beside it nothing: it is
    stored alone, without the content, and on the attempt first, which the next check heeds.
    """

    def __init__(self, sessions: Sessions, *, in_flight: int = 3) -> None:
        unheld = partial(unheld_outcomes, sessions)
        self._outcomes = Batch(partial(end_attempts, sessions), in_flight=in_flight, unheld=unheld)
        self._calls = Batch(partial(note_calls, sessions), in_flight=1)
        self._kept: dict[UUID, _Kept] = {}
        self._later: set[asyncio.Task[None]] = set()

    async def store(self, outcome: Outcome, route: Route, *, began: float) -> Stored:
        """Store an outcome, and count it; raises NotStored when the attempt's lease is over.

        `began` is when the attempt was asked for, by the monotonic clock.
        """
        stored = await self._insist(outcome, began + IN_FLIGHT.total_seconds())
        if stored is None:
            self._keep(outcome, route)
            raise NotStored
        _count(route, stored.outcome)
        return stored

    async def store_kept(self, task_id: UUID) -> Stored | None:
        """Store what an earlier try could not; None where there is nothing of the kind, raises NotStored."""
        kept = self._kept.pop(task_id, None)
        if kept is None or kept.at + _KEPT_FOR < time.monotonic():
            return None
        return await self.store(kept.outcome, kept.route, began=time.monotonic() - IN_FLIGHT.total_seconds())  # once

    def store_later(self, outcome: Outcome) -> None:
        """Store an attempt's end that nobody waits for, or else leave it to its lease."""
        task = asyncio.create_task(self._store_quietly(outcome))
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _store_quietly(self, outcome: Outcome) -> None:
        await self._insist(outcome, time.monotonic() + IN_FLIGHT.total_seconds())

    async def _insist(self, outcome: Outcome, until: float) -> Stored | None:
        """Try until it is stored or it is too late; gives None then."""
        ask, is_noted = self._outcomes.ask, False
        for wait in _waits():
            try:
                return Stored(outcome, await ask(outcome))
            except Exception as error:  # noqa: BLE001 -- whatever ails the database
                task_id, name = str(outcome.update.task_id), type(error).__name__
                log.warning("outcome not stored yet", task_id=task_id, error=name)
                alone = may_be_ones_fault(error)
                ask = self._outcomes.ask_alone if alone else self._outcomes.ask
                if refused_for_its_content(error) and outcome != bare(outcome):
                    outcome = bare(outcome)
                    continue
            is_noted = is_noted or (alone and await self._is_noted(outcome))
            if time.monotonic() + wait >= until:
                return None
            await asyncio.sleep(wait)
        return None

    async def _is_noted(self, outcome: Outcome) -> bool:
        try:
            await self._calls.ask(outcome)
        except Exception as error:  # noqa: BLE001 -- the same ails it
            log.warning("call not noted yet", task_id=str(outcome.update.task_id), error=type(error).__name__)
            return False
        return True

    def _keep(self, outcome: Outcome, route: Route) -> None:
        self._kept[outcome.update.task_id] = _Kept(outcome, route, time.monotonic())
        if len(self._kept) > MOST_KEPT:
            del self._kept[next(iter(self._kept))]


def _waits() -> Iterator[float]:
    """Seconds between tries: short at first, for a lock that is let go; for ever, since the caller has a bound."""
    yield from (0.1, 0.5, 1.0)
    while True:
        yield 2.0


def _count(route: Route, outcome: Outcome) -> None:
    if not isinstance(ended := outcome.ended, Ended):
        return
    provider, app_id, environment = labels.of_route(route)
    metrics.push_attempts.labels(provider, app_id, environment, ended.outcome, labels.reason(ended.reason)).inc()
    if ended.latency_ms:  # else it came to no call
        metrics.provider_answer.labels(provider, app_id, ended.outcome).observe(ended.latency_ms / 1000)
