"""Which push probes a paused route, and when the others check again."""

from collections import OrderedDict
from collections.abc import Callable
from uuid import UUID

_MAX_KNOWN = 1000
_NEVER = 0  # the rank of a user who was not refused


class ProbeCandidates:
    """Ranks the waiting users by their last refusal, and names a push of the lowest rank as the next probe."""

    def __init__(self) -> None:
        self._ranks: OrderedDict[int, int] = OrderedDict()  # of users, by when they were refused last
        self._count = _NEVER
        self._next: UUID | None = None
        self._next_rank = _NEVER

    def refused(self, user: int) -> None:
        """Note a refusal."""
        self._count += 1
        self._ranks.pop(user, None)
        self._ranks[user] = self._count
        if len(self._ranks) > _MAX_KNOWN:
            self._ranks.popitem(last=False)

    def accepted(self, user: int) -> None:
        """Note that a push of this user was accepted."""
        self._ranks.pop(user, None)

    def nominate(self, task_id: UUID, user: int) -> bool:
        """Make this push the next probe, unless another one tells more."""
        rank = self._rank(user)
        if self._next not in {None, task_id} and rank >= self._next_rank:
            return False
        self._next, self._next_rank = task_id, rank
        return True

    def dismiss(self) -> None:
        """Name no probe: another rest begins, or the last one is over."""
        self._next = None

    def may_probe(self, task_id: UUID, user: int) -> bool:
        """Whether no other push is expected that would tell more."""
        return self._next in {None, task_id} or self._rank(user) <= self._next_rank

    def forget(self) -> None:
        """Forget all: the refusals were of other credentials."""
        self._ranks.clear()
        self._next = None

    def _rank(self, user: int) -> int:
        return self._ranks.get(user, _NEVER)


class CheckTimes:
    """Spreads the checks of waiting pushes: few check often, many each seldom, so that checks cost little."""

    def __init__(self, shortest: float, longest: float, per_second: float, chance: Callable[[], float]) -> None:
        """Make one; the waits are in seconds."""
        self._shortest = shortest
        self._longest = longest
        self._each = 1 / per_second
        self._chance = chance
        self._next = 0.0

    def wait(self, now: float) -> float:
        """Return in how many seconds one more push is to check."""
        self._next = max(self._next, now + self._shortest) + self._each
        if self._next - now > self._longest:
            self._next = now + self._longest
            return self._longest * (1 - self._chance() / 2)  # so that they do not all come at one instant
        return self._next - now


class CredentialWaits:
    """Pushes that were refused for our credentials while their route sends, and until when each makes no call."""

    def __init__(self) -> None:
        self._rests: OrderedDict[UUID, tuple[float, str]] = OrderedDict()

    def begin(self, task_id: UUID, until: float, reason: str) -> None:
        """Keep this push from calling until then; the latest thousand are known."""
        self._rests.pop(task_id, None)
        self._rests[task_id] = until, reason
        if len(self._rests) > _MAX_KNOWN:
            self._rests.popitem(last=False)

    def left(self, task_id: UUID, now: float) -> tuple[float, str] | None:
        """Return how many seconds a push has to wait, and why."""
        until, reason = self._rests.get(task_id, (now, ""))
        return (until - now, reason) if until > now else None

    def accepted(self, task_id: UUID) -> None:
        """Note that a push was accepted: if it was refused before, the credentials are good again for all."""
        if task_id in self._rests:
            self.forget()

    def forget(self) -> None:
        """End all waits."""
        self._rests.clear()
