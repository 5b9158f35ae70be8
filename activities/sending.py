"""Send one push: get a stream shortly before it is due; then check a last time, call once, record the outcome."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, assert_never
from uuid import UUID, uuid4
from zlib import crc32

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from db.batch import Batch
from db.engine import Sessions, may_be_ones_fault
from db.push_tasks import Update
from domain.kinds import RULES, Kind, Priority
from domain.presentation import Presentations
from domain.push import Environment, PlannedSend, Provider, SentPush, TaskState
from fleet.due_load import DueLoad, DueWaits
from fleet.takeover import Hold, Takeover, hold_for
from fleet.token_error_cutoff import TokenErrorCutoff
from push.limiter.registry import RouteLimiters
from push.limiter.route_limiter import Permit, RouteLimiter
from push.registry import SenderRegistry
from push.sender import (
    Answer,
    AwaitsCredentials,
    Delivery,
    NotConfigured,
    Paused,
    ProviderTrouble,
    Send,
    Sender,
    Unavailable,
)
from sending import outcomes
from sending import retry as retries
from sending.attempts import check_pushes, unheld_pushes
from sending.outcomes import NotStored, Recording, Stored, call_span
from sending.precheck import Claim, Deferred, Final, Hindered, Hindrance, InFlight, Proceed, TakenOver, Verdict

_MAX_CLAIM = 5.0  # seconds a check may take: with a call's 10 s it stays below ATTEMPT_LEASE, so no two calls overlap
_CALL_WITHIN = 10.9  # seconds; connections give up after 10.5 at the latest, but for a fault of ours
_STOOD_STILL = _CALL_WITHIN + 2.0  # seconds that no call takes, unless this process did not run
MAX_WAITS = 0.5  # of a push's remaining time while its route is paused: the route may be up again long before the end
MAX_OTHERS = 2_000  # sends in one worker that are not of reminders; a tenth of its room
_IN_DOUBT = {Delivery.DECLINED, Delivery.UNKNOWN}  # a second call may show the push twice
_AHEAD = 0.3  # seconds before it is due in which a send gets turn and stream, where there are plenty
_HAND_OVER = timedelta(milliseconds=50)  # until another worker takes over when this one shuts down
_LOOK_AGAIN = timedelta(seconds=2)  # while another attempt is open, or its outcome is not stored
SEND_BUDGET = timedelta(seconds=20)  # a lease, the check, one call and its record; then Temporal misses a lost worker
_TAKEN_OVER = "taken_over"
_AFTER_TROUBLE = 1.0  # seconds, as Temporal waits at first, until a push that was taken over is tried again

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
    limiters: RouteLimiters
    cutoff: TokenErrorCutoff
    presentations: Presentations
    takeover: Takeover
    back_offs: retries.BackOffs = field(default_factory=lambda: retries.BACK_OFFS)


@dataclass(frozen=True, slots=True)
class _Attempted:
    """An attempt that has begun. It may have ended without a call, and a call without an answer."""

    go: Proceed
    sender: Sender
    result: Answer | ProviderTrouble
    claimed_at: float  # by the monotonic clock
    latency: float  # seconds
    since_claim: float = 0.0  # seconds, likewise


class PushSending:
    """Sends the pushes of one provider."""

    def __init__(
        self,
        provider: Provider,
        sessions: Sessions,
        dependencies: SendDependencies,
        *,
        max_others: int = MAX_OTHERS,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._provider = provider
        self._apps = dependencies.apps
        self._due_load = dependencies.due_load
        self._limiters = dependencies.limiters
        self._cutoff = dependencies.cutoff
        self._holds = dependencies.takeover.holds
        self._waits = DueWaits()
        self._back_offs = dependencies.back_offs
        self._chance = chance
        # Each priority by itself, so that no reminder waits for a message's row.
        in_flight = {each: 3 if each is Priority.REMINDER else 1 for each in Priority}
        self._recording = {each: Recording(sessions, in_flight=in_flight[each]) for each in Priority}
        check = partial(check_pushes, sessions, presentations=dependencies.presentations)
        unheld = partial(unheld_pushes, sessions)
        self._check: Mapping[Priority, Batch[Claim | Hindered, Verdict]] = {
            each: Batch(check, in_flight=in_flight[each], unheard=self._close_unused, unheld=unheld)
            for each in Priority
        }
        self._max_others = max_others
        self._others = 0  # sends in progress that are not of reminders

    @activity.defn
    async def send_push(self, ask: SendPush) -> SentPush:
        """Make at most one provider call for a push task; returns the task's final state.

        Raises ApplicationError with the delay of the next attempt where a retry may help.
        """
        info = activity.info()
        left = max(ask.hold_seconds - (info.started_time - info.scheduled_time).total_seconds(), 0.0)
        hold = hold_for(ask.task_id, left, SEND_BUDGET.total_seconds())
        with self._room(ask), self._holds.holding(hold):
            progress = _Progress(hold, info.attempt)
            return await _shielded(self._send_when_due(ask, progress), progress)

    async def take_over(self, send: PlannedSend, hold: Hold) -> None:
        """Send a push that a lost worker held. Its activity, which Temporal runs again, finds it finished.

        Where a retry may help, it is tried again for as long as Temporal has not noticed the loss. So it is after any
        trouble of the database, which may have been lost together with that worker.
        """
        structlog.contextvars.bind_contextvars(task_id=str(send.task_id), taken_over=True)
        ask, attempt = SendPush(send.task_id, send.environment, 0.0, send.app_id, send.kind, send.user_digest), 0
        while True:
            attempt += 1
            progress = _Progress(hold, attempt)
            try:
                with self._room(ask):
                    await _shielded(self._send(ask, progress), progress)
            except ApplicationError as error:
                wait = (error.next_retry_delay or SEND_BUDGET).total_seconds()
                if error.message == _TAKEN_OVER or time.monotonic() + wait >= hold.ends_at:
                    return
            except Exception as error:
                wait = _AFTER_TROUBLE
                if time.monotonic() + wait >= hold.ends_at:
                    raise
                log.warning("sending a push that was taken over failed, will retry", error=type(error).__name__)
            else:
                return
            await asyncio.sleep(wait)

    @contextmanager
    def _room(self, ask: SendPush) -> Iterator[None]:
        """Keep most of the worker's room for reminders; other kinds come back later when their part is full."""
        if RULES[ask.kind].priority is Priority.REMINDER:
            yield
            return
        if self._others >= self._max_others:
            raise _again("crowded", timedelta(seconds=1 + 2 * self._chance()))
        self._others += 1
        try:
            yield
        finally:
            self._others -= 1

    async def _wait(self, left: float) -> None:
        """Wait for the due instant. On this worker's shutdown another one takes over at once.

        All times come from the server's clock, so this worker's own may be wrong.
        """
        if left <= 0:
            return
        with self._due_load.expecting(left):
            if await self._waits.until_due(left, activity.wait_for_worker_shutdown):
                return
        raise _again("worker_shutdown", _HAND_OVER)

    async def _send_when_due(self, ask: SendPush, progress: "_Progress") -> SentPush:
        await self._wait(progress.left - _AHEAD)
        return await self._send(ask, progress)

    async def _send(self, ask: SendPush, progress: "_Progress") -> SentPush:
        with self._due_load.taking_part():
            done = await self._store_kept(ask) or await self._attempt(ask, progress)
        match done:
            case Stored():
                return await self._report(done)
            case _Attempted():
                return await self._finish(done)
            case Final(state, reason):
                return SentPush(ask.task_id, state, reason)
            case Deferred(Hindrance(reason, delay, look=look)):
                raise _again(reason, min(delay, look or delay))
            case InFlight(wait):  # looked at again soon, since an attempt without a call ends before its lease
                raise _again("call_under_way", min(wait, _LOOK_AGAIN) + _HAND_OVER)
            case TakenOver():
                raise _again(_TAKEN_OVER, _LOOK_AGAIN)
            case _:
                assert_never(done)

    async def _store_kept(self, ask: SendPush) -> Stored | None:
        """Store the outcome of an earlier call for this push first, if the database did not take it then."""
        try:
            return await self._recording_of(ask.kind).store_kept(ask.task_id)
        except NotStored:
            raise _again("outcome_not_stored", _LOOK_AGAIN) from None

    async def _attempt(
        self, ask: SendPush, progress: "_Progress"
    ) -> _Attempted | Final | Deferred | InFlight | TakenOver:
        """Pass the limiter, lease a stream, wait until it is due, check, call.

        A push that may not call is checked all the same.
        """
        route = self._apps.route(self._provider, ask.app_id, ask.environment)
        sender = self._apps.sender(self._provider, ask.app_id)
        limiter = self._limiters.serving(route, sender)
        user_digest = ask.user_digest or crc32(ask.task_id.bytes)  # older releases gave none: each push counts alone
        if sender is None or not limiter.has_plenty:
            await self._wait_ahead(progress)
        permit = limiter.enter(RULES[ask.kind].priority, ask.task_id, user_digest)
        try:
            async with permit:
                if sender is None:
                    raise NotConfigured("app_not_configured")
                async with sender.lease(ask.environment, user_digest, partial(self._wait_ahead, progress)) as send:
                    permit.check()
                    claimed_at = progress.claim()
                    verdict = await self._begin_attempt(ask, progress)
                    if not isinstance(verdict, Proceed):
                        return verdict
                    go = verdict if verdict.route == route else replace(verdict, route=route)
                    if progress.is_cancelled:
                        trouble = Unavailable("worker_stood_still", Delivery.NOT_SENT)
                        return _Attempted(go, sender, trouble, claimed_at, latency=0.0)
                    if time.monotonic() - claimed_at > _MAX_CLAIM:
                        return _not_called(go, sender, claimed_at, "claim_too_old")
                    if (verdict.route.provider, verdict.route.environment) != (self._provider, ask.environment):
                        return _not_called(go, sender, claimed_at, "readdressed")  # a revival sends its own
                    return await _call(permit, send, go, sender, claimed_at)
        except ProviderTrouble as trouble:
            if progress.left <= 0:
                return await self._hindered(ask, progress, permit, limiter, trouble)
        await self._wait_ahead(progress)
        return await self._attempt(ask, progress)  # what hindered it before it was due may be over

    async def _wait_ahead(self, progress: "_Progress") -> None:
        if progress.left > 0:
            with self._due_load.not_yet():
                await self._wait(progress.left)

    async def _hindered(
        self, ask: SendPush, progress: "_Progress", permit: Permit, limiter: RouteLimiter, trouble: ProviderTrouble
    ) -> Final | Deferred | InFlight | TakenOver:
        """Check a push that may not call now, and let the limiter learn whose it is."""
        is_refused = retries.is_about_credentials(trouble)
        share = MAX_WAITS if isinstance(trouble, Paused) else None
        hindrance = Hindrance(trouble.reason, self._delay(trouble, progress.attempt), share)
        if isinstance(trouble, AwaitsCredentials):
            hindrance = Hindrance(trouble.reason, trouble.rest, look=hindrance.delay)
        elif is_refused:
            look = limiter.await_credentials(ask.task_id, trouble.reason, hindrance.delay)
            hindrance = replace(hindrance, look=look)
        progress.claim()
        verdict = await self._note_hindrance(ask, hindrance, progress.hold)
        if isinstance(verdict, Deferred) and verdict.user_id is not None:
            permit.hindered(trouble, verdict.user_id, verdict.left.total_seconds())
            if is_refused:
                limiter.await_credentials(ask.task_id, trouble.reason, verdict.hindrance.delay)
        return verdict

    def _recording_of(self, kind: Kind) -> Recording:
        return self._recording[RULES[kind].priority]

    async def _begin_attempt(self, ask: SendPush, progress: "_Progress") -> Verdict:
        claim = Claim(ask.task_id, self._holds.claimed(progress.hold), progress.attempt_id)
        try:
            return await self._check[RULES[ask.kind].priority].ask(claim)
        except Exception as error:
            if not may_be_ones_fault(error):  # it may have been committed all the same
                lost = outcomes.never_called(claim.attempt_id, claim.task_id, "claim_too_old")
                self._recording_of(ask.kind).store_later(lost)
            raise

    async def _note_hindrance(
        self, ask: SendPush, hindrance: Hindrance, hold: Hold
    ) -> Deferred | Final | InFlight | TakenOver:
        hindered = Hindered(ask.task_id, hindrance, self._holds.claimed(hold))
        verdict = await self._check[RULES[ask.kind].priority].ask(hindered)
        return Deferred(hindrance) if isinstance(verdict, Proceed) else verdict

    def _close_unused(self, verdict: Verdict) -> None:
        """Close an attempt whose send was cancelled before the check was over."""
        if isinstance(verdict, Proceed):
            push = verdict.push
            lost = outcomes.never_called(push.attempt_id, push.task_id, "claim_too_old")
            self._recording_of(push.kind).store_later(lost)

    async def _finish(self, attempted: _Attempted) -> SentPush:
        """Record the outcome of an attempt; raises ApplicationError where another one is to follow."""
        go, result, look = attempted.go, attempted.result, None
        if not isinstance(result, ProviderTrouble):
            dead_tokens = await self._cutoff.note(go, attempted.sender, result)
            outcome = outcomes.answered(go, result, attempted.latency, dead_tokens, attempted.since_claim)
        elif isinstance(result, Unavailable) and result.delivery in _IN_DOUBT and go.push.collapse_key is None:
            update = Update(go.push.task_id, TaskState.DEAD, "fate_unknown")
            outcome = outcomes.failed(go, result, attempted.latency, update)
        else:
            update = self._again_or_dead(attempted, result)
            look = self._await_credentials(attempted, result, update)
            outcome = outcomes.failed(go, result, attempted.latency, update)
        try:
            stored = await self._recording_of(go.push.kind).store(outcome, go.route, claimed_at=attempted.claimed_at)
        except NotStored:
            raise _again("outcome_not_stored", _LOOK_AGAIN) from None
        return await self._report(stored, since=go.began_at + timedelta(seconds=attempted.latency), look=look)

    def _again_or_dead(self, attempted: _Attempted, trouble: ProviderTrouble) -> Update:
        """Say when the push is tried again before it expires; it is dead where no time is left for that."""
        go, over_at = attempted.go, attempted.go.began_at + timedelta(seconds=attempted.latency)
        delay = retries.before_it_expires(trouble, self._delay(trouble, go.number), go.expires_at - over_at)
        if delay is None:
            return Update(go.push.task_id, TaskState.DEAD, trouble.reason)
        return Update(go.push.task_id, TaskState.PENDING, trouble.reason, next_attempt_at=over_at + delay)

    def _await_credentials(self, attempted: _Attempted, trouble: ProviderTrouble, update: Update) -> timedelta | None:
        """Keep a push that was refused for our credentials from calling with them; returns when to look for others."""
        if update.next_attempt_at is None or not retries.is_about_credentials(trouble):
            return None
        if not self._limiters.serves(attempted.go.route, attempted.sender):
            return _LOOK_AGAIN  # others are in use already
        rest = update.next_attempt_at - attempted.go.began_at - timedelta(seconds=attempted.latency)
        return self._limiters.at(attempted.go.route).await_credentials(update.task_id, trouble.reason, rest)

    async def _report(self, stored: Stored, since: datetime | None = None, look: timedelta | None = None) -> SentPush:
        """Report what is stored; raises ApplicationError where another attempt is to follow."""
        update = stored.outcome.update
        if stored.state is TaskState.PENDING:
            due = update.next_attempt_at
            delay = due - since if due and since else _HAND_OVER
            raise _again(str(update.reason), min(delay, look or delay))
        await self._due_load.over()
        return SentPush(update.task_id, stored.state, update.reason, stored.reaches_all)

    def _delay(self, trouble: ProviderTrouble, attempt: int) -> timedelta:
        return retries.delay(self._back_offs, trouble, attempt, self._chance())


