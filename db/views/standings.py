"""Reminders that nobody has opened though they are due, as a timeline tells them: what an outage leaves behind."""

from uuid import uuid5

from sqlalchemy.ext.asyncio import AsyncSession

from db import fasting_sessions, reminder_standings
from db.engine import present_instant
from db.reminder_standings import Standing
from domain.kinds import Kind
from domain.present import A_MOMENT
from domain.reminders import AFTER_THE_END, LEAST_KEPT, LONGEST_OF_USE, ReminderState
from domain.timeline import Event, Happening, Part, TimelineItem
from domain.timeline_words import in_words


async def of_user(db: AsyncSession, user_id: str, part: Part) -> list[TimelineItem]:
    """List somebody's reminders of this part of the timeline that are due, or expired, and that nobody opened."""
    now = await present_instant(db)
    around = await fasting_sessions.ending(db, user_id, now - LEAST_KEPT - AFTER_THE_END, now + LONGEST_OF_USE)
    sessions = [session for session in around if part.session_id in {None, session.session_id}]
    if not sessions:
        return []
    standings = (await reminder_standings.of_sessions(db, sessions)).values()
    unopened = [each for of_one in standings for each in of_one if is_unopened(each)]
    return [_item(each) for each in unopened if part.message_id in {None, each.message_id}]


def is_unopened(standing: Standing) -> bool:
    """Tell whether a reminder is due with no push planned; what was decided against is not due, but withdrawn."""
    is_late = standing.reminder.due_at <= standing.now - A_MOMENT
    return is_late and not standing.found.tasks and standing.state in {ReminderState.DUE, ReminderState.DEAD}


def _item(standing: Standing) -> TimelineItem:
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
