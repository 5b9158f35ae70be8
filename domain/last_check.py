"""The last-moment check: still due, still wanted, still theirs? Facts in, verdict out."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from domain.preferences import Preferences
from domain.push import Route
from domain.sessions import FastingSession, SessionStatus


@dataclass(frozen=True, slots=True)
class Address:
    """Where a push goes: a device token's owner and kind."""

    user_id: str
    route: Route


def withheld(
    session: FastingSession | None, minutes: int | None, due_at: datetime, preferences: Preferences
) -> str | None:
    """Say why a reminder must not go out any more; None when it may."""
    if session is None:
        return "session_missing"
    if session.status is SessionStatus.CANCELLED:
        return "session_cancelled"
    if session.status is not SessionStatus.ACTIVE:
        return "session_ended"
    if minutes not in session.reminder_minutes or session.ends_at - timedelta(minutes=minutes) != due_at:
        return "goal_moved"
    if not preferences.reminders:
        return "reminders_off"
    if preferences.quiet_hours is not None and preferences.quiet_hours.contain(due_at):
        return "quiet_hours"
    return None


def misaddressed(planned: Address, current: Address | None) -> str | None:
    """Say why the installation's active token is not the one that was planned for; None when it is."""
    if current is None:
        return "no_active_token"
    if current.user_id != planned.user_id:
        return "token_transferred"
    return None if current == planned else "token_changed"
