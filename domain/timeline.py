"""A person's timeline: what was decided about their pushes, when, and why; derived from the tables."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from domain.kinds import Kind
from domain.push import Provider


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
class Part:
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
