"""Reminders: when each is due, when it expires, and its state."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID, uuid5

from domain.push import FAILED, TaskState
from domain.sessions import MAX_REMINDER_MINUTES, FastingSession, SessionStatus
from domain.timeline import CALL_LASTS

AFTER_THE_END = timedelta(minutes=15)  # how long a reminder at the end of a fast is useful
LEAST_KEPT = timedelta(days=2)  # the least that RETENTION_DAYS may be, so push tasks are kept this long
LONGEST_USEFUL = timedelta(minutes=MAX_REMINDER_MINUTES) + AFTER_THE_END  # from the due instant on
DERIVED = 5  # the version of UUIDs that are derived from others, as those of reminders' messages
_NO_HASTE = timedelta(minutes=10)
ARM_LEAD = 2.0  # seconds before the due instant at which arming starts at the latest


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
