"""Send one push: hold until it is due, take a slot, check a last time, call once, record what happened."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import assert_never

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from activities.attempts import (
    Busy,
    Claim,
    Go,
    Hindrance,
    Outcome,
    Settled,
    Waiting,
    begin_attempts,
    end_attempts,
)
from activities.batch import Batch
from activities.rush import Rush
from db.engine import Sessions
from db.push_attempts import Ended
from db.push_tasks import Update
from domain.back_off import BackOff
from domain.push import Provider, TaskState
from domain.wire import SendPush, SentPush
from push.sender import (
    Accepted,
    Answer,
    Fate,
    Misconfigured,
    ProviderTrouble,
    Rejected,
    Slot,
    Throttled,
    Unavailable,
    Unregistered,
)
from push.senders import Apps

_BACK_OFFS: dict[type[ProviderTrouble], BackOff] = {
    Unavailable: BackOff(timedelta(seconds=2), timedelta(seconds=60)),
    Throttled: BackOff(timedelta(seconds=10), timedelta(minutes=5)),
    Misconfigured: BackOff(timedelta(seconds=30), timedelta(minutes=5)),
}
_CLAIM_HOLDS = (
    5.0  # seconds a check may take: with a call's 10 s it stays below IN_FLIGHT, so that no two calls overlap
)
_HAND_OVER = timedelta(milliseconds=50)  # to another worker, when this one shuts down

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Called:
    """A provider call that was made, and when to make the next, if ever."""

    outcome: Outcome
    again_in: timedelta | None = None


class PushSending:
    """Sends the pushes of one provider."""

    def __init__(
        self,
        provider: Provider,
        apps: Apps,
        sessions: Sessions,
        rush: Rush,
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._provider = provider
        self._apps = apps
        self._rush = rush
        self._chance = chance
        self._begin = Batch(partial(begin_attempts, sessions))
        self._end = Batch(partial(end_attempts, sessions))

    @activity.defn
    async def send_push(self, ask: SendPush) -> SentPush:
        """Make at most one provider call for a push task; returns how the task stands for good.

        Raises ApplicationError with the delay of the next attempt when time may cure the trouble.
        """
        await _hold(ask)
        with self._rush.taking_part():
            done = await self._attempt(ask)
        match done:
            case _Called(outcome, again_in):
                await self._record(outcome)
                if again_in is not None:
                    raise _again(outcome.update.reason or "unavailable", again_in)
                await self._rush.over()
                return SentPush(ask.task_id, outcome.update.state, outcome.update.reason)
            case Settled(state, reason):
                return SentPush(ask.task_id, state, reason)
            case Waiting(Hindrance(reason, delay)):
                raise _again(reason, delay)
            case Busy(wait):
                raise _again("call_under_way", wait + _HAND_OVER)
            case _:
                assert_never(done)

    async def _attempt(self, ask: SendPush) -> _Called | Settled | Waiting | Busy:
        """Take a slot, check a last time, call. Without a slot the task is checked all the same."""
        try:
            sender = self._apps.sender(self._provider, ask.app_id)
            async with sender.slot(ask.environment) as slot:
                asked_at = time.monotonic()
                verdict = await self._begin.ask(Claim(ask.task_id))
                if not isinstance(verdict, Go):
                    return verdict
                if time.monotonic() - asked_at > _CLAIM_HOLDS:
                    return self._failed(verdict, Unavailable("claim_too_old", Fate.NEVER_PROCESSED), latency=0.0)
                return await self._call(slot, verdict)
        except ProviderTrouble as trouble:
            hindrance = Hindrance(trouble.reason, self._delay(trouble, activity.info().attempt))
        verdict = await self._begin.ask(Claim(ask.task_id, hindrance))
        return Waiting(hindrance) if isinstance(verdict, Go) else verdict

    async def _call(self, slot: Slot, go: Go) -> _Called:
        started = time.monotonic()
        try:
            answer = await slot.send(go.push)
        except ProviderTrouble as trouble:
            return self._failed(go, trouble, time.monotonic() - started)
        return _Called(_answered(go, answer, time.monotonic() - started))

    def _failed(self, go: Go, trouble: ProviderTrouble, latency: float) -> _Called:
        delay = self._delay(trouble, go.number)
        return _Called(_trouble(go, trouble, delay, latency), delay)

    async def _record(self, outcome: Outcome) -> None:
        """Store an outcome; the provider has acted, so a database in trouble is asked again for a while."""
        for wait in (0.1, 0.5, 2.0):
            try:
                await self._end.ask(outcome)
            except Exception as error:  # noqa: BLE001 -- whatever ails the database
                log.warning("outcome not stored yet", task_id=str(outcome.update.task_id), error=type(error).__name__)
                await asyncio.sleep(wait)
            else:
                return
        await self._end.ask(outcome)

    def _delay(self, trouble: ProviderTrouble, attempt: int) -> timedelta:
        return _BACK_OFFS[type(trouble)].delay(attempt, self._chance(), trouble.retry_after)


async def _hold(ask: SendPush) -> None:
    """Wait for the due instant; hand over at once when this worker shuts down.

    All three times come from the server's clock, so this worker's own may be wrong.
    """
    info = activity.info()
    left = ask.hold_seconds - (info.started_time - info.scheduled_time).total_seconds()
    if left <= 0:
        return
    try:
        await asyncio.wait_for(activity.wait_for_worker_shutdown(), left)
    except TimeoutError:
        return
    raise _again("worker_shutdown", _HAND_OVER)


def _again(reason: str, delay: timedelta) -> ApplicationError:
    """Ask Temporal for a retry after `delay`; expected trouble, so nobody is alarmed."""
    return ApplicationError(reason, next_retry_delay=delay, category=ApplicationErrorCategory.BENIGN)


def _answered(go: Go, answer: Answer, latency: float) -> Outcome:
    match answer:
        case Accepted(provider_id):
            return _outcome(go, TaskState.ACCEPTED, None, latency, provider_id=provider_id)
        case Rejected(reason):
            return _outcome(go, TaskState.REJECTED, reason, latency)
        case Unregistered(reason, since):
            return _outcome(go, TaskState.UNREGISTERED, reason, latency, dead_since=since or go.began_at)
        case _:
            assert_never(answer)


def _outcome(
    go: Go,
    state: TaskState,
    reason: str | None,
    latency: float,
    *,
    provider_id: str | None = None,
    dead_since: datetime | None = None,
) -> Outcome:
    dead_token = None if dead_since is None else (go.device_id, go.push.token, dead_since)
    return Outcome(
        Ended(go.push.attempt_id, state.value, reason, _milliseconds(latency), provider_id),
        Update(go.push.task_id, state, reason),
        dead_token,
    )


def _trouble(go: Go, trouble: ProviderTrouble, delay: timedelta, latency: float) -> Outcome:
    match trouble:
        case Unavailable(fate=Fate.UNKNOWN):
            word = "unknown"
        case Throttled():
            word = "throttled"
        case Misconfigured():
            word = "misconfigured"
        case _:
            word = "unavailable"
    return Outcome(
        Ended(go.push.attempt_id, word, trouble.reason, _milliseconds(latency), None),
        Update(go.push.task_id, TaskState.PENDING, trouble.reason, next_attempt_at=go.began_at + delay),
    )


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
