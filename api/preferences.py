"""Notification preferences: what a person wants to be told, and how."""

import re
from collections.abc import Callable, Mapping
from datetime import time
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from pydantic import BaseModel, Field, StrictBool
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import AnyCaller, Database, Dispatch, RowWrites
from api.fields import Body, ReminderMinutes, TimeZone
from api.http.problems import responses
from api.row_queue import Writes
from db import fasting_sessions, preferences
from db.outbox import OutboxEntry
from dispatch.relay import Relay
from domain.preferences import Preferences, Preview, QuietHours, QuietMode
from domain.problems import InvalidField
from domain.sessions import DEFAULT_REMINDER_MINUTES

router = APIRouter(prefix="/v1/notification-preferences", tags=["preferences"])

_ENTITY_TAG = re.compile(r'(W/)?"([^"]*)"')
_PARTS = ("starts", "ends", "time_zone")

ClockTime = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", examples=["22:00"])]
Zone = Annotated[
    TimeZone | None,
    Field(
        description="An IANA name; null: wherever each phone is, by its last registration. A phone that never told "
        "its zone has that of the person's phone seen last that did, else UTC.",
        examples=["Europe/Berlin", None],
    ),
]
Mode = Annotated[
    QuietMode,
    Field(
        description="`silent`: pushes are shown without sound or light. `withhold`: they are not sent. Left out: as "
        "stored; `silent` where there were no quiet hours."
    ),
]
Rev = Annotated[
    int | None,
    Field(
        description="Of answers. A request may bear it, where an answer is sent back changed; it says nothing there: "
        "`If-Match` does."
    ),
]
IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        max_length=200,
        description='The `rev` that was read, in quotes: `"7"`. 412 `preferences-changed` when it is not the newest, '
        "unless all that the request names is stored already: a repeat is answered as the first was.",
    ),
]


class QuietHoursBody(Body):
    """A daily span of local time in which phones stay silent; over midnight when it ends before it starts."""

    starts: ClockTime
    ends: ClockTime
    time_zone: Zone
    mode: Mode = Field(default_factory=lambda: QuietMode.SILENT)


class PreferencesBody(Body):
    """All preferences; PUT replaces them, and what is left out gets its default, but `mode` stays as it is."""

    reminders: StrictBool = True
    reminder_minutes: ReminderMinutes = DEFAULT_REMINDER_MINUTES
    messages: StrictBool = True
    reminder_preview: Preview = Preview.FULL
    message_preview: Preview = Preview.GENERIC
    quiet_hours: QuietHoursBody | None = None
    rev: Rev = None


class QuietHoursPatch(Body):
    """What to change of the quiet hours; where there are none, `mode` alone may be left out."""

    starts: ClockTime = Field(default_factory=str)
    ends: ClockTime = Field(default_factory=str)
    time_zone: Zone = Field(default_factory=lambda: None)
    mode: Mode = Field(default_factory=lambda: QuietMode.SILENT)


class PreferencesPatch(Body):
    """What to change; what is left out stays. `quiet_hours: null` removes them."""

    reminders: StrictBool = Field(default_factory=bool)
    reminder_minutes: ReminderMinutes = Field(default_factory=tuple)
    messages: StrictBool = Field(default_factory=bool)
    reminder_preview: Preview = Field(default_factory=lambda: Preview.FULL)
    message_preview: Preview = Field(default_factory=lambda: Preview.GENERIC)
    quiet_hours: QuietHoursPatch | None = Field(default_factory=lambda: None)
    rev: Rev = Field(default_factory=lambda: None)


class QuietHoursOut(BaseModel):
    """The quiet hours that hold."""

    starts: ClockTime
    ends: ClockTime
    time_zone: str | None
    mode: QuietMode


class PreferencesOut(BaseModel):
    """The preferences that hold."""

    reminders: bool
    reminder_minutes: tuple[int, ...]
    messages: bool
    reminder_preview: Preview
    message_preview: Preview
    quiet_hours: QuietHoursOut | None
    rev: int = Field(description="0 until preferences are stored first; grows with each change. Also the `ETag`.")


@router.get("", responses=responses())
async def read(caller: AnyCaller, sessions: Database, response: Response) -> PreferencesOut:
    """Read the caller's preferences."""
    async with sessions() as db:
        return _answer(await preferences.of_user(db, caller.user_id), response)


