"""Send one push: hold until it is due, take a slot, check a last time, call once, record what happened."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import assert_never

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from activities import outcomes, retries
from activities.attempts import begin_attempts
from activities.batch import Batch
from activities.brake import Brake
from activities.call_span import call_span
from activities.judging import Busy, Claim, Go, Hindrance, Settled, Waiting
from activities.outcomes import Outcome, end_attempts
from activities.rush import Rush
from db.engine import Sessions
from db.push_attempts import Ended
from db.push_tasks import Update
from domain.kinds import RULES
from domain.push import Provider, Route, TaskState
from domain.wire import SendPush, SentPush
from push.gate import Passage
from push.gates import Gates
from push.sender import Answer, Fate, Misconfigured, ProviderTrouble, Sender, Slot, Unavailable
from push.senders import Apps
from telemetry import labels, metrics

# Seconds a check may take: with a call's 10 s it stays below IN_FLIGHT, so that no two calls overlap.
_CLAIM_HOLDS = 5.0
_IN_DOUBT = {Fate.DECLINED, Fate.UNKNOWN}  # a second try may show it twice
_HAND_OVER = timedelta(milliseconds=50)  # to another worker, when this one shuts down

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Means:
    """What all sends of a process share."""

    apps: Apps
    rush: Rush
    gates: Gates
    brake: Brake
    back_offs: retries.BackOffs = field(default_factory=lambda: retries.BACK_OFFS)


@dataclass(frozen=True, slots=True)
class _Called:
    """An attempt that was begun, whether or not it came to a call and the provider answered."""

    go: Go
    sender: Sender
    came_to: Answer | ProviderTrouble
    latency: float  # seconds


class PushSending:
    """Sends the pushes of one provider."""

    def __init__(
        self,
        provider: Provider,
        sessions: Sessions,
        means: Means,
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._provider = provider
        self._apps = means.apps
        self._rush = means.rush
        self._gates = means.gates
        self._brake = means.brake
        self._back_offs = means.back_offs
        self._chance = chance
        self._begin = Batch(partial(begin_attempts, sessions))
        self._end = Batch(partial(end_attempts, sessions))

    @activity.defn
    async def send_push(self, ask: SendPush) -> SentPush:
        """Make at most one provider call for a push task; returns how the task stands for good.

        Raises ApplicationError with the delay of the next attempt when time may cure the trouble.
        """
        await self._hold(ask)
        with self._rush.taking_part():
            done = await self._attempt(ask)
        match done:
            case _Called():
                return await self._finish(done)
            case Settled(state, reason):
                return SentPush(ask.task_id, state, reason)
            case Waiting(Hindrance(reason, delay)):
                raise _again(reason, delay)
            case Busy(wait):
                raise _again("call_under_way", wait + _HAND_OVER)
            case _:
                assert_never(done)

    async def _hold(self, ask: SendPush) -> None:
        """Wait for the due instant; hand over at once when this worker shuts down.

        All three times come from the server's clock, so this worker's own may be wrong.
        """
        info = activity.info()
        left = ask.hold_seconds - (info.started_time - info.scheduled_time).total_seconds()
        if left <= 0:
            return
        with self._rush.expecting(left):
            try:
                await asyncio.wait_for(activity.wait_for_worker_shutdown(), left)
            except TimeoutError:
                return
        raise _again("worker_shutdown", _HAND_OVER)

    async def _attempt(self, ask: SendPush) -> _Called | Settled | Waiting | Busy:
        """Pass the gate, take a slot, check a last time, call. Who may not call is checked all the same."""
        route = self._apps.route(self._provider, ask.app_id, ask.environment)
        try:
            gate = self._gates.serving(route, self._credentials(ask.app_id))
            async with gate.enter(RULES[ask.kind].priority) as passage:
                sender = self._apps.sender(self._provider, ask.app_id)
                async with sender.slot(ask.environment) as slot:
                    passage.check()
                    asked_at = time.monotonic()
                    verdict = await self._begin.ask(Claim(ask.task_id))
                    if not isinstance(verdict, Go):
                        return verdict
                    go = replace(verdict, route=route)
                    if time.monotonic() - asked_at > _CLAIM_HOLDS:
                        return _not_called(go, sender, "claim_too_old")
                    if (verdict.route.provider, verdict.route.environment) != (self._provider, ask.environment):
                        return _not_called(go, sender, "readdressed")  # a revival's own send has the right address
                    return await _call(passage, slot, go, sender)
        except ProviderTrouble as trouble:
            hindrance = Hindrance(trouble.reason, self._delay(trouble, activity.info().attempt))
        verdict = await self._begin.ask(Claim(ask.task_id, hindrance))
        return Waiting(hindrance) if isinstance(verdict, Go) else verdict

    def _credentials(self, app_id: str | None) -> Sender | None:
        try:
            return self._apps.sender(self._provider, app_id)
        except Misconfigured:
            return None

    async def _finish(self, called: _Called) -> SentPush:
        """Record what a call came to; raises ApplicationError where another is to be made."""
        go, came_to = called.go, called.came_to
        if not isinstance(came_to, ProviderTrouble):
            dead_tokens = await self._brake.note(go, called.sender, came_to)
            outcome = outcomes.answered(go, came_to, called.latency, dead_tokens)
        elif isinstance(came_to, Unavailable) and came_to.fate in _IN_DOUBT and go.push.collapse_key is None:
            update = Update(go.push.task_id, TaskState.DEAD, "fate_unknown")
            outcome = outcomes.failed(go, came_to, called.latency, update)
        else:
            delay = self._delay(came_to, go.number)
            next_attempt_at = go.began_at + timedelta(seconds=called.latency) + delay
            pending = Update(go.push.task_id, TaskState.PENDING, came_to.reason, next_attempt_at=next_attempt_at)
            await self._record(outcomes.failed(go, came_to, called.latency, pending), called)
            raise _again(came_to.reason, delay)
        state = await self._record(outcome, called)
        await self._rush.over()
        return SentPush(go.push.task_id, state, outcome.update.reason)

    async def _record(self, outcome: Outcome, called: _Called) -> TaskState:
        """Store an outcome, and count it."""
        state = await self._store(outcome)
        if isinstance(outcome.ended, Ended):
            _count(called.go.route, outcome.ended, called.latency)
        return state

    async def _store(self, outcome: Outcome) -> TaskState:
        """Store an outcome; the provider has acted, so a database in trouble is asked again for a while."""
        for wait in (0.1, 0.5, 2.0):
            try:
                return await self._end.ask(outcome)
            except Exception as error:  # noqa: BLE001 -- whatever ails the database
                log.warning("outcome not stored yet", task_id=str(outcome.update.task_id), error=type(error).__name__)
                await asyncio.sleep(wait)
        return await self._end.ask(outcome)

    def _delay(self, trouble: ProviderTrouble, attempt: int) -> timedelta:
        return retries.delay(self._back_offs, trouble, attempt, self._chance())


async def _call(passage: Passage, slot: Slot, go: Go, sender: Sender) -> _Called:
    started = time.monotonic()
    with call_span(go) as answered:
        try:
            came_to: Answer | ProviderTrouble = await passage.call(slot.send(go.push))
        except ProviderTrouble as trouble:
            came_to = trouble
        except Exception as error:  # noqa: BLE001 -- unrecorded, the call would be made again and again
            log.error("answer not understood", task_id=str(go.push.task_id), error=type(error).__name__)  # noqa: TRY400 (its text may hold the answer)
            came_to = Unavailable("unreadable_answer", Fate.UNKNOWN)
        answered(came_to)
    return _Called(go, sender, came_to, time.monotonic() - started)


def _count(route: Route, ended: Ended, latency: float) -> None:
    provider, app_id, environment = labels.of_route(route)
    metrics.push_attempts.labels(provider, app_id, environment, ended.outcome, labels.reason(ended.reason)).inc()
    if latency:  # else it came to no call
        metrics.provider_answer.labels(provider, app_id, ended.outcome).observe(latency)


def _not_called(go: Go, sender: Sender, why: str) -> _Called:
    return _Called(go, sender, Unavailable(why, Fate.NEVER_PROCESSED), latency=0.0)


def _again(reason: str, delay: timedelta) -> ApplicationError:
    """Ask Temporal for a retry after `delay`; expected trouble, so nobody is alarmed."""
    return ApplicationError(reason, next_retry_delay=delay, category=ApplicationErrorCategory.BENIGN)
