"""Kinds of notification. CONTRIBUTING.md names all that a new kind needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, IntEnum, StrEnum
from uuid import UUID

from domain.preferences import Preferences, Preview


class Priority(IntEnum):
    """Which pushes go first when not all can; the lowest number does."""

    REMINDER = 0
    MESSAGE = 1
    TEST = 2


class Subject(Enum):
    """What a push is about, and so what it is checked against before it is sent."""

    SESSION = "session"  # a fasting session: still active, with this goal?
    MESSAGE = "message"  # a message in a conversation: still unread, and the latest?
    NOTHING = "nothing"


class Kind(StrEnum):
    """The kind of a push; the phone gets it as `data.kind`."""

    REMINDER = "reminder"
    MESSAGE = "message"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Rules:
    """Everything in which kinds differ."""

    subject: Subject
    priority: Priority
    is_wanted: Callable[[Preferences], bool]
    preview: Callable[[Preferences], Preview]  # the defaults are those of `Preferences`
    useful_for: timedelta | None  # how long a push is useful after its due instant; None: each reminder has its own
    urgency: int  # Temporal's priority key, 1 goes first; workflows of older releases have 3
    line: str  # format of the collapse key: pushes with the same key replace each other on the screen
    path: str  # format of the deep link's path
    yields_to_presence: bool  # a connected phone gets a push only if it does not acknowledge
    observes_quiet_hours: bool

    def collapse_key(self, conversation_id: UUID) -> str:
        """Give the collapse key; at most 64 bytes (APNs' limit)."""
        return self.line.format(id=conversation_id)

    def path_to(self, conversation_id: UUID) -> str:
        """Give the path of the deep link that a tap opens."""
        return self.path.format(id=conversation_id)


RULES: Mapping[Kind, Rules] = {
    Kind.REMINDER: Rules(
        subject=Subject.SESSION,
        priority=Priority.REMINDER,
        is_wanted=lambda preferences: preferences.reminders,
        preview=lambda preferences: preferences.reminder_preview,
        useful_for=None,
        urgency=1,
        line="fasting-session/{id}",
        path="fasting-sessions/{id}",
        yields_to_presence=False,
        observes_quiet_hours=True,
    ),
    Kind.MESSAGE: Rules(
        subject=Subject.MESSAGE,
        priority=Priority.MESSAGE,
        is_wanted=lambda preferences: preferences.messages,
        preview=lambda preferences: preferences.message_preview,
        useful_for=timedelta(days=1),
        urgency=4,
        line="conversation/{id}",
        path="conversations/{id}",
        yields_to_presence=True,
        observes_quiet_hours=True,
    ),
    Kind.TEST: Rules(
        subject=Subject.NOTHING,
        priority=Priority.TEST,
        is_wanted=lambda _: True,
        preview=lambda _: Preview.FULL,
        useful_for=timedelta(minutes=5),
        urgency=5,
        line="test/{id}",
        path="test-push",
        yields_to_presence=False,
        observes_quiet_hours=False,
    ),
}
