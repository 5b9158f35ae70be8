"""What a push that is not settled waits for, at this moment: facts in, one obstacle out."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from domain.kinds import Kind
from domain.push import Provider

A_MOMENT = timedelta(seconds=5)  # in which workers that are there take up what has come due

CALL_LASTS = timedelta(seconds=16)  # after so long a call without an outcome has lost its worker

MAX_PRESENT = 50  # lines about one person; the longest due come first


class WaitsFor(StrEnum):
    """What has to happen before a push goes out, or is given up."""

    CHECK = "check"  # it will be withdrawn at its next check
    EXPIRY = "expiry"  # it has expired, and nobody has noted that yet
    RESUME = "resume"  # the token-error cutoff is engaged: an operator has to resume the route
    REDRIVE = "redrive"  # it is dead, and a person may redrive it
    ANSWER = "answer"  # its provider is being called
    WORKER = "worker"  # no worker is alive
    TEMPORAL = "temporal"  # Temporal has not taken it, or does not answer
    ROUTE = "route"  # the breaker is open
    RETRY = "retry"  # trouble of its own, such as too many pushes to this phone
    DUE = "due"  # its due instant
    TURN = "turn"  # nothing known holds it up, and yet it is late
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
    """How the route of a push stands."""

    cutoff: Cutoff | None = None
    reason: str | None = None  # why the breaker is open; None: calls pass
    until: datetime | None = None  # while it rests; None: one call is tried


@dataclass(frozen=True, slots=True)
class Unsettled:
    """What is known of a push that is not settled."""

    now: datetime
    due_at: datetime
    expires_at: datetime
    next_attempt_at: datetime | None
    last_reason: str | None
    is_dead: bool
    refused: str | None  # why the check would not let it go out now
    call_since: datetime | None  # a call without an outcome
    owed_since: datetime | None  # Temporal is owed a dispatch of it
    workers: int  # alive
    temporal_answers: bool  # as far as the workers know
    route: RouteNow


def waits_for(push: Unsettled) -> WaitsFor:
    """Name the obstacle that has to go first."""
    if push.is_dead:
        return WaitsFor.RESUME if push.route.cutoff else WaitsFor.REDRIVE
    if push.expires_at <= push.now:
        return WaitsFor.EXPIRY
    if push.refused:
        return WaitsFor.CHECK
    if push.call_since is not None and push.call_since + CALL_LASTS > push.now:
        return WaitsFor.ANSWER
    return _obstacle(push) or _by_the_clock(push)


def _obstacle(push: Unsettled) -> WaitsFor | None:
    """Name what holds up others, too."""
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
    late_since = max(push.due_at, push.next_attempt_at or push.due_at)
    return WaitsFor.TURN if late_since + A_MOMENT <= push.now else WaitsFor.NOTHING


def next_try(push: Unsettled) -> datetime | None:
    """Say when it is tried next, where that is known, lies ahead, and comes before it expires.

    While its route rests it is only looked at, not tried.
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
    PERMISSION_TOLD = "permission_told"  # whether the phone shows notifications, where that is news
    FAST_STARTED = "fast_started"
    GOAL_MOVED = "goal_moved"
    FAST_COMPLETED = "fast_completed"
    FAST_BROKEN = "fast_broken"
    FAST_CANCELLED = "fast_cancelled"
    WITHHELD = "withheld"  # no push was planned, for any phone or for one
    WAITS = "waits"  # stands for the present: a push that is not settled, and what it waits for
    UNOPENED = "unopened"  # a reminder is due, and neither was a push planned nor withheld
    PLANNED = "planned"
    ATTEMPTED = "attempted"  # a provider call began; with a reason: none was made
    ANSWERED = "answered"
    ACCEPTED = "accepted"  # this, and the five from `rejected` on: what a push came to
    OPENED = "opened"
    SYNCED = "synced"
    REJECTED = "rejected"
    UNREGISTERED = "unregistered"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    DEAD = "dead"
    REDRIVEN = "redriven"
    TEST_PUSH = "test_push"
    OTHER = "other"  # something that this release does not know


@dataclass(frozen=True, slots=True)
class TimelinePart:
    """Which part of a timeline is meant; None: all of it."""

    session_id: UUID | None = None
    message_id: UUID | None = None
    at_from: datetime | None = None
    at_to: datetime | None = None  # itself not included


@dataclass(frozen=True, slots=True)
class Happening:
    """What is put into words."""

    event: Event
    kind: Kind | None  # of the push
    provider: Provider | None
    installation_id: UUID | None
    reminder_minutes: int | None
    reason: str | None
    detail: dict[str, Any]
    now: datetime  # when it is told


@dataclass(frozen=True, slots=True)
class TimelineItem:
    """One thing that happened; never a token, never a message's text."""

    id: UUID  # stable; orders what happened at one instant
    at: datetime
    event: Event
    text: str  # in words that can be read out
    session_id: UUID | None
    conversation_id: UUID | None
    message_id: UUID | None
    task_id: UUID | None
    installation_id: UUID | None
    provider: Provider | None
    reason: str | None
    detail: dict[str, Any]  # what else is known, by event (docs/support.md)
