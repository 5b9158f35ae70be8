"""Records the outcomes of attempts, in one transaction for many at once."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import assert_never
from uuid import UUID

import structlog

from db import (
    batch,
    collapse_groups,
    device_tokens,
    log,
    push_attempts,
    push_tasks,
    token_error_cutoffs,
    withheld_pushes,
)
from db.batch import Batch
from db.collapse_groups import Sounding
from db.engine import Sessions, may_be_ones_fault, refused_for_its_content, wait_briefly_for_locks
from db.push_attempts import Ended, Uncalled
from db.push_tasks import Update
from domain.push import Route, TaskState
from operations import redrive as redrives
from push.sender import (
    Accepted,
    Answer,
    Delivery,
    Misconfigured,
    MismatchedToken,
    ProviderTrouble,
    Rejected,
    SuspectToken,
    Throttled,
    Unavailable,
    Unregistered,
)
from sending.precheck import ATTEMPT_LEASE, Proceed
from sending.retry import MAX_SHORTENED
from telemetry import metrics as labels
from telemetry import tracing

logger = structlog.get_logger()

UNSTORABLE = "unstorable_answer"
MAX_KEPT = 10_000  # outcomes that could not be stored; beyond, the oldest is dropped
_KEPT_FOR = 900.0  # seconds


@dataclass(frozen=True, slots=True)
class ReportedToken:
    """A token to deactivate, if its registration is unchanged."""

    route: Route
    device_id: UUID
    token: str = field(repr=False)
    since: datetime
    reason: str

    @property
    def named(self) -> device_tokens.DeadToken:
        """Name the registration."""
        return device_tokens.DeadToken(self.device_id, self.token, self.since, self.reason)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one attempt, and the new state of its task."""

    ended: Ended | Uncalled
    update: Update
    token_refused_on: Route | None = None
    dead_tokens: tuple[ReportedToken, ...] = ()
    sounding: Sounding | None = None
    answered_at: float = field(default_factory=time.monotonic, compare=False)  # by the monotonic clock

    @property
    def has_sounded(self) -> bool:
        """Whether the phone has rung, as far as we know."""
        return isinstance(self.ended, Ended) and self.ended.outcome in {"accepted", "unknown"}


def answered(
    go: Proceed, answer: Answer, latency: float, dead_tokens: tuple[ReportedToken, ...], since_claim: float
) -> Outcome:
    """Make the outcome of an answer, which is final for the push, so many seconds after its attempt was claimed.

    `latency` of the call is in seconds. The claim is earlier than `go.began_at`, so the answer came by the sum of both.
    """
    match answer:
        case Accepted(provider_id):
            validated = "validated" if go.push.validate_only else None
            accepted_by = go.began_at + timedelta(seconds=since_claim)
            update = Update(go.push.task_id, TaskState.ACCEPTED, validated, accepted_by=accepted_by)
            ended = _ended(go, word(answer), validated, latency, provider_id)
            return Outcome(ended, update, dead_tokens=dead_tokens, sounding=go.sounding)
        case Rejected(reason):
            update = Update(go.push.task_id, TaskState.REJECTED, reason)
            return Outcome(_ended(go, word(answer), reason, latency), update, sounding=go.sounding)
        case Unregistered(reason) | SuspectToken(reason):
            update = Update(go.push.task_id, TaskState.UNREGISTERED, reason)
            return Outcome(_ended(go, word(answer), reason, latency), update, go.route, dead_tokens, go.sounding)
        case MismatchedToken(reason):
            update = Update(go.push.task_id, TaskState.REJECTED, reason)
            return Outcome(_ended(go, word(answer), reason, latency), update, go.route, sounding=go.sounding)
        case _:
            assert_never(answer)


def failed(go: Proceed, trouble: ProviderTrouble, latency: float, again: Update) -> Outcome:
    """Make the outcome of trouble; `again` is the task's new state, with the time of the next attempt, if any.

    If there is none, since the provider asked for a longer rest than the push has left, the attempt has that time.
    """
    if isinstance(trouble, Unavailable) and trouble.delivery is Delivery.NOT_SENT:
        return Outcome(Uncalled(go.push.attempt_id, go.push.task_id), again, sounding=go.sounding)
    ended = replace(
        _ended(go, word(trouble), trouble.reason, latency),
        retry_at=again.next_attempt_at or _asked_until(go, trouble, latency),
    )
    return Outcome(ended, again, sounding=go.sounding)


def _asked_until(go: Proceed, trouble: ProviderTrouble, latency: float) -> datetime | None:
    if trouble.retry_after is None or trouble.retry_after <= MAX_SHORTENED:
        return None
    return go.began_at + timedelta(seconds=latency) + trouble.retry_after


def never_called(attempt_id: UUID, task_id: UUID, why: str) -> Outcome:
    """Make the outcome of an attempt that may have begun and makes no call; the push is tried again."""
    return Outcome(Uncalled(attempt_id, task_id), Update(task_id, TaskState.PENDING, why))


