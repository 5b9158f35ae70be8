"""Notification preferences."""

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from db.engine import among
from db.models import PreferencesRow
from db.unreadable import tell, word
from domain.preferences import Preferences, Preview
from domain.quiet_hours import QuietHours
from domain.sessions import readable_minutes
from domain.time_zones import zone


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
    return Preferences(
        reminders=row.reminders,
        reminder_minutes=readable_minutes(row.reminder_minutes),
        messages=row.messages,
        reminder_preview=_preview(row.reminder_preview),
        message_preview=_preview(row.message_preview),
        quiet_hours=_quiet_hours(row),
    )


def _preview(value: str) -> Preview:
    """Read how much a lock screen may show: as little as there is, where that cannot be read."""
    return word(Preview, value, "preferences.preview") or Preview.GENERIC


def _quiet_hours(row: PreferencesRow) -> QuietHours | None:
    """Read quiet hours: none where their time zone cannot be read, since a push is missed for good."""
    if row.quiet_starts is None or row.quiet_ends is None or row.quiet_time_zone is None:
        return None
    if zone(row.quiet_time_zone) is None:
        tell("preferences.quiet_time_zone", row.quiet_time_zone)
        return None
    return QuietHours(row.quiet_starts, row.quiet_ends, row.quiet_time_zone)
