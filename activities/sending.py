"""Send one push: hold until it is due, take a slot, check a last time, call once, record what happened."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, assert_never
from uuid import UUID
from zlib import crc32

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from db.batch import Batch
from db.engine import Sessions, may_be_ones_fault
from db.push_tasks import Update
from domain.kinds import RULES, Kind, Priority
from domain.push import Environment, Provider, SentPush, TaskState
from fleet.due_load import DueLoad
from fleet.token_error_cutoff import TokenErrorCutoff
from push.limiter.registry import RouteLimiters
from push.limiter.route_limiter import Permit
from push.registry import SenderRegistry
from push.sender import (
    Answer,
    CallLease,
    Delivery,
    Misconfigured,
    Paused,
    ProviderTrouble,
    RestsAlone,
    Sender,
    Unavailable,
)
from sending import outcomes
from sending import retry as retries
from sending.attempts import check_pushes, unheld_pushes
from sending.outcomes import NotStored, Recording, Stored, call_span
from sending.precheck import Claim, Deferred, Final, Hindered, Hindrance, InFlight, Proceed, Verdict

# Seconds a check may take: with a call's 10 s it stays below IN_FLIGHT, so that no two calls overlap.
_CLAIM_HOLDS = 5.0
_CALL_WITHIN = 10.9  # seconds; connections give up after 10.5 at the latest, but for a fault of ours
MAX_WAITS = 0.5  # of what is left to a push at a shut gate: the route may be up again long before it has expired
MAX_OTHERS = 2_000  # sends in one worker that are not of reminders; a tenth of its room
_IN_DOUBT = {Delivery.DECLINED, Delivery.UNKNOWN}  # a second try may show it twice
_HAND_OVER = timedelta(milliseconds=50)  # to another worker, when this one shuts down
_LOOK_AGAIN = timedelta(seconds=2)  # where another attempt is open, or its outcome is not on record
SEND_BUDGET = timedelta(seconds=20)  # a slot, the check, one call and its record; a lost worker costs this much

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class SendPush:
    """Ask for one push task to be sent at its due instant."""

    task_id: UUID
    environment: Environment
    hold_seconds: float  # from the scheduling of the activity to the due instant, on the server's clock
    app_id: str | None = None
    kind: Kind = Kind.REMINDER
    user_digest: int = 0


@dataclass(frozen=True, slots=True)
class SendDependencies:
    """What all sends of a process share."""

    apps: SenderRegistry
    due_load: DueLoad
    gates: RouteLimiters
    cutoff: TokenErrorCutoff
    back_offs: retries.BackOffs = field(default_factory=lambda: retries.BACK_OFFS)


@dataclass(frozen=True, slots=True)
class _Called:
    """An attempt that was begun, whether or not it came to a call and the provider answered."""

    go: Proceed
    sender: Sender
    came_to: Answer | ProviderTrouble
    began: float  # when it was asked for, by the monotonic clock
    latency: float  # seconds


class PushSending:
    """Sends the pushes of one provider."""

    def __init__(
        self,
        provider: Provider,
        sessions: Sessions,
        dependencies: SendDependencies,
        *,
        most_others: int = MAX_OTHERS,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._provider = provider
        self._apps = dependencies.apps
        self._due_load = dependencies.due_load
        self._gates = dependencies.gates
        self._cutoff = dependencies.cutoff
        self._back_offs = dependencies.back_offs
        self._chance = chance
        # Each priority by itself, so that no reminder waits for a message's row; the others get one turn each.
        turns = {each: 3 if each is Priority.REMINDER else 1 for each in Priority}
        self._recording = {each: Recording(sessions, in_flight=turns[each]) for each in Priority}
        check, unheld = partial(check_pushes, sessions), partial(unheld_pushes, sessions)
        self._check: Mapping[Priority, Batch[Claim | Hindered, Verdict]] = {
            each: Batch(check, in_flight=turns[each], unheard=self._begun_in_vain, unheld=unheld) for each in Priority
        }
        self._most_others = most_others
        self._others = 0  # sends under way that are not of reminders

    @activity.defn
    async def send_push(self, ask: SendPush) -> SentPush:
        """Make at most one provider call for a push task; returns how the task stands for good.

        Raises ApplicationError with the delay of the next attempt when time may cure the trouble.
        """
        with self._room(ask):
            entered = time.monotonic()
            hold = await self._hold(ask)
            step = _Step(stale_at=entered + hold + SEND_BUDGET.total_seconds())
            return await _undisturbed(self._send(ask, step), step)

    @contextmanager
    def _room(self, ask: SendPush) -> Iterator[None]:
        """Keep most of the worker's room for reminders: whoever of the others finds theirs full comes back later."""
        if RULES[ask.kind].priority is Priority.REMINDER:
            yield
            return
        if self._others >= self._most_others:
            raise _again("crowded", timedelta(seconds=1 + 2 * self._chance()))
        self._others += 1
        try:
            yield
        finally:
            self._others -= 1

    async def _hold(self, ask: SendPush) -> float:
        """Wait for the due instant; hand over at once when this worker shuts down. Gives the seconds of it.

        All three times come from the server's clock, so this worker's own may be wrong.
        """
        info = activity.info()
        left = ask.hold_seconds - (info.started_time - info.scheduled_time).total_seconds()
        if left <= 0:
            return 0.0
        with self._due_load.expecting(left):
            try:
                await asyncio.wait_for(activity.wait_for_worker_shutdown(), left)
            except TimeoutError:
                return left
        raise _again("worker_shutdown", _HAND_OVER)

    async def _send(self, ask: SendPush, step: "_Step") -> SentPush:
        with self._due_load.taking_part():
            done = await self._kept(ask) or await self._attempt(ask, step)
        match done:
            case Stored():
                return await self._told(done)
            case _Called():
                return await self._finish(done)
            case Final(state, reason):
                return SentPush(ask.task_id, state, reason)
            case Deferred(Hindrance(reason, delay, look=look)):
                raise _again(reason, min(delay, look or delay))
            case InFlight(wait):  # looked at again soon: an attempt that came to no call is over before its lease is
                raise _again("call_under_way", min(wait, _LOOK_AGAIN) + _HAND_OVER)
            case _:
                assert_never(done)

    async def _kept(self, ask: SendPush) -> Stored | None:
        """Store first what an earlier call for this push came to, if the database would not have it then."""
        try:
            return await self._recording_of(ask.kind).store_kept(ask.task_id)
        except NotStored:
            raise _again("outcome_not_stored", _LOOK_AGAIN) from None

    async def _attempt(self, ask: SendPush, step: "_Step") -> _Called | Final | Deferred | InFlight:
        """Pass the gate, take a slot, check a last time, call. Who may not call is checked all the same."""
        route = self._apps.route(self._provider, ask.app_id, ask.environment)
        gate = self._gates.serving(route, self._credentials(ask.app_id))
        user_digest = ask.user_digest or crc32(ask.task_id.bytes)  # of an older release: each push has turns of its own
        permit = gate.enter(RULES[ask.kind].priority, ask.task_id, user_digest)
        try:
            async with permit:
                sender = self._apps.sender(self._provider, ask.app_id)
                async with sender.lease(ask.environment, user_digest) as lease:
                    permit.check()
                    asked_at = step.claim()
                    verdict = await self._begin_attempt(ask)
                    if not isinstance(verdict, Proceed):
                        return verdict
                    go = replace(verdict, route=route)
                    if step.is_cut_off:
                        return _Called(go, sender, Unavailable("worker_stood_still", Delivery.NOT_SENT), asked_at, 0.0)
                    if time.monotonic() - asked_at > _CLAIM_HOLDS:
                        return _not_called(go, sender, asked_at, "claim_too_old")
                    if (verdict.route.provider, verdict.route.environment) != (self._provider, ask.environment):
                        return _not_called(go, sender, asked_at, "readdressed")  # a revival sends its own
                    return await _call(permit, lease, go, sender, asked_at)
        except ProviderTrouble as trouble:
            met = trouble
        share = MAX_WAITS if isinstance(met, Paused) else None
        hindrance = Hindrance(met.reason, self._delay(met, activity.info().attempt), share)
        if isinstance(met, RestsAlone):
            hindrance = Hindrance(met.reason, met.rest, look=hindrance.delay)
        elif retries.is_about_credentials(met):
            hindrance = replace(hindrance, look=gate.rest_alone(ask.task_id, met.reason, hindrance.delay))
        step.claim()
        verdict = await self._note_hindrance(ask, hindrance)
        if isinstance(verdict, Deferred) and verdict.user_id is not None:
            permit.hindered(met, verdict.user_id, verdict.left.total_seconds())
            if retries.is_about_credentials(met):
                gate.rest_alone(ask.task_id, met.reason, verdict.hindrance.delay)
        return verdict

    def _recording_of(self, kind: Kind) -> Recording:
        return self._recording[RULES[kind].priority]

    async def _begin_attempt(self, ask: SendPush) -> Verdict:
        claim = Claim(ask.task_id)
        try:
            return await self._check[RULES[ask.kind].priority].ask(claim)
        except Exception as error:
            if not may_be_ones_fault(error):  # it may have been committed, unheard of
                lost = outcomes.never_called(claim.attempt_id, claim.task_id, "claim_too_old")
                self._recording_of(ask.kind).store_later(lost)
            raise

    async def _note_hindrance(self, ask: SendPush, hindrance: Hindrance) -> Deferred | Final | InFlight:
        verdict = await self._check[RULES[ask.kind].priority].ask(Hindered(ask.task_id, hindrance))
        return Deferred(hindrance) if isinstance(verdict, Proceed) else verdict

    def _begun_in_vain(self, verdict: Verdict) -> None:
        """Close an attempt that was begun for somebody who does not wait any more."""
        if isinstance(verdict, Proceed):
            push = verdict.push
            lost = outcomes.never_called(push.attempt_id, push.task_id, "claim_too_old")
            self._recording_of(push.kind).store_later(lost)

    def _credentials(self, app_id: str | None) -> Sender | None:
        try:
            return self._apps.sender(self._provider, app_id)
        except Misconfigured:
            return None

    async def _finish(self, called: _Called) -> SentPush:
        """Record what a call came to; raises ApplicationError where another is to be made."""
        go, came_to, look = called.go, called.came_to, None
        if not isinstance(came_to, ProviderTrouble):
            dead_tokens = await self._cutoff.note(go, called.sender, came_to)
            outcome = outcomes.answered(go, came_to, called.latency, dead_tokens)
        elif isinstance(came_to, Unavailable) and came_to.fate in _IN_DOUBT and go.push.collapse_key is None:
            update = Update(go.push.task_id, TaskState.DEAD, "fate_unknown")
            outcome = outcomes.failed(go, came_to, called.latency, update)
        else:
            update = self._again_or_dead(called, came_to)
            look = self._rest_alone(called, came_to, update)
            outcome = outcomes.failed(go, came_to, called.latency, update)
        try:
            stored = await self._recording_of(go.push.kind).store(outcome, go.route, began=called.began)
        except NotStored:
            raise _again("outcome_not_stored", _LOOK_AGAIN) from None
        return await self._told(stored, since=go.began_at + timedelta(seconds=called.latency), look=look)

    def _again_or_dead(self, called: _Called, trouble: ProviderTrouble) -> Update:
        """Say when the push is tried again: in time, before it expires, or not at all."""
        go, over_at = called.go, called.go.began_at + timedelta(seconds=called.latency)
        delay = retries.before_it_expires(trouble, self._delay(trouble, go.number), go.expires_at - over_at)
        if delay is None:
            return Update(go.push.task_id, TaskState.DEAD, trouble.reason)
        return Update(go.push.task_id, TaskState.PENDING, trouble.reason, next_attempt_at=over_at + delay)

    def _rest_alone(self, called: _Called, trouble: ProviderTrouble, update: Update) -> timedelta | None:
        """Keep a push that was refused for our credentials from a call with the same; gives when to look for others."""
        if update.next_attempt_at is None or not retries.is_about_credentials(trouble):
            return None
        if not self._gates.serves(called.go.route, called.sender):
            return _LOOK_AGAIN  # others are in use already
        rest = update.next_attempt_at - called.go.began_at - timedelta(seconds=called.latency)
        return self._gates.at(called.go.route).rest_alone(update.task_id, trouble.reason, rest)

    async def _told(self, stored: Stored, since: datetime | None = None, look: timedelta | None = None) -> SentPush:
        """Report what is on record; raises ApplicationError where another call is to be made."""
        update = stored.outcome.update
        if stored.state is TaskState.PENDING:
            due = update.next_attempt_at
            delay = due - since if due and since else _HAND_OVER
            raise _again(str(update.reason), min(delay, look or delay))
        await self._due_load.over()
        return SentPush(update.task_id, stored.state, update.reason)

    def _delay(self, trouble: ProviderTrouble, attempt: int) -> timedelta:
        return retries.delay(self._back_offs, trouble, attempt, self._chance())


