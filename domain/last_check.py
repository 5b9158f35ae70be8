"""The last-moment check: still due, still wanted, still theirs? Facts in, verdict out."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import assert_never

from domain.kinds import RULES, Kind, Subject
from domain.preferences import Preferences, QuietMode
from domain.push import Route
from domain.sessions import FastingSession, SessionStatus


class CollapseGroupTurn(Enum):
    """When a push may take its line."""

    NOW = "now"
    LATER = "later"
    NEVER = "never"  # superseded


@dataclass(frozen=True, slots=True)
class CollapseGroupUse:
    """What else goes to the same line of the same screen: pushes with one collapse key to one installation."""

    newer_begun: bool  # accepted, or being called
    newer_waits: bool
    call_under_way: bool
    has_sounded: bool = False  # within the last minute


@dataclass(frozen=True, slots=True)
class AddressedDevice:
    """Where a push goes: a device token's owner and kind."""

    user_id: str
    route: Route


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is true around a push at one moment."""

    session: FastingSession | None  # that a reminder is of
    is_member: bool  # of the conversation that a message is in
    is_synced: bool  # the installation has read it
    preferences: Preferences
    now: datetime
    time_zone: str | None = None  # of the phone, by its last registration


def useless(kind: Kind, minutes: int | None, due_at: datetime, around: Circumstances) -> str | None:
    """Say why a push must not go out any more, wherever it goes to; None when it may."""
    if around.is_synced:
        return "synced"
    match RULES[kind].subject:
        case Subject.SESSION:
            return withheld(around.session, minutes, due_at, around.preferences, (around.time_zone,))
        case Subject.MESSAGE:
            wish = unwanted(kind, around.preferences, around.now, around.time_zone)
            return wish if around.is_member else "not_a_member"
        case Subject.NOTHING:
            return unwanted(kind, around.preferences, around.now, around.time_zone)
        case never:
            assert_never(never)


def withheld(
    session: FastingSession | None,
    minutes: int | None,
    due_at: datetime,
    preferences: Preferences,
    time_zones: Collection[str | None] = (),
) -> str | None:
    """Say why a reminder must not go out any more, to none of the phones in these time zones; None when it may."""
    if session is None:
        return "session_missing"
    if session.status is SessionStatus.CANCELLED:
        return "session_cancelled"
    if session.status is not SessionStatus.ACTIVE:
        return "session_ended"
    if minutes not in session.reminder_minutes or session.ends_at - timedelta(minutes=minutes) != due_at:
        return "goal_moved"
    return unwanted_everywhere(Kind.REMINDER, preferences, due_at, time_zones)


def unwanted_everywhere(
    kind: Kind, preferences: Preferences, at: datetime, time_zones: Collection[str | None]
) -> str | None:
    """Say why none of a person's phones is to get a push of this kind at that instant; None when one is."""
    wishes = [unwanted(kind, preferences, at, each) for each in time_zones or (None,)]
    return wishes[0] if all(wishes) else None


def unwanted(kind: Kind, preferences: Preferences, at: datetime, time_zone: str | None) -> str | None:
    """Say why a person does not want such a push at that instant, on a phone in that time zone; None when they do."""
    rules = RULES[kind]
    if not rules.is_wanted(preferences):
        return f"{kind}s_off"
    quiet = preferences.quiet_hours
    if quiet is not None and quiet.mode is QuietMode.WITHHOLD and is_quiet(kind, preferences, at, time_zone):
        return "quiet_hours"
    return None


def is_quiet(kind: Kind, preferences: Preferences, at: datetime, time_zone: str | None) -> bool:
    """Tell whether a push of this kind must make no sound at that instant, on a phone in that time zone."""
    quiet = preferences.quiet_hours
    return RULES[kind].heeds_quiet_hours and quiet is not None and quiet.contain(at, time_zone)


def turn_of(line: CollapseGroupUse | None, attempts: int) -> CollapseGroupTurn:
    """Say whether a push may be sent now, of all that share its line on a screen; the newest is what stays there.

    One call at a time, so that an older text never replaces a newer one. The first attempt at a free line always goes
    ahead, so that someone writing without a pause cannot starve it.
    """
    if line is None:
        return CollapseGroupTurn.NOW
    if line.newer_begun or (line.newer_waits and (attempts or line.call_under_way)):
        return CollapseGroupTurn.NEVER
    return CollapseGroupTurn.LATER if line.call_under_way else CollapseGroupTurn.NOW


def misaddressed(planned: AddressedDevice, current: AddressedDevice | None) -> str | None:
    """Say why the installation's active token is not the one that was planned for; None when it is."""
    if current is None:
        return "no_active_token"
    if current.user_id != planned.user_id:
        return "token_transferred"
    return None if current == planned else "token_changed"
