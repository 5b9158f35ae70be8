"""Notification preferences."""

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from db.engine import among
from db.models import PreferencesRow
from domain.preferences import Preferences, Preview
from domain.quiet_hours import QuietHours


async def of_user(db: AsyncSession, user_id: str) -> Preferences:
    """Read a person's preferences; the defaults where none were set."""
    return (await of_users(db, [user_id])).get(user_id, Preferences())


async def of_users(db: AsyncSession, user_ids: Iterable[str]) -> dict[str, Preferences]:
    """Read the preferences of those who set any."""
    query = select(PreferencesRow).where(among(PreferencesRow.user_id, user_ids))
    return {row.user_id: _preferences(row) for row in await db.scalars(query)}


async def store(db: AsyncSession, user_id: str, preferences: Preferences) -> None:
    """Replace a person's preferences."""
    quiet = preferences.quiet_hours
    values = {
        "reminders": preferences.reminders,
        "reminder_minutes": preferences.reminder_minutes,
        "messages": preferences.messages,
        "reminder_preview": preferences.reminder_preview,
        "message_preview": preferences.message_preview,
        "quiet_starts": quiet and quiet.starts,
        "quiet_ends": quiet and quiet.ends,
        "quiet_time_zone": quiet and quiet.time_zone,
    }
    query = insert(PreferencesRow).values(user_id=user_id, **values)
    await db.execute(query.on_conflict_do_update(index_elements=["user_id"], set_=values))


def _preferences(row: PreferencesRow) -> Preferences:
    quiet = None
    if row.quiet_starts is not None and row.quiet_ends is not None and row.quiet_time_zone is not None:
        quiet = QuietHours(row.quiet_starts, row.quiet_ends, row.quiet_time_zone)
    return Preferences(
        reminders=row.reminders,
        reminder_minutes=row.reminder_minutes,
        messages=row.messages,
        reminder_preview=Preview(row.reminder_preview),
        message_preview=Preview(row.message_preview),
        quiet_hours=quiet,
    )