class _Progress:
    """How far one try has come, and whether it was cancelled: by Temporal, or as this worker stops."""

    def __init__(self, hold: Hold, attempt: int) -> None:
        self.hold = hold
        self.attempt = attempt  # from 1
        self.attempt_id = uuid4()  # of the one call; made before it is due
        self.is_claimed = False
        self.is_cancelled = False

    @property
    def left(self) -> float:
        """Seconds until it is due; below 0 afterwards."""
        return self.hold.due_at - time.monotonic()

    def claim(self) -> float:
        """Note that an attempt is claimed from now on; returns the present. Raises if this worker was frozen."""
        now = time.monotonic()
        if now >= self.hold.ends_at:
            raise _again("worker_stood_still", _HAND_OVER)
        self.is_claimed = True
        return now


async def _shielded(sending: Coroutine[Any, Any, SentPush], progress: _Progress) -> SentPush:
    """Send. Once an attempt is claimed, a cancel waits until its outcome is stored.

    It takes effect then, unless the push is final: the SDK reports a cancel by a worker's shutdown as to be retried.
    """
    task = asyncio.ensure_future(sending)
    while not task.done():
        try:
            await asyncio.wait({task})  # which leaves the task alone when we are cancelled
        except asyncio.CancelledError:
            progress.is_cancelled = True
            if not progress.is_claimed:
                task.cancel()
    if progress.is_cancelled and not task.cancelled() and task.exception() is not None:
        raise asyncio.CancelledError
    return task.result()


