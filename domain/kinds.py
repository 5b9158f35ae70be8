"""Kinds of notification. A new kind is an entry here, and its words in the catalogue (`domain/wording.py`)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, IntEnum, StrEnum
from uuid import UUID

from domain.preferences import Preferences, Preview


class Priority(IntEnum):
    """Who goes first where not all can go at once; the lowest number does."""

    REMINDER = 0
    MESSAGE = 1
    TEST = 2


class Subject(Enum):
    """What a push is about, and so what it is checked against before it goes out."""

    SESSION = "session"  # a fasting session: still active, with this goal?
    MESSAGE = "message"  # a message in a conversation: unread yet, and the latest?
    NOTHING = "nothing"


class Kind(StrEnum):
    """What kind a push is of; travels to the phone as `data.kind`."""

    REMINDER = "reminder"
    MESSAGE = "message"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Rules:
    """All in which one kind differs from others."""

    subject: Subject
    priority: Priority
    is_wanted: Callable[[Preferences], bool]
    preview: Callable[[Preferences], Preview]  # the defaults are those of `Preferences`
    of_use: timedelta | None  # from the due instant on; None: the reminder itself says until when
    urgency: int  # Temporal's priority key, 1 goes first; what an older release started has 3
    line: str  # with the conversation's id the collapse key: pushes with the same are one line on a screen
    url: str  # deep link that a tap opens
    yields_to_presence: bool  # a phone that is connected gets no push unless it stays silent
    heeds_quiet_hours: bool
    channel: str | None  # of Android, in which it sounds; None, or one that an app lacks: the app's default channel

    def collapse_key(self, conversation_id: UUID) -> str:
        """Name the line on the screen; at most 64 bytes (APNs' limit)."""
        return self.line.format(id=conversation_id)

    def deep_link(self, conversation_id: UUID) -> str:
        """Say where a tap leads."""
        return self.url.format(id=conversation_id)


RULES: Mapping[Kind, Rules] = {
    Kind.REMINDER: Rules(
        subject=Subject.SESSION,
        priority=Priority.REMINDER,
        is_wanted=lambda wishes: wishes.reminders,
        preview=lambda wishes: wishes.reminder_preview,
        of_use=None,
        urgency=1,
        line="fasting-session/{id}",
        url="fastbell://fasting-sessions/{id}",
        yields_to_presence=False,
        heeds_quiet_hours=True,
        channel="reminders",
    ),
    Kind.MESSAGE: Rules(
        subject=Subject.MESSAGE,
        priority=Priority.MESSAGE,
        is_wanted=lambda wishes: wishes.messages,
        preview=lambda wishes: wishes.message_preview,
        of_use=timedelta(days=1),
        urgency=4,
        line="conversation/{id}",
        url="fastbell://conversations/{id}",
        yields_to_presence=True,
        heeds_quiet_hours=True,
        channel="messages",
    ),
    Kind.TEST: Rules(
        subject=Subject.NOTHING,
        priority=Priority.TEST,
        is_wanted=lambda _: True,
        preview=lambda _: Preview.FULL,
        of_use=timedelta(minutes=5),
        urgency=5,
        line="test/{id}",
        url="fastbell://test-push",
        yields_to_presence=False,
        heeds_quiet_hours=False,
        channel=None,
    ),
}
