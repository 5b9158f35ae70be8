"""What an unsettled push waits for at this moment: facts in, one obstacle out. And the items of a timeline."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from domain.kinds import Kind
from domain.push import Provider

A_MOMENT = timedelta(seconds=5)  # in which live workers begin what has become due
CALL_LASTS = timedelta(seconds=16)  # after this long a call without an outcome has lost its worker
MAX_PRESENT = 50  # lines about one person; the longest due first


class WaitsFor(StrEnum):
    """What has to happen before a push is sent or given up."""

    CHECK = "check"  # it will be withdrawn at its next check
    EXPIRY = "expiry"  # it has expired, which is not recorded yet
    RESUME = "resume"  # the token-error cutoff is engaged: an operator has to resume the route
    REDRIVE = "redrive"  # it is dead, and a person may redrive it
    ANSWER = "answer"  # its provider is being called
    WORKER = "worker"  # no worker is alive
    TEMPORAL = "temporal"  # its dispatch is waiting, or Temporal does not answer
    ROUTE = "route"  # the breaker is open
    RETRY = "retry"  # an error of its own, such as too many pushes to this phone
    DUE = "due"  # its due instant
    TAKEOVER = "takeover"  # the worker that holds it shows no life: another one takes it over
    TURN = "turn"  # it is late without a known obstacle
    NOTHING = "nothing"  # it is being sent at this moment


@dataclass(frozen=True, slots=True)
class Cutoff:
    """An engaged token-error cutoff."""

    brake_id: str
    engaged_at: datetime
    token_errors: int
    answers: int
    reason: str  # the most frequent one


@dataclass(frozen=True, slots=True)
class RouteNow:
    """The state of the route of a push."""

    cutoff: Cutoff | None = None
    reason: str | None = None  # why the breaker is open; None: calls pass
    until: datetime | None = None  # end of the pause; None: one call is tried


@dataclass(frozen=True, slots=True)
class Unsettled:
    """What is known of an unsettled push."""

    now: datetime
    due_at: datetime
    expires_at: datetime
    next_attempt_at: datetime | None
    last_reason: str | None
    is_dead: bool
    refused: str | None  # why the last check would not let it pass now
    call_since: datetime | None  # a call without an outcome
    owed_since: datetime | None  # its dispatch to Temporal has been waiting
    workers: int  # alive
    temporal_answers: bool  # as far as the workers know
    route: RouteNow
    holder_is_lost: bool = False  # the worker in which it waits shows no life


def waits_for(push: Unsettled) -> WaitsFor:
    """Give the obstacle that has to be removed first."""
    if push.is_dead:
        return WaitsFor.RESUME if push.route.cutoff else WaitsFor.REDRIVE
    if push.expires_at <= push.now:
        return WaitsFor.EXPIRY
    if push.refused:
        return WaitsFor.CHECK
    if push.call_since is not None and abs(push.now - push.call_since) < CALL_LASTS:
        return WaitsFor.ANSWER
    return _obstacle(push) or _by_the_clock(push)


def _obstacle(push: Unsettled) -> WaitsFor | None:
    """Give an obstacle that also holds up others."""
    if push.route.cutoff:
        return WaitsFor.RESUME
    if not push.workers:
        return WaitsFor.WORKER
    if not push.temporal_answers or (push.owed_since is not None and push.owed_since + A_MOMENT <= push.now):
        return WaitsFor.TEMPORAL
    opens_at = max(push.route.until or push.now, push.now)
    return WaitsFor.ROUTE if push.route.reason is not None and push.due_at <= opens_at else None


def _by_the_clock(push: Unsettled) -> WaitsFor:
    if push.due_at > push.now:
        return WaitsFor.DUE
    if push.next_attempt_at is not None and push.next_attempt_at > push.now:
        return WaitsFor.RETRY if push.last_reason else WaitsFor.NOTHING
    if push.holder_is_lost:
        return WaitsFor.TAKEOVER
    late_since = max(push.due_at, push.next_attempt_at or push.due_at)
    return WaitsFor.TURN if late_since + A_MOMENT <= push.now else WaitsFor.NOTHING


def next_try(push: Unsettled) -> datetime | None:
    """Give the next try, if it is known, in the future, and before the push expires.

    While its route is paused the push is checked but not tried.
    """
    planned = push.next_attempt_at or push.due_at
    not_before = push.now if push.route.until is None else max(push.now, push.route.until)
    return planned if push.now < planned < push.expires_at and planned >= not_before else None


class Event(StrEnum):
    """What happened."""

    REGISTERED = "registered"  # these seven: a device token
    REACTIVATED = "reactivated"
    ROTATED = "rotated"
    TRANSFERRED = "transferred"
    SIGNED_OUT = "signed_out"
    INVALIDATED = "invalidated"
    PERMISSION_TOLD = "permission_told"  # whether the phone shows notifications, when that changes
    FAST_STARTED = "fast_started"
    GOAL_MOVED = "goal_moved"
    FAST_COMPLETED = "fast_completed"
    FAST_BROKEN = "fast_broken"
    FAST_CANCELLED = "fast_cancelled"
    WITHHELD = "withheld"  # no push was planned, for any phone or for one
    WAITS = "waits"  # the present: an unsettled push, and what it waits for
    UNOPENED = "unopened"  # a reminder is due, without a planned or withheld push
    PLANNED = "planned"
    ATTEMPTED = "attempted"  # a provider call began; with a reason: it was not made
    ANSWERED = "answered"
    ACCEPTED = "accepted"  # this, and the five from `rejected` on: how a push ended
    OPENED = "opened"
    SYNCED = "synced"
    REJECTED = "rejected"
    UNREGISTERED = "unregistered"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    DEAD = "dead"
    REDRIVEN = "redriven"
    TEST_PUSH = "test_push"
    OTHER = "other"  # an event that this release does not know


@dataclass(frozen=True, slots=True)
class TimelinePart:
    """A part of a timeline; None: all of it."""

    session_id: UUID | None = None
    message_id: UUID | None = None
    at_from: datetime | None = None
    at_to: datetime | None = None  # not included
    message_ids: tuple[UUID, ...] | None = None  # in place of one, several


@dataclass(frozen=True, slots=True)
class Happening:
    """An event to put into words."""

    event: Event
    kind: Kind | None  # of the push
    provider: Provider | None
    installation_id: UUID | None
    reminder_minutes: int | None
    reason: str | None
    detail: dict[str, Any]
    now: datetime  # when it is read


@dataclass(frozen=True, slots=True)
class TimelineItem:
    """One event; without tokens and texts of messages."""

    id: UUID  # stable; orders events of one instant
    at: datetime
    event: Event
    text: str  # a sentence that can be read out
    session_id: UUID | None
    conversation_id: UUID | None
    message_id: UUID | None
    task_id: UUID | None
    installation_id: UUID | None
    provider: Provider | None
    reason: str | None
    detail: dict[str, Any]  # by event (docs/support.md)