async def _call(permit: Permit, send: Send, go: Proceed, sender: Sender, claimed_at: float) -> _Attempted:
    started = time.monotonic()
    with call_span(go) as answered:
        try:
            async with asyncio.timeout(_CALL_WITHIN):
                result: Answer | ProviderTrouble = await permit.call(send(go.push), go.user_id)
        except ProviderTrouble as trouble:
            result = trouble
        except TimeoutError:  # whatever the connection's own timeouts
            result = Unavailable("answer_timeout", Delivery.UNKNOWN)
        except Exception as error:  # noqa: BLE001 -- unrecorded, the call would be made again and again
            log.error("answer not understood", task_id=str(go.push.task_id), error=type(error).__name__)  # noqa: TRY400 (its text may hold the answer)
            result = Unavailable("unreadable_answer", Delivery.UNKNOWN)
        ended = time.monotonic()
        if isinstance(result, Unavailable) and result.delivery is Delivery.UNKNOWN and ended - started > _STOOD_STILL:
            result = Unavailable("stalled_in_call", Delivery.UNKNOWN)  # the answer may lie in the socket
        answered(result)
    return _Attempted(go, sender, result, claimed_at, ended - started, ended - claimed_at)


def _not_called(go: Proceed, sender: Sender, claimed_at: float, why: str) -> _Attempted:
    return _Attempted(go, sender, Unavailable(why, Delivery.NOT_PROCESSED), claimed_at, latency=0.0)


def _again(reason: str, delay: timedelta) -> ApplicationError:
    """Ask Temporal for a retry after `delay`; the trouble is expected, so it raises no alarm."""
    return ApplicationError(reason, next_retry_delay=delay, category=ApplicationErrorCategory.BENIGN)
