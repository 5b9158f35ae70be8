"""Which push tries a route whose gate is shut: whoever was refused there goes last, the latest of them last of all.

A push that was refused for itself would tell nothing about the others. The latest thousand users who were refused are
known, by their digests.
"""

from collections import OrderedDict
from uuid import UUID

_KNOWN_AT_MOST = 1000
_NEVER = 0  # the rank of who was not refused


class Scouts:
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
        if len(self._ranks) > _KNOWN_AT_MOST:
            self._ranks.popitem(last=False)

    def accepted(self, user: int) -> None:
        """Take note that a push of this user was accepted."""
        self._ranks.pop(user, None)

    def appoint(self, task_id: UUID, user: int) -> bool:
        """Make this push the scout, if it comes before the one that there is."""
        rank = self._rank(user)
        if self._scout not in {None, task_id} and rank >= self._scouts_rank:
            return False
        self._scout, self._scouts_rank = task_id, rank
        return True

    def dismiss(self) -> None:
        """Have no scout: another rest begins, or the last one is over for good."""
        self._scout = None

    def may_go(self, task_id: UUID, user: int) -> bool:
        """Tell whether nobody is expected who would tell more."""
        return self._scout in {None, task_id} or self._rank(user) <= self._scouts_rank

    def forget(self) -> None:
        """Forget all: what was refused was refused to other credentials."""
        self._ranks.clear()
        self._scout = None

    def _rank(self, user: int) -> int:
        return self._ranks.get(user, _NEVER)