def bare(outcome: Outcome) -> Outcome:
    """Leave out the provider's texts, which the database may refuse; the push's state stays."""
    ended = outcome.ended
    if isinstance(ended, Ended):
        ended = replace(ended, reason=ended.reason and UNSTORABLE, provider_id=None)
    return replace(
        outcome,
        ended=ended,
        update=replace(outcome.update, reason=outcome.update.reason and UNSTORABLE),
        dead_tokens=tuple(replace(dead, reason=UNSTORABLE) for dead in outcome.dead_tokens),
    )


def word(result: Answer | ProviderTrouble) -> str:
    """Name the result of a call, for `push_attempts` and traces."""
    match result:
        case Accepted():
            return "accepted"
        case Rejected() | MismatchedToken():
            return "rejected"
        case Unregistered() | SuspectToken():
            return "unregistered"
        case Unavailable(delivery=Delivery.UNKNOWN):
            return "unknown"
        case Throttled():
            return "throttled"
        case Misconfigured():
            return "misconfigured"
        case _:
            return "unavailable"


@dataclass(frozen=True, slots=True)
class RecordedOutcome:
    """The new state of a task, and whether each phone of its person has a push of its message."""

    state: TaskState
    reaches_all: bool = False


async def end_attempts(sessions: Sessions, outcomes: Sequence[Outcome]) -> list[RecordedOutcome]:
    """Record outcomes in one transaction; returns the new states of the tasks.

    An attempt without a call is deleted, and its task counts one less. A dead token is deactivated if its registration
    is unchanged. A push whose token was refused goes to the phone's new token, if there is one. A push that would be
    tried again is withdrawn if its phone has read the message.
    While the token-error cutoff stops a route, none of its tokens is deactivated, and a push whose token was refused
    is dead, so that it can be redriven.
    """
    async with sessions.begin() as db:
        await wait_briefly_for_locks(db)
        dead_tokens = [dead for outcome in outcomes for dead in outcome.dead_tokens]
        refused_on = {o.token_refused_on for o in outcomes if o.token_refused_on}
        cut_off = await token_error_cutoffs.engaged_among(db, refused_on | {dead.route for dead in dead_tokens})
        now = time.monotonic()
        updates = [
            replace(
                o.update,
                state=TaskState.DEAD if o.token_refused_on in cut_off else o.update.state,
                ago=now - o.answered_at,
            )
            for o in outcomes
        ]
        refused = [update.task_id for update in updates if update.state is TaskState.UNREGISTERED]
        if refused:
            await device_tokens.await_registrations(db, await push_tasks.installations_of(db, refused))
        await push_tasks.apply(db, updates)
        # after `apply`, which holds all tasks in one order
        await push_attempts.forget(db, [o.ended for o in outcomes if isinstance(o.ended, Uncalled)])
        await push_attempts.end(db, [o.ended for o in outcomes if isinstance(o.ended, Ended)])
        await log.withdraw_read(db, [update.task_id for update in updates if update.state is TaskState.PENDING])
        await device_tokens.invalidate_all(db, [dead.named for dead in dead_tokens if dead.route not in cut_off])
        if refused:
            for device in await redrives.registered_meanwhile(db, refused):
                await redrives.revive(db, device)
        await collapse_groups.note_ended(db, {o.sounding: o.has_sounded for o in outcomes if o.sounding})
        accepted = [update.task_id for update in updates if update.state is TaskState.ACCEPTED]
        all_reached = await withheld_pushes.reaching_all(db, accepted) if accepted else ()
    return [RecordedOutcome(update.state, update.task_id in all_reached) for update in updates]


async def unheld_outcomes(sessions: Sessions, outcomes: Sequence[Outcome]) -> list[bool]:
    """Say of each outcome whether it can be recorded now, without waiting for another transaction's locks."""
    async with sessions.begin() as db:
        free = await batch.unheld(db, {outcome.update.task_id for outcome in outcomes})
    return [outcome.update.task_id in free for outcome in outcomes]


async def note_calls(sessions: Sessions, outcomes: Sequence[Outcome]) -> list[None]:
    """Record outcomes on the attempts alone, where tasks are locked, so that no push is sent again."""
    uncalled = ("unavailable", "claim_too_old", 0, None)  # deleted only together with a change of its task
    async with sessions.begin() as db:
        await wait_briefly_for_locks(db)
        await push_attempts.end(
            db, [o.ended if isinstance(o.ended, Ended) else Ended(o.ended.attempt_id, *uncalled) for o in outcomes]
        )
    return [None] * len(outcomes)


def _ended(go: Proceed, outcome: str, reason: str | None, latency: float, provider_id: str | None = None) -> Ended:
    return Ended(go.push.attempt_id, outcome, reason, round(latency * 1000), provider_id)


class NotStored(Exception):
    """The database did not take an outcome during the attempt's lease; it is kept for the next try."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An outcome that is stored."""

    outcome: Outcome  # without its texts, where the database refused them
    state: TaskState
    reaches_all: bool = False


@dataclass(frozen=True, slots=True)
class _Kept:
    outcome: Outcome
    route: Route
    at: float


