"""The last check before a call: still due, still wanted, still this user's token? Facts in, verdict out."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import assert_never

from domain.fasts import FastingSession, SessionStatus
from domain.kinds import RULES, Kind, Subject
from domain.preferences import Preferences, QuietMode
from domain.push import Route


class CollapseGroupTurn(Enum):
    """When a push may be sent, of those in its collapse group."""

    NOW = "now"
    LATER = "later"
    NEVER = "never"  # superseded


@dataclass(frozen=True, slots=True)
class CollapseGroupUse:
    """Other pushes with the same collapse key to the same installation."""

    newer_begun: bool  # accepted, or being sent
    newer_waits: bool
    call_under_way: bool
    has_sounded: bool = False  # within the last minute


@dataclass(frozen=True, slots=True)
class AddressedDevice:
    """Where a push goes: a device token's user and route."""

    user_id: str
    route: Route


@dataclass(frozen=True, slots=True)
class Circumstances:
    """The facts about a push at one moment."""

    session: FastingSession | None  # of a reminder
    is_member: bool  # of a message's conversation
    is_synced: bool  # the installation has read it
    preferences: Preferences
    now: datetime
    time_zone: str | None = None  # of the phone, by its last registration
    is_erased: bool = False  # the message has lost its text with its sender


def useless(kind: Kind, minutes: int | None, due_at: datetime, around: Circumstances) -> str | None:
    """Say why a push must no longer be sent, to any phone; None when it may."""
    if around.is_synced:
        return "synced"
    match RULES[kind].subject:
        case Subject.SESSION:
            return withheld(around.session, minutes, due_at, around.preferences, (around.time_zone,))
        case Subject.MESSAGE:
            reason = unwanted(kind, around.preferences, around.now, around.time_zone)
            return "message_erased" if around.is_erased else reason if around.is_member else "not_a_member"
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
    """Say why a reminder must no longer be sent to any phone in these time zones; None when it may."""
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
    """Say why none of a person's phones should get a push of this kind at that instant; None when one should."""
    reasons = [unwanted(kind, preferences, at, each) for each in time_zones or (None,)]
    return reasons[0] if all(reasons) else None


def unwanted(kind: Kind, preferences: Preferences, at: datetime, time_zone: str | None) -> str | None:
    """Say why a person does not want such a push at that instant on a phone in that time zone; None if they do."""
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
    return RULES[kind].observes_quiet_hours and quiet is not None and quiet.contain(at, time_zone)


def turn_of(group: CollapseGroupUse | None, attempts: int) -> CollapseGroupTurn:
    """Say whether a push may be sent now, of all in its collapse group; the newest is what the screen shows.

    One call at a time, so that an older text never replaces a newer one. A first attempt goes ahead if no call is under
    way, so that someone who writes without a pause cannot starve it.
    """
    if group is None:
        return CollapseGroupTurn.NOW
    if group.newer_begun or (group.newer_waits and (attempts or group.call_under_way)):
        return CollapseGroupTurn.NEVER
    return CollapseGroupTurn.LATER if group.call_under_way else CollapseGroupTurn.NOW


def misaddressed(planned: AddressedDevice, current: AddressedDevice | None) -> str | None:
    """Say why the installation's active token is not the one that was planned for; None when it is."""
    if current is None:
        return "no_active_token"
    if current.user_id != planned.user_id:
        return "token_transferred"
    return None if current == planned else "token_changed"
