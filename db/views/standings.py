"""The state of each reminder of a fast, and which of them were not opened."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid5

from sqlalchemy.ext.asyncio import AsyncSession

from db import fasting_sessions, push_tasks, withheld_pushes
from db.engine import present_instant
from domain.fasts import (
    AFTER_THE_END,
    LEAST_KEPT,
    LONGEST_USEFUL,
    FastingSession,
    OnRecord,
    Reminder,
    ReminderState,
    message_id,
    reminders,
    state_of,
)
from domain.kinds import Kind
from domain.timeline import A_MOMENT, Event, Happening, TimelineItem, TimelinePart
from domain.timeline_words import in_words


@dataclass(frozen=True, slots=True)
class ReminderStanding:
    """The state of one reminder."""

    session_id: UUID
    message_id: UUID
    reminder: Reminder
    state: ReminderState
    record: OnRecord
    now: datetime  # when that was read


async def of_sessions(db: AsyncSession, sessions: Sequence[FastingSession]) -> dict[UUID, list[ReminderStanding]]:
    """Give the state of each reminder of these sessions, in order of time for each session."""
    tasks = await push_tasks.counts_by_message(db, [session.session_id for session in sessions])
    now = await present_instant(db)
    named = {session.session_id: _named(session) for session in sessions}
    due = [message for each in named.values() for message, reminder in each.items() if reminder.due_at <= now]
    undecided = [message for message in due if message not in tasks]
    withheld = await withheld_pushes.counts_by_message(db, undecided) if undecided else {}

    return {
        session.session_id: [
            _standing(session, message, reminder, OnRecord(tasks.get(message, {}), withheld.get(message, 0)), now)
            for message, reminder in named[session.session_id].items()
        ]
        for session in sessions
    }


def of_new(session: FastingSession) -> list[ReminderStanding]:
    """Give the state of each reminder of a session that starts in this transaction: nothing is on record."""
    nothing = OnRecord({}, 0)
    return [_standing(session, *each, nothing, session.scheduled_at) for each in _named(session).items()]


def _standing(
    session: FastingSession, message: UUID, reminder: Reminder, record: OnRecord, now: datetime
) -> ReminderStanding:
    state = state_of(session, reminder, record, now)
    return ReminderStanding(session.session_id, message, reminder, state, record, now)


def _named(session: FastingSession) -> dict[UUID, Reminder]:
    return {message_id(session.session_id, each.minutes, each.due_at): each for each in reminders(session)}


async def of_user(db: AsyncSession, user_id: str, part: TimelinePart) -> list[TimelineItem]:
    """List a user's reminders of this part of the timeline that are due or expired, and were not opened."""
    now = await present_instant(db)
    around = await fasting_sessions.ending(db, user_id, now - LEAST_KEPT - AFTER_THE_END, now + LONGEST_USEFUL)
    sessions = [session for session in around if part.session_id in {None, session.session_id}]
    if not sessions:
        return []
    standings = (await of_sessions(db, sessions)).values()
    unopened = [each for of_one in standings for each in of_one if is_unopened(each)]
    return [unopened_item(each) for each in unopened if part.message_id in {None, each.message_id}]


def is_unopened(standing: ReminderStanding) -> bool:
    """Tell whether a reminder is due without a planned push, and was not withheld."""
    is_late = standing.reminder.due_at <= standing.now - A_MOMENT
    return is_late and not standing.record.tasks and standing.state in {ReminderState.DUE, ReminderState.DEAD}


def unopened_item(standing: ReminderStanding) -> TimelineItem:
    """Describe a reminder that was not opened."""
    reminder = standing.reminder
    detail = {"due_at": reminder.due_at.isoformat(), "expires_at": reminder.expires_at.isoformat()}
    happening = Happening(Event.UNOPENED, Kind.REMINDER, None, None, reminder.minutes, None, detail, standing.now)
    return TimelineItem(
        id=uuid5(standing.message_id, "unopened"),
        at=reminder.due_at,
        event=Event.UNOPENED,
        text=in_words(happening),
        session_id=standing.session_id,
        conversation_id=None,
        message_id=standing.message_id,
        task_id=None,
        installation_id=None,
        provider=None,
        reason=None,
        detail=detail,
    )
