"""Fasting sessions: their states and the rules for their times."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from domain.problems import Conflict, InvalidField

FIRST_REV = 1
LONGEST_FAST = timedelta(days=21)
EARLIEST_START = timedelta(days=1)  # how far ahead a fast may start
MAX_REMINDERS = 5
MAX_REMINDER_MINUTES = 1440
DEFAULT_REMINDER_MINUTES = (30,)
MAX_LABELS = 10
LONGEST_LABEL = 100  # characters
LABEL_NAME = re.compile(r"[A-Za-z0-9_-]{1,50}")


class SessionStatus(StrEnum):
    """The status of a fasting session; every one but ACTIVE is final."""

    ACTIVE = "active"
    COMPLETED = "completed"
    BROKEN = "broken"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class FastingSession:
    """One fast of one user."""

    session_id: UUID
    user_id: str
    started_at: datetime
    ends_at: datetime
    status: SessionStatus
    ended_at: datetime | None
    reminder_minutes: tuple[int, ...]
    scheduled_at: datetime  # when ends_at was last set
    rev: int
    late_minutes: tuple[int, ...] = ()  # those reminders that were added too late
    follows_preferences: bool = False  # its reminder minutes follow its user's preferences
    labels: Mapping[str, str] = field(default_factory=dict, repr=False)  # name -> text, for the app's own texts


def readable_minutes(stored: Iterable[object]) -> tuple[int, ...]:
    """Give the valid ones of stored reminder minutes, each once; an array may hold nulls and arrays."""
    minutes = dict.fromkeys(each for each in stored if isinstance(each, int) and 0 <= each <= MAX_REMINDER_MINUTES)
    return tuple(minutes)[:MAX_REMINDERS]


def readable_labels(stored: object) -> dict[str, str]:
    """Give the valid ones of stored labels."""
    named = stored.items() if isinstance(stored, dict) else ()
    valid = ((name, text) for name, text in named if isinstance(text, str) and len(text) <= LONGEST_LABEL)
    return dict([each for each in valid if LABEL_NAME.fullmatch(str(each[0]))][:MAX_LABELS])


def check_times(started_at: datetime, ends_at: datetime, now: datetime) -> None:
    """Raise InvalidField unless a fast with these times may be accepted at `now`."""
    if ends_at <= now:
        raise InvalidField("ends_at", "A fast must end in the future.")
    if ends_at <= started_at:
        raise InvalidField("ends_at", "A fast must end after it starts.")
    if ends_at - started_at > LONGEST_FAST:
        raise InvalidField("ends_at", "A fast lasts at most 21 days.")
    if started_at > now + EARLIEST_START:
        raise InvalidField("started_at", "A fast may be planned at most 24 hours ahead.")


def finished_status(session: FastingSession, wanted: SessionStatus, now: datetime) -> SessionStatus | None:
    """Give the final status of a session that its user ends (COMPLETED) or cancels (CANCELLED) at `now`.

    None: it has already been finished in that way. Raises Conflict if it was finished in the other way.
    """
    if session.status is SessionStatus.ACTIVE:
        early = wanted is SessionStatus.COMPLETED and now < session.ends_at
        return SessionStatus.BROKEN if early else wanted
    if (session.status is SessionStatus.CANCELLED) == (wanted is SessionStatus.CANCELLED):
        return None
    raise already_finished(session)


def already_finished(session: FastingSession) -> Conflict:
    """Say that a finished session takes no more changes."""
    return Conflict("session-finished", f"This fasting session is {session.status}. It can no longer be changed.")
