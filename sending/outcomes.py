"""What a provider call came to, as it is recorded: one transaction for many attempts at once."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import assert_never
from uuid import UUID

from activities.judging import Go
from activities.retries import GIVES_WAY
from db import brakes, collapse_groups, device_tokens, held_rows, log, push_attempts, push_tasks, revivals
from db.collapse_groups import Sounding
from db.engine import Sessions, wait_briefly_for_locks
from db.push_attempts import Ended, Uncalled
from db.push_tasks import Update
from domain.push import Route, TaskState
from push.sender import (
    Accepted,
    Answer,
    Doubtful,
    Fate,
    Foreign,
    Misconfigured,
    ProviderTrouble,
    Rejected,
    Throttled,
    Unavailable,
    Unregistered,
)

UNSTORABLE = "unstorable_answer"


@dataclass(frozen=True, slots=True)
class DeadToken:
    """A token to deactivate by comparing."""

    route: Route
    device_id: UUID
    token: str = field(repr=False)
    since: datetime
    reason: str

    @property
    def named(self) -> device_tokens.Dead:
        """Name the registration that it was."""
        return device_tokens.Dead(self.device_id, self.token, self.since, self.reason)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one attempt came to, and how its task stands now."""

    ended: Ended | Uncalled
    update: Update
    token_refused_on: Route | None = None
    dead_tokens: tuple[DeadToken, ...] = ()
    sounding: Sounding | None = None

    @property
    def was_heard(self) -> bool:
        """Whether the phone has rung, for all that is known."""
        return isinstance(self.ended, Ended) and self.ended.outcome in {"accepted", "unknown"}


def answered(go: Go, answer: Answer, latency: float, dead_tokens: tuple[DeadToken, ...]) -> Outcome:
    """Record an answer that settles the push; `latency` is in seconds."""
    match answer:
        case Accepted(provider_id):
            validated = "validated" if go.push.validate_only else None
            update = Update(go.push.task_id, TaskState.ACCEPTED, validated)
            ended = _ended(go, word(answer), validated, latency, provider_id)
            return Outcome(ended, update, dead_tokens=dead_tokens, sounding=go.sounding)
        case Rejected(reason):
            update = Update(go.push.task_id, TaskState.REJECTED, reason)
            return Outcome(_ended(go, word(answer), reason, latency), update, sounding=go.sounding)
        case Unregistered(reason) | Doubtful(reason):
            update = Update(go.push.task_id, TaskState.UNREGISTERED, reason)
            return Outcome(_ended(go, word(answer), reason, latency), update, go.route, dead_tokens, go.sounding)
        case Foreign(reason):
            update = Update(go.push.task_id, TaskState.REJECTED, reason)
            return Outcome(_ended(go, word(answer), reason, latency), update, go.route, sounding=go.sounding)
        case _:
            assert_never(answer)


def failed(go: Go, trouble: ProviderTrouble, latency: float, again: Update) -> Outcome:
    """Record trouble; `again` is how the task stands: when it is to be tried again, if it is.

    If it is not, because the provider asked for more patience than is left, the attempt tells until when.
    """
    if isinstance(trouble, Unavailable) and trouble.fate is Fate.NOT_SENT:
        return Outcome(Uncalled(go.push.attempt_id, go.push.task_id), again, sounding=go.sounding)
    ended = replace(
        _ended(go, word(trouble), trouble.reason, latency),
        retry_at=again.next_attempt_at or _asked_until(go, trouble, latency),
    )
    return Outcome(ended, again, sounding=go.sounding)


def _asked_until(go: Go, trouble: ProviderTrouble, latency: float) -> datetime | None:
    if trouble.retry_after is None or trouble.retry_after <= GIVES_WAY:
        return None
    return go.began_at + timedelta(seconds=latency) + trouble.retry_after


def never_called(attempt_id: UUID, task_id: UUID, why: str) -> Outcome:
    """Record of an attempt, if it was begun at all, that it will come to no call; the push is tried anew."""
    return Outcome(Uncalled(attempt_id, task_id), Update(task_id, TaskState.PENDING, why))


