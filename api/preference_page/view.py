"""What the preference page shows, read from the database. Unreadable values of a row are left out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy.ext.asyncio import AsyncSession

from api.preference_page.words import chosen
from db import device_tokens, fasting_sessions, preferences
from db.engine import present_instant
from db.models.people import DeviceToken
from db.preference_links import OpenPage
from db.unreadable import word
from domain.devices import Permission
from domain.fasts import Reminder, upcoming
from domain.preferences import Preferences, QuietHours, known
from domain.presentation import Presentation, Presentations
from domain.presentation_file import SHIPPED
from domain.push import Provider

_DAY = timedelta(days=1)
_HOUR = timedelta(hours=1)
_SECOND = timedelta(seconds=1)
_TWICE = timedelta(hours=3)  # the longest gap between the two spans of one night
_LONGEST = timedelta(hours=20)  # longer quiet hours have such a short gap every day


@dataclass(frozen=True, slots=True)
class QuietSpan:
    """From `starts_at` up to, not including, `ends_at`; both in the zone of their night."""

    starts_at: datetime
    ends_at: datetime

    @property
    def length(self) -> timedelta:
        """The elapsed time, whatever the wall clock shows."""
        return self.ends_at.astimezone(UTC) - self.starts_at.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Night:
    """Quiet hours in one zone: one span, or two if they end in an hour that comes twice."""

    time_zone: str  # IANA name
    spans: tuple[QuietSpan, ...]
    usual: timedelta  # their length without a clock change

    @property
    def length(self) -> timedelta:
        """The quiet time. It differs from `usual` if clocks change in between."""
        return sum((each.length for each in self.spans), timedelta())


def nights(quiet_hours: QuietHours | None, phone_zones: Iterable[str | None], now: datetime) -> tuple[Night, ...]:
    """Give the current or next quiet hours, for each zone of the phones.

    `phone_zones` are those of the phones' last registrations. Without a phone it is the zone of a phone that sent none.
    A zone that this machine does not know is left out.
    """
    if quiet_hours is None:
        return ()
    zones = dict.fromkeys(quiet_hours.place(each) for each in [*phone_zones] or [None])
    return tuple(_night(quiet_hours, each, now) for each in zones if each is not None)


def _night(quiet_hours: QuietHours, place: ZoneInfo, now: datetime) -> Night:
    first, *later = (each for each in _quiet(quiet_hours, place, now) if each[1] > now)
    starts, ends = (datetime.combine(now, each, UTC) for each in (quiet_hours.starts, quiet_hours.ends))
    usual = ends - starts if starts < ends else ends + _DAY - starts
    again = [each for each in later[:1] if each[0] - first[1] < _TWICE and usual < _LONGEST]
    return Night(
        place.key, tuple(QuietSpan(*(each.astimezone(place) for each in span)) for span in (first, *again)), usual
    )


def _quiet(quiet_hours: QuietHours, place: ZoneInfo, now: datetime) -> list[tuple[datetime, datetime]]:
    """List the quiet spans around `now`, in UTC: for each period between two clock changes, then joined."""
    spans: list[tuple[datetime, datetime]] = []
    overnight = _DAY if quiet_hours.ends <= quiet_hours.starts else timedelta()
    for begins, over in pairwise(_changes(place, now.astimezone(UTC).replace(microsecond=0))):
        offset = begins.astimezone(place).utcoffset() or timedelta()
        day = (begins + offset).date() - _DAY
        while (starts := datetime.combine(day, quiet_hours.starts, UTC) - offset) < over:
            ends = datetime.combine(day, quiet_hours.ends, UTC) - offset + overnight
            day += _DAY
            starts, ends = max(starts, begins), min(ends, over)
            if spans and spans[-1][1] == starts < ends:
                starts, _ = spans.pop()
            if starts < ends:
                spans.append((starts, ends))
    return spans


def _changes(place: ZoneInfo, now: datetime) -> list[datetime]:
    """List the clock changes of a zone, between the first and the last instant that are searched."""
    hours = [now + _HOUR * each for each in range(-48, 97)]
    changed = [
        _change(place, before, after)
        for before, after in pairwise(hours)
        if before.astimezone(place).utcoffset() != after.astimezone(place).utcoffset()
    ]
    return [hours[0], *changed, hours[-1]]


def _change(place: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """Find the second of a clock change, after `before` and not after `after`."""
    while after - before > _SECOND:
        middle = before + (after - before) // 2
        middle = middle.replace(microsecond=0)
        same = middle.astimezone(place).utcoffset() == before.astimezone(place).utcoffset()
        before, after = (middle, after) if same else (before, middle)
    return after


PATH = "/preferences/"  # GET shows the page; POST saves it
STOP_PATH = "/preferences/stop"  # POST: one of `Stop` in the field `what`
SIGN_OUT_PATH = "/preferences/sign-out"  # POST
STYLE_PATH = "/preferences/style.css"  # GET; its query changes with its content, so it may be cached for ever
CSRF_FIELD = "csrf_token"  # of each form
REV_FIELD = "rev"  # of the main form: its revision, for `If-Match`
BASE_FIELD = "base"  # of the main form: what it was filled with, so that a conflict keeps what was typed
STOP_FIELD = "what"


class Stop(StrEnum):
    """What one button stops."""

    REMINDERS = "reminders"
    MESSAGES = "messages"


class Notice(StrEnum):
    """The result of the last request. Problems of fields are shown beside the fields."""

    SAVED = "saved"
    REMINDERS_STOPPED = "reminders_stopped"
    MESSAGES_STOPPED = "messages_stopped"
    CONFLICT = "conflict"  # the preferences were changed elsewhere, so nothing was saved


@dataclass(frozen=True, slots=True)
class Typed:
    """What the user typed, unchecked. It is shown again if it cannot be saved."""

    reminders: bool
    reminder_minutes: tuple[str, ...]  # of the fields that are not empty
    messages: bool
    reminder_preview: str  # a Preview, unless tampered with; the other choices likewise
    message_preview: str
    quiet: bool  # whether there are quiet hours
    starts: str  # 22:00
    ends: str
    time_zone: str  # an IANA name; empty: wherever each phone is
    mode: str  # a QuietMode


@dataclass(frozen=True, slots=True)
class Fast:
    """A fast that is running or planned."""

    session_id: UUID
    ends_at: datetime
    reminders: tuple[Reminder, ...]  # the upcoming ones, in order of time
    follows_preferences: bool = True  # False: it has reminder minutes of its own


@dataclass(frozen=True, slots=True)
class SignedInPhone:
    """A phone that is signed in."""

    installation_id: UUID
    provider: Provider
    app_version: str | None
    os_version: str | None
    permission: Permission | None  # None: not sent by the app
    time_zone: str | None  # IANA name of the last registration
    last_seen_at: datetime


@dataclass(frozen=True, slots=True)
class View:
    """Everything that the page shows."""

    locale: str  # BCP 47; a language without a catalogue is shown in English
    csrf_token: str
    now: datetime
    time_zone: str  # IANA name, for moments that belong to no phone, such as a fast's end
    preferences: Preferences  # the stored ones, with `rev` and the quiet hours' fallback zone
    fasts: tuple[Fast, ...] = ()  # the next to end first
    phones: tuple[SignedInPhone, ...] = ()  # the one seen last first
    nights: tuple[Night, ...] = ()  # of `nights.nights`
    presentation: Presentation = SHIPPED  # of the app on the phone seen last, for the samples
    notice: Notice | None = None
    problems: Mapping[str, str] = field(default_factory=dict)  # field of `Typed` -> key of a message, both of `form`
    typed: Typed | None = None  # shown instead of the stored preferences


_MAX_FASTS, _MAX_PHONES = 20, 50  # that are shown


async def view_of(db: AsyncSession, page: OpenPage, accept_language: str | None, presentations: Presentations) -> View:
    """Read what a user's page shows now."""
    wanted = await preferences.of_user(db, page.user_id)
    fasts = await fasting_sessions.active_of(db, page.user_id, _MAX_FASTS)
    rows = await device_tokens.active_for_user(db, page.user_id)
    latest = sorted(rows, key=lambda row: row.last_seen_at, reverse=True)[:_MAX_PHONES]
    now = await present_instant(db)
    phones = tuple(_phone(row) for row in latest)
    ahead = [(each, tuple(one for one in upcoming(each) if one.due_at > now)) for each in fasts]
    return View(
        locale=chosen(accept_language, next((row.locale for row in latest if row.locale), None)),
        csrf_token=page.csrf_token,
        now=now,
        time_zone=_zone(phones, wanted),
        preferences=wanted,
        fasts=tuple(Fast(each.session_id, each.ends_at, left, each.follows_preferences) for each, left in ahead),
        phones=phones,
        nights=nights(wanted.quiet_hours, [row.time_zone for row in rows], now),
        presentation=presentations.of(latest[0].app_id if latest else None),
    )


def _phone(row: DeviceToken) -> SignedInPhone:
    return SignedInPhone(
        installation_id=row.installation_id,
        provider=Provider(row.provider),  # readable: see `active_for_user`
        app_version=row.app_version,
        os_version=row.os_version,
        permission=None if row.permission is None else word(Permission, row.permission, "device_tokens.permission"),
        time_zone=None if row.time_zone is None else known(row.time_zone),
        last_seen_at=row.last_seen_at,
    )


def _zone(phones: Sequence[SignedInPhone], wanted: Preferences) -> str:
    """Choose the zone for moments that belong to no phone."""
    quiet = wanted.quiet_hours
    named = [*(each.time_zone for each in phones), known(quiet.time_zone) if quiet and quiet.time_zone else None]
    return next((each for each in named if each is not None), "UTC")
