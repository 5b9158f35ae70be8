"""Notification preferences: what a person wants to be told, and how."""

from datetime import time
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field, StrictBool
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import AnyCaller, Database, RowWrites
from api.fields import Body, ReminderMinutes, TimeZone
from api.problems import responses
from db import preferences
from domain.preferences import Preferences, Preview
from domain.problems import InvalidField
from domain.quiet_hours import QuietHours
from domain.sessions import DEFAULT_REMINDER_MINUTES

router = APIRouter(prefix="/v1/notification-preferences", tags=["preferences"])

ClockTime = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", examples=["22:00"])]


class QuietHoursBody(Body):
    """A daily span of local time in which phones stay silent; over midnight when it ends before it starts."""

    starts: ClockTime
    ends: ClockTime
    time_zone: TimeZone


class PreferencesBody(Body):
    """All preferences; PUT replaces them, and what is left out gets its default."""

    reminders: StrictBool = True
    reminder_minutes: ReminderMinutes = DEFAULT_REMINDER_MINUTES
    messages: StrictBool = True
    reminder_preview: Preview = Preview.FULL
    message_preview: Preview = Preview.GENERIC
    quiet_hours: QuietHoursBody | None = None


@router.get("", responses=responses())
async def read(caller: AnyCaller, sessions: Database) -> PreferencesBody:
    """Read the caller's preferences."""
    async with sessions() as db:
        return _body(await preferences.of_user(db, caller.user_id))


@router.put("", responses=responses())
async def replace(body: PreferencesBody, caller: AnyCaller, writes: RowWrites) -> PreferencesBody:
    """Replace the caller's preferences; they hold for pushes from now on, waiting ones included."""
    wanted = _preferences(body)

    async def store(db: AsyncSession) -> None:
        await preferences.store(db, caller.user_id, wanted)

    await writes.run(store, f"preferences/{caller.user_id}")
    return _body(wanted)


def _preferences(body: PreferencesBody) -> Preferences:
    quiet = None
    if body.quiet_hours is not None:
        starts, ends = time.fromisoformat(body.quiet_hours.starts), time.fromisoformat(body.quiet_hours.ends)
        if starts == ends:
            raise InvalidField("quiet_hours.ends", "Quiet hours must end at another time than they start.")
        quiet = QuietHours(starts, ends, body.quiet_hours.time_zone)
    return Preferences(**body.model_dump(exclude={"quiet_hours"}), quiet_hours=quiet)


def _body(wanted: Preferences) -> PreferencesBody:
    quiet = wanted.quiet_hours
    return PreferencesBody(
        reminders=wanted.reminders,
        reminder_minutes=wanted.reminder_minutes,
        messages=wanted.messages,
        reminder_preview=wanted.reminder_preview,
        message_preview=wanted.message_preview,
        quiet_hours=quiet
        and QuietHoursBody(starts=f"{quiet.starts:%H:%M}", ends=f"{quiet.ends:%H:%M}", time_zone=quiet.time_zone),
    )