def bare(outcome: Outcome) -> Outcome:
    """Leave out all that is not in our own words, which a database may refuse; what became of the push stays."""
    ended = outcome.ended
    if isinstance(ended, Ended):
        ended = replace(ended, reason=ended.reason and UNSTORABLE, provider_id=None)
    return replace(
        outcome,
        ended=ended,
        update=replace(outcome.update, reason=outcome.update.reason and UNSTORABLE),
        dead_tokens=tuple(replace(dead, reason=UNSTORABLE) for dead in outcome.dead_tokens),
    )


def word(came_to: Answer | ProviderTrouble) -> str:
    """Give the word for what a call came to, in `push_attempts` and in traces."""
    match came_to:
        case Accepted():
            return "accepted"
        case Rejected() | Foreign():
            return "rejected"
        case Unregistered() | Doubtful():
            return "unregistered"
        case Unavailable(fate=Fate.UNKNOWN):
            return "unknown"
        case Throttled():
            return "throttled"
        case Misconfigured():
            return "misconfigured"
        case _:
            return "unavailable"


async def end_attempts(sessions: Sessions, outcomes: Sequence[Outcome]) -> list[TaskState]:
    """Record what calls came to, in one transaction; returns how the tasks stand.

    An attempt without a call is forgotten, and its task counts one less. Dead tokens are deactivated by comparing.
    A push that was refused for a token that its phone has replaced meanwhile goes to the new one; one that would be
    tried again though its phone has read the message meanwhile is withdrawn.
    While a route's brake is engaged none of its tokens is, and a push whose token was refused is dead, so that it can
    be redriven.
    """
    async with sessions.begin() as db:
        await wait_briefly_for_locks(db)
        dead_tokens = [dead for outcome in outcomes for dead in outcome.dead_tokens]
        refused_on = {o.token_refused_on for o in outcomes if o.token_refused_on}
        braked = await brakes.engaged_among(db, refused_on | {dead.route for dead in dead_tokens})
        updates = [
            replace(o.update, state=TaskState.DEAD) if o.token_refused_on in braked else o.update for o in outcomes
        ]
        refused = [update.task_id for update in updates if update.state is TaskState.UNREGISTERED]
        if refused:
            await device_tokens.await_registrations(db, await push_tasks.installations_of(db, refused))
        await push_attempts.forget(db, [o.ended for o in outcomes if isinstance(o.ended, Uncalled)])
        await push_tasks.apply(db, updates)
        await push_attempts.end(db, [o.ended for o in outcomes if isinstance(o.ended, Ended)])
        await log.withdraw_read(db, [update.task_id for update in updates if update.state is TaskState.PENDING])
        await device_tokens.invalidate_all(db, [dead.named for dead in dead_tokens if dead.route not in braked])
        if refused:
            for device in await revivals.registered_meanwhile(db, refused):
                await revivals.revive(db, device)
        await collapse_groups.note_ended(db, {o.sounding: o.was_heard for o in outcomes if o.sounding})
    return [update.state for update in updates]


async def unheld_outcomes(sessions: Sessions, outcomes: Sequence[Outcome]) -> list[bool]:
    """Say of each outcome whether it can be recorded now, as nobody else holds its task."""
    async with sessions.begin() as db:
        free = await held_rows.unheld(db, {outcome.update.task_id for outcome in outcomes})
    return [outcome.update.task_id in free for outcome in outcomes]


async def note_calls(sessions: Sessions, outcomes: Sequence[Outcome]) -> list[None]:
    """Record what calls came to on the attempts alone, where tasks are stuck: no task is sent again for that."""
    uncalled = ("unavailable", "claim_too_old", 0, None)  # an attempt can only be forgotten together with its task
    async with sessions.begin() as db:
        await wait_briefly_for_locks(db)
        await push_attempts.end(
            db, [o.ended if isinstance(o.ended, Ended) else Ended(o.ended.attempt_id, *uncalled) for o in outcomes]
        )
    return [None] * len(outcomes)


def _ended(go: Go, outcome: str, reason: str | None, latency: float, provider_id: str | None = None) -> Ended:
    return Ended(go.push.attempt_id, outcome, reason, round(latency * 1000), provider_id)