@router.put("", responses=responses(412))
async def replace(
    body: PreferencesBody,
    caller: AnyCaller,
    writes: RowWrites,
    relay: Dispatch,
    response: Response,
    if_match: IfMatch = None,
) -> PreferencesOut:
    """Replace the caller's preferences; they hold for pushes from now on, waiting ones included.

    `reminder_minutes` hold for running fasts, too, where those were given none of their own.

    Clients should use PATCH: PUT sets back to its default whatever a client does not know, but for `mode`.
    """
    wanted = {name: getattr(body, name) for name in PreferencesBody.model_fields if name != "rev"}

    def change(stored: Preferences) -> Mapping[str, Any]:
        quiet = body.quiet_hours
        return wanted | {"quiet_hours": quiet and _quiet_hours(quiet, stored.quiet_hours)}

    return _answer(await _update(caller.user_id, change, if_match, writes, relay), response)


@router.patch("", responses=responses(412))
async def change(
    body: PreferencesPatch,
    caller: AnyCaller,
    writes: RowWrites,
    relay: Dispatch,
    response: Response,
    if_match: IfMatch = None,
) -> PreferencesOut:
    """Change some of the caller's preferences; what is left out stays, within the quiet hours too."""
    return _answer(await apply(body, caller.user_id, if_match, writes, relay), response)


async def apply(
    body: PreferencesPatch, user_id: str, if_match: str | None, writes: Writes, relay: Relay
) -> Preferences:
    """Change some of a person's preferences, running fasts included; raises InvalidField, Outdated, Unavailable."""
    named = {name: getattr(body, name) for name in body.model_fields_set - {"rev"}}

    def change(stored: Preferences) -> Mapping[str, Any]:
        quiet = body.quiet_hours
        return named | ({"quiet_hours": _quiet_hours(quiet, stored.quiet_hours)} if quiet else {})

    return await _update(user_id, change, if_match, writes, relay)


async def _update(
    user_id: str,
    change: Callable[[Preferences], Mapping[str, Any]],
    if_match: str | None,
    writes: Writes,
    relay: Relay,
) -> Preferences:
    revs = _matching(if_match)

    async def store(db: AsyncSession) -> tuple[Preferences, list[OutboxEntry]]:
        before: Preferences | None = None

        def checked(stored: Preferences) -> Mapping[str, Any]:
            nonlocal before
            before = stored
            return change(stored)

        now = await preferences.update(db, user_id, checked, revs)
        assert before is not None
        if now.reminder_minutes == before.reminder_minutes:
            return now, []
        return now, await fasting_sessions.follow(db, user_id, now.reminder_minutes)

    wanted, owed = await writes.run(store, f"preferences/{user_id}")
    for each in owed:
        relay.dispatch_soon(each)
    return wanted


def _matching(if_match: str | None) -> set[str] | None:
    """Read which revisions will do; None: any. A weak tag never matches."""
    if if_match is None or if_match.strip() == "*":
        return None
    tags = [_ENTITY_TAG.fullmatch(each.strip()) for each in if_match.split(",")]
    if not all(tags):
        raise InvalidField("If-Match", 'must be the revision in quotes, such as "7"')
    return {tag[2] for tag in tags if tag is not None and not tag[1]}


def _quiet_hours(told: QuietHoursBody | QuietHoursPatch, stored: QuietHours | None) -> QuietHours:
    """Put together quiet hours from what a client tells and what is stored; raises InvalidField."""
    missing = [part for part in _PARTS if stored is None and part not in told.model_fields_set]
    if missing:
        raise InvalidField(f"quiet_hours.{missing[0]}", "Field required")
    of = told.model_fields_set
    starts = time.fromisoformat(told.starts) if stored is None or "starts" in of else stored.starts
    ends = time.fromisoformat(told.ends) if stored is None or "ends" in of else stored.ends
    if starts == ends:
        raise InvalidField("quiet_hours.ends", "Quiet hours must end at another time than they start.")
    return QuietHours(
        starts,
        ends,
        told.time_zone if stored is None or "time_zone" in of else stored.time_zone,
        told.mode if stored is None or "mode" in of else stored.mode,
    )


def _answer(wanted: Preferences, response: Response) -> PreferencesOut:
    response.headers["ETag"] = f'"{wanted.rev}"'
    quiet = wanted.quiet_hours
    return PreferencesOut(
        reminders=wanted.reminders,
        reminder_minutes=wanted.reminder_minutes,
        messages=wanted.messages,
        reminder_preview=wanted.reminder_preview,
        message_preview=wanted.message_preview,
        quiet_hours=quiet
        and QuietHoursOut(
            starts=f"{quiet.starts:%H:%M}", ends=f"{quiet.ends:%H:%M}", time_zone=quiet.time_zone, mode=quiet.mode
        ),
        rev=wanted.rev,
    )
