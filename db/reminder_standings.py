"""How the reminders of fasting sessions stand: the rules of `domain/reminders.py`, on what is on record."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from db import push_tasks, withheld_pushes
from db.engine import present_instant
from domain.reminders import OnRecord, Reminder, ReminderState, message_id, reminders, state_of
from domain.sessions import FastingSession


@dataclass(frozen=True, slots=True)
class Standing:
    """How one reminder stands."""

    session_id: UUID
    message_id: UUID
    reminder: Reminder
    state: ReminderState
    found: OnRecord
    now: datetime  # when it stood so


async def of_sessions(db: AsyncSession, sessions: Sequence[FastingSession]) -> dict[UUID, list[Standing]]:
    """Say how each reminder of these sessions stands, in order of time for each session."""
    tasks = await push_tasks.counts_by_message(db, [session.session_id for session in sessions])
    now = await present_instant(db)
    named = {session.session_id: _named(session) for session in sessions}
    due = [message for each in named.values() for message, reminder in each.items() if reminder.due_at <= now]
    undecided = [message for message in due if message not in tasks]
    withheld = await withheld_pushes.counts_by_message(db, undecided) if undecided else {}

    def standing(session: FastingSession, message: UUID, reminder: Reminder) -> Standing:
        found = OnRecord(tasks.get(message, {}), withheld.get(message, 0))
        state = state_of(session, reminder, found, now)
        return Standing(session.session_id, message, reminder, state, found, now)

    return {
        session.session_id: [standing(session, *each) for each in named[session.session_id].items()]
        for session in sessions
    }


def _named(session: FastingSession) -> dict[UUID, Reminder]:
    return {message_id(session.session_id, each.minutes, each.due_at): each for each in reminders(session)}