class Recording:
    """Records the outcomes of one provider's calls of one priority.

    A task whose row is locked, or whose outcome holds a text that the database refuses, delays no other: it is stored
    alone, without the text, and on the attempt first, which the next check reads.
    """

    def __init__(self, sessions: Sessions, *, in_flight: int = 3) -> None:
        unheld = partial(unheld_outcomes, sessions)
        self._outcomes = Batch(partial(end_attempts, sessions), in_flight=in_flight, unheld=unheld)
        self._calls = Batch(partial(note_calls, sessions), in_flight=1)
        self._kept: dict[UUID, _Kept] = {}
        self._later: set[asyncio.Task[None]] = set()

    async def store(self, outcome: Outcome, route: Route, *, claimed_at: float) -> Stored:
        """Store an outcome, and count it in the metrics; raises NotStored when the attempt's lease is over.

        `claimed_at` is by the monotonic clock.
        """
        stored = await self._insist(outcome, claimed_at + ATTEMPT_LEASE.total_seconds())
        if stored is None:
            self._keep(outcome, route)
            raise NotStored
        _count(route, stored.outcome)
        return stored

    async def store_kept(self, task_id: UUID) -> Stored | None:
        """Store what an earlier try could not; None where there is nothing. Raises NotStored."""
        kept = self._kept.pop(task_id, None)
        if kept is None or kept.at + _KEPT_FOR < time.monotonic():
            return None
        once = time.monotonic() - ATTEMPT_LEASE.total_seconds()
        return await self.store(kept.outcome, kept.route, claimed_at=once)

    def store_later(self, outcome: Outcome) -> None:
        """Store an attempt's end in the background; if that fails, its lease ends it."""
        task = asyncio.create_task(self._store_quietly(outcome))
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _store_quietly(self, outcome: Outcome) -> None:
        await self._insist(outcome, time.monotonic() + ATTEMPT_LEASE.total_seconds())

    async def _insist(self, outcome: Outcome, until: float) -> Stored | None:
        """Try until it is stored; None where that lasts too long."""
        ask, is_noted = self._outcomes.ask, False
        for wait in _waits():
            try:
                recorded = await ask(outcome)
            except Exception as error:  # noqa: BLE001 -- whatever ails the database
                task_id, name = str(outcome.update.task_id), type(error).__name__
                logger.warning("storing the result failed, will retry", task_id=task_id, error=name)
                alone = may_be_ones_fault(error)
                ask = self._outcomes.ask_alone if alone else self._outcomes.ask
                if refused_for_its_content(error) and outcome != bare(outcome):
                    outcome = bare(outcome)
                    continue
            else:
                return Stored(outcome, recorded.state, recorded.reaches_all)
            is_noted = is_noted or (alone and await self._is_noted(outcome))
            if time.monotonic() + wait >= until:
                return None
            await asyncio.sleep(wait)
        return None

    async def _is_noted(self, outcome: Outcome) -> bool:
        try:
            await self._calls.ask(outcome)
        except Exception as error:  # noqa: BLE001 -- as above
            logger.warning(
                "recording the call failed, will retry", task_id=str(outcome.update.task_id), error=type(error).__name__
            )
            return False
        return True

    def _keep(self, outcome: Outcome, route: Route) -> None:
        self._kept[outcome.update.task_id] = _Kept(outcome, route, time.monotonic())
        if len(self._kept) > MAX_KEPT:
            del self._kept[next(iter(self._kept))]


def _waits() -> Iterator[float]:
    """Seconds between tries: short at first, for a lock that is released; without end, since the caller has a bound."""
    yield from (0.1, 0.5, 1.0)
    while True:
        yield 2.0


def _count(route: Route, outcome: Outcome) -> None:
    if not isinstance(ended := outcome.ended, Ended):
        return
    provider, app_id, environment = labels.of_route(route)
    labels.push_attempts.labels(provider, app_id, environment, ended.outcome, labels.reason(ended.reason)).inc()
    if ended.latency_ms:  # 0: no call was made
        labels.provider_answer.labels(provider, app_id, ended.outcome).observe(ended.latency_ms / 1000)


def call_span(go: Proceed) -> AbstractContextManager[Callable[[Answer | ProviderTrouble], None]]:
    """Trace a call; gives the function that takes its result."""
    return _traced(go) if tracing.is_on() else _UNTRACED


@contextmanager
def _traced(go: Proceed) -> Iterator[Callable[[Answer | ProviderTrouble], None]]:
    about = {
        "fastbell.provider": go.route.provider.value,
        "fastbell.app": go.route.app_id or "default",
        "fastbell.environment": go.route.environment.value,
        "fastbell.task_id": str(go.push.task_id),
        "fastbell.attempt": go.number,
    }
    with tracing.span(f"call {go.route.provider}", tracing.Kind.CLIENT, None, about) as span:

        def answered(result: Answer | ProviderTrouble) -> None:
            span.set_attribute("fastbell.outcome", word(result))
            if not isinstance(result, Accepted):
                span.set_attribute("fastbell.reason", result.reason)

        yield answered


_UNTRACED = nullcontext[Callable[[Answer | ProviderTrouble], None]](lambda _: None)
