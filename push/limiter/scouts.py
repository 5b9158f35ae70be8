"""When those who may not call look in again, since other credentials or a person may let them at any moment.

The clock is passed in.
"""

from collections import OrderedDict
from collections.abc import Callable
from uuid import UUID

_KNOWN_AT_MOST = 1000


class Looks:
    """Gives instants to look in: few who wait come often, many of them each seldom, so that looks cost little."""

    def __init__(self, shortest: float, longest: float, per_second: float, chance: Callable[[], float]) -> None:
        """Make one; the waits are in seconds."""
        self._shortest = shortest
        self._longest = longest
        self._each = 1 / per_second
        self._chance = chance
        self._next = 0.0

    def wait(self, now: float) -> float:
        """Tell in how many seconds one more is to look in."""
        self._next = max(self._next, now + self._shortest) + self._each
        if self._next - now > self._longest:
            self._next = now + self._longest
            return self._longest * (1 - self._chance() / 2)  # so that they do not all come at one instant
        return self._next - now


class OwnRests:
    """Pushes that were refused for our credentials at an open gate, and until when each makes no call with the same."""

    def __init__(self) -> None:
        self._rests: OrderedDict[UUID, tuple[float, str]] = OrderedDict()

    def begin(self, task_id: UUID, until: float, reason: str) -> None:
        """Keep this push from calling until then; of more than a thousand the latest are known."""
        self._rests.pop(task_id, None)
        self._rests[task_id] = until, reason
        if len(self._rests) > _KNOWN_AT_MOST:
            self._rests.popitem(last=False)

    def left(self, task_id: UUID, now: float) -> tuple[float, str] | None:
        """Tell how many seconds of its rest a push has left, and why it rests."""
        until, reason = self._rests.get(task_id, (now, ""))
        return (until - now, reason) if until > now else None

    def accepted(self, task_id: UUID) -> None:
        """Take note that a push was accepted: if it was refused before, what was wrong is mended for all."""
        if task_id in self._rests:
            self.forget()

    def forget(self) -> None:
        """End all rests."""
        self._rests.clear()
