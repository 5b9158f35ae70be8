"""Who tries a route that is shut, and when those who may not call look in again."""

from collections import OrderedDict
from collections.abc import Callable
from uuid import UUID

_MAX_KNOWN = 1000

_NEVER = 0  # the rank of who was not refused


class ProbeCandidates:
    """Ranks those who wait, and keeps one of the lowest rank in mind: the scout, which comes when the rest is over."""

    def __init__(self) -> None:
        self._ranks: OrderedDict[int, int] = OrderedDict()  # of users, by when they were refused last
        self._count = _NEVER
        self._scout: UUID | None = None
        self._scouts_rank = _NEVER

    def refused(self, user: int) -> None:
        """Take note of a refusal."""
        self._count += 1
        self._ranks.pop(user, None)
        self._ranks[user] = self._count
        if len(self._ranks) > _MAX_KNOWN:
            self._ranks.popitem(last=False)

    def accepted(self, user: int) -> None:
        """Take note that a push of this user was accepted."""
        self._ranks.pop(user, None)

    def nominate(self, task_id: UUID, user: int) -> bool:
        """Make this push the scout, if it comes before the one that there is."""
        rank = self._rank(user)
        if self._scout not in {None, task_id} and rank >= self._scouts_rank:
            return False
        self._scout, self._scouts_rank = task_id, rank
        return True

    def dismiss(self) -> None:
        """Have no scout: another rest begins, or the last one is over for good."""
        self._scout = None

    def may_probe(self, task_id: UUID, user: int) -> bool:
        """Tell whether nobody is expected who would tell more."""
        return self._scout in {None, task_id} or self._rank(user) <= self._scouts_rank

    def forget(self) -> None:
        """Forget all: what was refused was refused to other credentials."""
        self._ranks.clear()
        self._scout = None

    def _rank(self, user: int) -> int:
        return self._ranks.get(user, _NEVER)


class CheckTimes:
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


class CredentialWaits:
    """Pushes that were refused for our credentials at an open gate, and until when each makes no call with the same."""

    def __init__(self) -> None:
        self._rests: OrderedDict[UUID, tuple[float, str]] = OrderedDict()

    def begin(self, task_id: UUID, until: float, reason: str) -> None:
        """Keep this push from calling until then; of more than a thousand the latest are known."""
        self._rests.pop(task_id, None)
        self._rests[task_id] = until, reason
        if len(self._rests) > _MAX_KNOWN:
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
