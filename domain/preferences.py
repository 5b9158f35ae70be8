"""What a person wants to be told, and how."""

from dataclasses import dataclass
from enum import StrEnum

from domain.quiet_hours import QuietHours
from domain.sessions import DEFAULT_REMINDER_MINUTES


class Preview(StrEnum):
    """How much a lock screen shows."""

    FULL = "full"
    GENERIC = "generic"


@dataclass(frozen=True, slots=True)
class Preferences:
    """A person's notification preferences; the defaults hold for whoever never set any."""

    reminders: bool = True
    reminder_minutes: tuple[int, ...] = DEFAULT_REMINDER_MINUTES
    messages: bool = True
    reminder_preview: Preview = Preview.FULL
    message_preview: Preview = Preview.GENERIC
    quiet_hours: QuietHours | None = None
    rev: int = 0  # grows with each change; 0: never set
