"""Notification preferences: which pushes a user wants, and how they are shown."""

import re
from collections.abc import Callable, Mapping
from datetime import time
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from pydantic import BeforeValidator, Field, StrictBool
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import Database, Dispatch, RowWrites, UserCaller
from api.fields import Body, Out, ReminderMinutes, TimeZone
from api.http.problem_types import responses
from api.http.problems import Detail
from api.writes import Writes
from db import fasting_sessions, preferences
from db.outbox import OutboxEntry
from dispatch.relay import Relay
from domain.preferences import DEFAULT_REMINDER_MINUTES, Preferences, Preview, QuietHours, QuietMode
from domain.problems import InvalidField

user_router = APIRouter(prefix="/notification-preferences", tags=["preferences"])
_ENTITY_TAG = re.compile(r'(W/)?"([^"]*)"')
_PARTS = ("starts", "ends", "time_zone")
ClockTime = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", examples=["22:00"])]
ShownTime = Annotated[ClockTime, BeforeValidator(lambda at: f"{at:%H:%M}")]
Zone = Annotated[
    TimeZone | None,
    Field(
        description="An IANA name. null: the zone of each phone, by its last registration. For a phone without one: "
        "the zone of the user's phone that was seen last and has one, else UTC.",
        examples=["Europe/Berlin", None],
    ),
]
Mode = Annotated[
    QuietMode,
    Field(
        description="`silent`: pushes are shown without sound or light. `withhold`: they are not sent. Default: the "
        "stored mode, or `silent` if there were no quiet hours."
    ),
]
Rev = Annotated[
    int | None,
    Field(description="Ignored, so that a changed answer can be sent back. Use `If-Match` to check the revision."),
]
IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        max_length=200,
        description='The `rev` that was read, in quotes: `"7"`. If it is not the newest: 412 `preferences-changed`, '
        "unless everything in the request is stored already. So a repeat gets the same answer as the first request.",
    ),
]


class QuietHoursBody(Body):
    """A daily span of local time in which phones stay silent. It may pass midnight."""

    starts: ClockTime
    ends: ClockTime
    time_zone: Zone
    mode: Mode = Field(default_factory=lambda: QuietMode.SILENT)


class PreferencesBody(Body):
    """All preferences. A field that is left out gets its default, except `mode`, which stays."""

    reminders: StrictBool = True
    reminder_minutes: ReminderMinutes = DEFAULT_REMINDER_MINUTES
    messages: StrictBool = True
    reminder_preview: Preview = Preview.FULL
    message_preview: Preview = Preview.GENERIC
    quiet_hours: QuietHoursBody | None = None
    rev: Rev = None


class QuietHoursPatch(Body):
    """What to change about the quiet hours. Without stored quiet hours only `mode` may be left out."""

    starts: ClockTime = Field(default_factory=str)
    ends: ClockTime = Field(default_factory=str)
    time_zone: Zone = Field(default_factory=lambda: None)
    mode: Mode = Field(default_factory=lambda: QuietMode.SILENT)


class PreferencesPatch(Body):
    """What to change. A field that is left out stays. `quiet_hours: null` removes the quiet hours."""

    reminders: StrictBool = Field(default_factory=bool)
    reminder_minutes: ReminderMinutes = Field(default_factory=tuple)
    messages: StrictBool = Field(default_factory=bool)
    reminder_preview: Preview = Field(default_factory=lambda: Preview.FULL)
    message_preview: Preview = Field(default_factory=lambda: Preview.GENERIC)
    quiet_hours: QuietHoursPatch | None = Field(default_factory=lambda: None)
    rev: Rev = Field(default_factory=lambda: None)


class QuietHoursOut(Out):
    """The stored quiet hours."""

    starts: ShownTime
    ends: ShownTime
    time_zone: str | None
    mode: QuietMode


class PreferencesOut(Out):
    """The stored preferences."""

    reminders: bool
    reminder_minutes: tuple[int, ...]
    messages: bool
    reminder_preview: Preview
    message_preview: Preview
    quiet_hours: QuietHoursOut | None
    rev: int = Field(description="0 until preferences are first stored; increases with each change. Also the `ETag`.")