class _Step:
    """How far one try of the activity has come, and whether Temporal has given it up."""

    def __init__(self, stale_at: float) -> None:
        self._stale_at = stale_at  # by the monotonic clock; afterwards another worker has it
        self.is_claimed = False
        self.is_cut_off = False

    def claim(self) -> float:
        """Ask for an attempt from here on; gives the present moment. A worker that stood still for long does not."""
        now = time.monotonic()
        if now >= self._stale_at:
            raise _again("worker_stood_still", _HAND_OVER)
        self.is_claimed = True
        return now


async def _undisturbed(sending: Coroutine[Any, Any, SentPush], step: _Step) -> SentPush:
    """Send; who is cancelled once an attempt is asked for sees it through, so that its outcome is on record.

    Then the cancel is heeded, unless the push is settled: the SDK reports one of a worker's shutdown as to be retried.
    """
    task = asyncio.ensure_future(sending)
    while not task.done():
        try:
            await asyncio.wait({task})  # which leaves it alone when we are cancelled
        except asyncio.CancelledError:
            step.is_cut_off = True
            if not step.is_claimed:
                task.cancel()
    if step.is_cut_off and not task.cancelled() and task.exception() is not None:
        raise asyncio.CancelledError
    return task.result()


async def _call(
    permit: Permit, lease: CallLease, go: Proceed, sender: Sender, asked_at: float | None = None
) -> _Called:
    started = time.monotonic()
    with call_span(go) as answered:
        try:
            async with asyncio.timeout(_CALL_WITHIN):
                came_to: Answer | ProviderTrouble = await permit.call(lease.send(go.push), go.user_id)
        except ProviderTrouble as trouble:
            came_to = trouble
        except TimeoutError:  # whatever the connection's own patience
            came_to = Unavailable("answer_timeout", Delivery.UNKNOWN)
        except Exception as error:  # noqa: BLE001 -- unrecorded, the call would be made again and again
            log.error("answer not understood", task_id=str(go.push.task_id), error=type(error).__name__)  # noqa: TRY400 (its text may hold the answer)
            came_to = Unavailable("unreadable_answer", Delivery.UNKNOWN)
        answered(came_to)
    return _Called(go, sender, came_to, asked_at or started, time.monotonic() - started)


def _not_called(go: Proceed, sender: Sender, asked_at: float, why: str) -> _Called:
    return _Called(go, sender, Unavailable(why, Delivery.NEVER_PROCESSED), asked_at, latency=0.0)


def _again(reason: str, delay: timedelta) -> ApplicationError:
    """Ask Temporal for a retry after `delay`; expected trouble, so nobody is alarmed."""
    return ApplicationError(reason, next_retry_delay=delay, category=ApplicationErrorCategory.BENIGN)
