"""Notification preferences."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from db.engine import among, hold_names
from db.models.people import DeviceToken, PreferencesRow
from db.unreadable import log_unreadable, word
from domain.fasts import readable_minutes
from domain.preferences import Preferences, Preview, QuietHours, QuietMode, zone
from domain.problems import InvalidField, Outdated

_FIRST = {name: value for name, value in asdict(Preferences()).items() if name != "quiet_hours"}


async def of_user(db: AsyncSession, user_id: str) -> Preferences:
    """Read a person's preferences; the defaults where none were set."""
    return (await of_users(db, [user_id])).get(user_id, Preferences())


async def of_users(db: AsyncSession, user_ids: Iterable[str]) -> dict[str, Preferences]:
    """Read the preferences of those who have set any."""
    query = select(PreferencesRow).where(among(PreferencesRow.user_id, user_ids))
    return await of_rows(db, await db.scalars(query))


async def of_rows(db: AsyncSession, rows: Iterable[PreferencesRow]) -> dict[str, Preferences]:
    """Give the preferences that these rows hold, by user."""
    stored = {row.user_id: _preferences(row) for row in rows}
    for user_id, fallback in (await _fallback_zones(db, stored)).items():
        quiet = stored[user_id].quiet_hours
        assert quiet is not None
        stored[user_id] = replace(stored[user_id], quiet_hours=replace(quiet, fallback_zone=fallback))
    return stored


def lock_of(user_id: str) -> str:
    """Name the lock of a person's preferences: who holds it can start a fast that follows them, or change them."""
    return f"preferences/{user_id}"


async def update(
    db: AsyncSession,
    user_id: str,
    change: Callable[[Preferences], Mapping[str, Any]],
    revs: Collection[str] | None = None,
) -> Preferences:
    """Change a person's preferences, locked until the transaction ends; gives the new ones.

    `change` gets the stored ones, and gives the fields to set. A column that keeps its value is not written, so that a
    value of a newer release stays. Raises Outdated if the stored revision is none of `revs` (None: any will do), unless
    the change alters nothing: then a client repeats what is stored.
    """
    await hold_names(db, [lock_of(user_id)])  # whether there is a row or not
    row = await _locked(db, user_id)
    before = _preferences(row)
    is_newest = revs is None or str(before.rev) in revs
    try:
        wanted = change(before)
    except InvalidField as error:
        if is_newest:
            raise
        raise _outdated(before) from error  # it may be valid for what the client has read
    for name, value in wanted.items():
        if name == "quiet_hours":
            _set_quiet_hours(row, before.quiet_hours, value)
        else:
            setattr(row, name, value)
    is_altered = db.is_modified(row)
    if is_altered and not is_newest:
        raise _outdated(before)
    if is_altered or (wanted and is_newest and row.rev == 0):
        row.rev += 1
    await db.flush()
    return _preferences(row)


def _outdated(stored: Preferences) -> Outdated:
    detail = f"The newest revision is {stored.rev}. Read it, then change that."
    return Outdated("preferences-changed", detail)


async def _locked(db: AsyncSession, user_id: str) -> PreferencesRow:
    """Lock a person's row; if there was none, it gets the defaults and revision 0."""
    query = select(PreferencesRow).where(PreferencesRow.user_id == user_id).with_for_update()
    row = await db.scalar(query)
    if row is None:
        await db.execute(insert(PreferencesRow).values(user_id=user_id, **_FIRST).on_conflict_do_nothing())
        row = (await db.scalars(query)).one()
    return row


def _set_quiet_hours(row: PreferencesRow, before: QuietHours | None, wanted: QuietHours | None) -> None:
    if wanted is None:
        row.quiet_starts = row.quiet_ends = row.quiet_time_zone = row.quiet_mode = None
        return
    row.quiet_starts, row.quiet_ends, row.quiet_time_zone = wanted.starts, wanted.ends, wanted.time_zone
    if before is None or wanted.mode is not before.mode:
        row.quiet_mode = wanted.mode


async def _fallback_zones(db: AsyncSession, stored: Mapping[str, Preferences]) -> dict[str, str]:
    """Give, for users whose quiet hours follow each phone, the time zone of their last seen phone that has one."""
    user_ids = [
        user_id
        for user_id, each in stored.items()
        if each.quiet_hours is not None and each.quiet_hours.time_zone is None
    ]
    return await _zones_seen_last(db, user_ids) if user_ids else {}


async def _zones_seen_last(db: AsyncSession, user_ids: Collection[str]) -> dict[str, str]:
    query = (
        select(DeviceToken.user_id, DeviceToken.time_zone)
        .where(among(DeviceToken.user_id, user_ids), DeviceToken.time_zone.is_not(None))
        .group_by(DeviceToken.user_id, DeviceToken.time_zone)
        .order_by(func.max(DeviceToken.last_seen_at))
    )
    return {row.user_id: row.time_zone for row in await db.execute(query) if zone(row.time_zone) is not None}


def _preferences(row: PreferencesRow) -> Preferences:
    return Preferences(
        reminders=row.reminders,
        reminder_minutes=readable_minutes(row.reminder_minutes),
        messages=row.messages,
        reminder_preview=_preview(row.reminder_preview),
        message_preview=_preview(row.message_preview),
        quiet_hours=_quiet_hours(row),
        rev=row.rev,
    )


def _preview(value: str) -> Preview:
    """Read how much a lock screen may show: the least if that cannot be read."""
    return word(Preview, value, "preferences.preview") or Preview.GENERIC


def _quiet_hours(row: PreferencesRow) -> QuietHours | None:
    """Read quiet hours: none if their time zone cannot be read, since a withheld push is missed for good."""
    if row.quiet_starts is None or row.quiet_ends is None:
        return None
    if row.quiet_time_zone is not None and zone(row.quiet_time_zone) is None:
        log_unreadable("preferences.quiet_time_zone", row.quiet_time_zone)
        return None
    return QuietHours(row.quiet_starts, row.quiet_ends, row.quiet_time_zone, _mode(row.quiet_mode))


def _mode(value: str | None) -> QuietMode:
    """Read the mode: `withhold` if an old release stored it, which knew no other."""
    if value is None:
        return QuietMode.WITHHOLD
    return word(QuietMode, value, "preferences.quiet_mode") or QuietMode.SILENT