@user_router.get("", responses=responses())
async def read_preferences(caller: UserCaller, sessions: Database, response: Response) -> PreferencesOut:
    """Read the caller's preferences."""
    async with sessions() as db:
        return _answer(await preferences.of_user(db, caller.user_id), response)


@user_router.put("", responses=responses("preferences-changed", "being-erased"))
async def replace_preferences(
    body: PreferencesBody,
    caller: UserCaller,
    writes: RowWrites,
    relay: Dispatch,
    response: Response,
    if_match: IfMatch = None,
) -> PreferencesOut:
    """Replace the caller's preferences. They apply at once, also to waiting pushes.

    `reminder_minutes` also apply to running fasts that have none of their own.

    Clients should use PATCH: PUT resets every field that a client does not send to its default, except `mode`.
    """
    wanted = {name: getattr(body, name) for name in PreferencesBody.model_fields if name != "rev"}

    def change(stored: Preferences) -> Mapping[str, Any]:
        quiet = body.quiet_hours
        return wanted | {"quiet_hours": quiet and _quiet_hours(quiet, stored.quiet_hours)}

    return _answer(await _update(caller.user_id, change, if_match, writes, relay), response)


@user_router.patch("", responses=responses("preferences-changed", "being-erased"))
async def change_preferences(
    body: PreferencesPatch,
    caller: UserCaller,
    writes: RowWrites,
    relay: Dispatch,
    response: Response,
    if_match: IfMatch = None,
) -> PreferencesOut:
    """Change some of the caller's preferences. A field that is left out stays, also within the quiet hours."""
    return _answer(await apply(body, caller.user_id, if_match, writes, relay), response)


async def apply(
    body: PreferencesPatch, user_id: str, if_match: str | None, writes: Writes, relay: Relay
) -> Preferences:
    """Change some of a user's preferences; raises InvalidField, Outdated, ServiceUnavailable."""
    named = {name: getattr(body, name) for name in body.model_fields_set - {"rev"}}

    def change(stored: Preferences) -> Mapping[str, Any]:
        quiet = body.quiet_hours
        return named | ({"quiet_hours": _quiet_hours(quiet, stored.quiet_hours)} if quiet else {})

    return await _update(user_id, change, if_match, writes, relay)


async def _update(
    user_id: str, change: Callable[[Preferences], Mapping[str, Any]], if_match: str | None, writes: Writes, relay: Relay
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

    wanted, entry = await writes.run(store, f"preferences/{user_id}")
    for each in entry:
        relay.dispatch_soon(each)
    return wanted


def _matching(if_match: str | None) -> set[str] | None:
    """Read the revisions that match; None: any. A weak tag never matches."""
    if if_match is None or if_match.strip() == "*":
        return None
    tags = [_ENTITY_TAG.fullmatch(each.strip()) for each in if_match.split(",")]
    if not all(tags):
        raise InvalidField("If-Match", Detail.REV_NOT_QUOTED)
    return {tag[2] for tag in tags if tag is not None and not tag[1]}


def _quiet_hours(body: QuietHoursBody | QuietHoursPatch, stored: QuietHours | None) -> QuietHours:
    """Merge the quiet hours of a request into the stored ones; raises InvalidField."""
    given = body.model_fields_set
    missing = [part for part in _PARTS if stored is None and part not in given]
    if missing:
        raise InvalidField(f"quiet_hours.{missing[0]}", Detail.FIELD_REQUIRED)
    starts = time.fromisoformat(body.starts) if stored is None or "starts" in given else stored.starts
    ends = time.fromisoformat(body.ends) if stored is None or "ends" in given else stored.ends
    if starts == ends:
        raise InvalidField("quiet_hours.ends", Detail.QUIET_HOURS_EMPTY)
    return QuietHours(
        starts,
        ends,
        body.time_zone if stored is None or "time_zone" in given else stored.time_zone,
        body.mode if stored is None or "mode" in given else stored.mode,
    )


def _answer(wanted: Preferences, response: Response) -> PreferencesOut:
    response.headers["ETag"] = f'"{wanted.rev}"'
    return PreferencesOut.model_validate(wanted)
