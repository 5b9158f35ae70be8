"""What a phone shows: lines that a later push with the same key replaces."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

_LINES_KEPT = 500


@dataclass(frozen=True, slots=True)
class Notification:
    """A push as the phone understands it, whichever provider carried it."""

    title: str | None
    body: str | None
    data: dict[str, Any]
    collapse_key: str | None
    identity: str | bytes  # the same notification received twice has the same one
    is_visible: bool
    has_sound: bool = True  # a phone that shows it rings
    level: str = "active"  # passive: it lights up no screen; an iPhone's interruption level
    channel: str | None = None  # Android's


@dataclass(frozen=True, slots=True)
class Line:
    """One line on the lock screen."""

    notification: Notification
    shown_timestamp: float
    times_received: int

    @property
    def shown_at(self) -> datetime:
        """When it appeared, or was replaced by this content."""
        return datetime.fromtimestamp(self.shown_timestamp, UTC)

    @property
    def title(self) -> str | None:
        """The bold line."""
        return self.notification.title

    @property
    def body(self) -> str | None:
        """The text under it."""
        return self.notification.body

    @property
    def data(self) -> dict[str, Any]:
        """What the app gets."""
        return self.notification.data

    @property
    def collapse_key(self) -> str | None:
        """apns-collapse-id or android.notification.tag."""
        return self.notification.collapse_key


class Screen:
    """The lines of one phone, newest first when iterated."""

    def __init__(self) -> None:
        self._lines: dict[str | int, Line] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def lines(self) -> list[Line]:
        """Newest first."""
        return list(reversed(self._lines.values()))

    def remove(self, line: Line) -> None:
        """Take a line away."""
        self._lines = {key: each for key, each in self._lines.items() if each is not line}

    def show(self, notification: Notification, now: float) -> None:
        """Replace the line with the same key, or add one."""
        self._count += 1
        key: str | int = self._count if notification.collapse_key is None else notification.collapse_key
        replaced = self._lines.pop(key, None)
        is_repeated = replaced is not None and replaced.notification.identity == notification.identity
        times = replaced.times_received + 1 if replaced is not None and is_repeated else 1
        self._lines[key] = Line(notification, now, times)
        if len(self._lines) > _LINES_KEPT:
            del self._lines[next(iter(self._lines))]
