"""Fasts and their reminders: the rules for their times, when each reminder is due and expires, and their states."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID, uuid5

from domain.problems import Conflict, InvalidField
from domain.push import FAILED, TaskState
from domain.timeline import CALL_LASTS

FIRST_REV = 1
LONGEST_FAST = timedelta(days=21)
EARLIEST_START = timedelta(days=1)  # how far ahead a fast may start
MAX_REMINDERS = 5
MAX_REMINDER_MINUTES = 1440
MAX_LABELS = 10
LONGEST_LABEL = 100  # characters
LABEL_NAME = re.compile(r"[A-Za-z0-9_-]{1,50}")
AFTER_THE_END = timedelta(minutes=15)  # how long a reminder at the end of a fast is useful
LEAST_KEPT = timedelta(days=2)  # the least that RETENTION_DAYS may be, so push tasks are kept this long
LONGEST_USEFUL = timedelta(minutes=MAX_REMINDER_MINUTES) + AFTER_THE_END  # from the due instant on
DERIVED = 5  # the version of UUIDs that are derived from others, as those of reminders' messages
_NO_HASTE = timedelta(minutes=10)
ARM_LEAD = 2.0  # seconds before the due instant at which arming starts at the latest


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


class ReminderState(StrEnum):
    """The state of one reminder of a session in the API."""

    SCHEDULED = "scheduled"
    SKIPPED = "skipped"  # it was already past when it was set
    DUE = "due"  # it is due, and no push of it is accepted yet
    SENT = "sent"  # a provider accepted it for at least one device
    WITHDRAWN = "withdrawn"  # the session had ended, it was not wanted, or there was no phone
    DEAD = "dead"  # a push of it is dead, or it expired without being opened
    REJECTED = "rejected"  # this and the next two: the state of its push tasks, none of which is dead
    EXPIRED = "expired"
    UNREGISTERED = "unregistered"  # the token of each phone was refused
    PAST = "past"  # long ago, and its push tasks are deleted


@dataclass(frozen=True, slots=True)
class Reminder:
    """Something due `minutes` before a session's end."""

    minutes: int
    due_at: datetime
    expires_at: datetime  # when the next reminder is due, or the fast is over


def reminders(session: FastingSession) -> tuple[Reminder, ...]:
    """List the session's reminders in order of time, skipped ones included."""
    listed: list[Reminder] = []
    expires_at = session.ends_at + AFTER_THE_END
    for minutes in sorted(session.reminder_minutes):
        due_at = session.ends_at - timedelta(minutes=minutes)
        listed.append(Reminder(minutes, due_at, expires_at if minutes == 0 else min(expires_at, session.ends_at)))
        if minutes not in session.late_minutes:  # a reminder that is never sent ends no other
            expires_at = due_at
    return tuple(reversed(listed))


def upcoming(session: FastingSession) -> tuple[Reminder, ...]:
    """List the reminders that were not yet due when they were set."""
    return tuple(reminder for reminder in reminders(session) if not is_skipped(session, reminder))


def is_skipped(session: FastingSession, reminder: Reminder) -> bool:
    """Tell whether the reminder was already past when it was set."""
    return reminder.minutes in session.late_minutes or reminder.due_at <= session.scheduled_at


def rescheduled(before: FastingSession, after: FastingSession, now: datetime) -> FastingSession:
    """Set the changed session's reminders.

    A moved goal sets all of them again. Otherwise earlier ones stay as they were, even if they are due now, and one
    that is added too late is skipped.
    """
    if after.ends_at != before.ends_at:
        return replace(after, scheduled_at=now, late_minutes=())
    kept = set(before.reminder_minutes) - set(before.late_minutes)
    added = [reminder for reminder in reminders(after) if reminder.minutes not in kept]
    return replace(after, late_minutes=tuple(each.minutes for each in added if each.due_at <= now))


def needed_at(before: FastingSession | None, after: FastingSession, now: datetime) -> datetime:
    """Say when Temporal has to know of a change: before the next reminder that it sets, moves or cancels is due.

    If none lies ahead, the change can wait behind others. The database is checked before each send in any case.
    """
    states = [session for session in (before, after) if session is not None and session.status is SessionStatus.ACTIVE]
    ahead = [reminder.due_at for session in states for reminder in upcoming(session) if reminder.due_at > now]
    return min(ahead, default=now + _NO_HASTE)


def message_id(session_id: UUID, minutes: int, due_at: datetime) -> UUID:
    """Derive the message id of one reminder at one due instant."""
    return uuid5(session_id, f"reminder/{minutes}/{due_at.timestamp():.6f}")


def arm_seconds(session_id: UUID, arm_window: float) -> float:
    """Say how long before the due instant a session's reminders are armed: spread over the window, in seconds.

    Zero when the window is zero: everything starts at the due instant.
    """
    if arm_window <= 0:
        return 0.0
    spread = int.from_bytes(hashlib.blake2b(session_id.bytes, digest_size=4).digest()) / 2**32
    return round(ARM_LEAD + spread * arm_window, 3)


@dataclass(frozen=True, slots=True)
class OnRecord:
    """What is on record about one reminder: nothing before it is opened."""

    tasks: Mapping[TaskState, int]  # how many push tasks of it are in each state
    withheld: int  # decisions not to push it


def state_of(session: FastingSession, reminder: Reminder, record: OnRecord, now: datetime) -> ReminderState:
    """Derive a reminder's state from the session and from what is on record."""
    tasks = record.tasks
    if tasks.get(TaskState.ACCEPTED):
        return ReminderState.SENT
    if tasks.get(TaskState.PENDING) and session.status is SessionStatus.ACTIVE:
        return _pending(reminder, now, lasts=CALL_LASTS)
    failed = next((state for state in FAILED if tasks.get(state)), None)
    if failed is not None and not tasks.get(TaskState.PENDING):
        return ReminderState(failed)
    if is_skipped(session, reminder):
        return ReminderState.SKIPPED
    if not tasks and reminder.expires_at <= now - LEAST_KEPT:
        return ReminderState.PAST
    if tasks or record.withheld or (session.ended_at is not None and session.ended_at < reminder.expires_at):
        return ReminderState.WITHDRAWN
    return _pending(reminder, now, lasts=timedelta())


def _pending(reminder: Reminder, now: datetime, *, lasts: timedelta) -> ReminderState:
    """Decide by the clock; an expired one is dead once a last call could end, even if no worker has recorded it."""
    if reminder.expires_at + lasts <= now:
        return ReminderState.DEAD
    return ReminderState.DUE if reminder.due_at <= now else ReminderState.SCHEDULED
