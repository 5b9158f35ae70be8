"""Which push tries a route whose gate is shut: whoever was refused there goes last, the latest of them last of all.

A push that was refused for itself would tell nothing about the others. Of users and push tasks the latest thousand
that were refused are known.
"""

from collections import OrderedDict
from uuid import UUID

_KNOWN_AT_MOST = 1000
_NEVER = 0  # the rank of who was not refused


class Scouts:
    """Ranks those who wait, and keeps one of the lowest rank in mind: the scout, which comes when the rest is over."""

    def __init__(self) -> None:
        self._ranks: OrderedDict[str, int] = OrderedDict()  # of users, by when they were refused last
        self._users: OrderedDict[UUID, str] = OrderedDict()  # whose a push task is, of those users
        self._count = _NEVER
        self._scout: UUID | None = None
        self._scouts_rank = _NEVER

    def refused(self, task_id: UUID, user_id: str) -> None:
        """Take note of a refusal."""
        self._count += 1
        self._ranks.pop(user_id, None)
        self._ranks[user_id] = self._count
        self._know(task_id, user_id)
        if len(self._ranks) > _KNOWN_AT_MOST:
            self._ranks.popitem(last=False)

    def accepted(self, user_id: str) -> None:
        """Take note that a push of this user was accepted."""
        self._ranks.pop(user_id, None)

    def waits(self, task_id: UUID, user_id: str) -> None:
        """Learn whose a push is that was sent away."""
        if user_id in self._ranks:
            self._know(task_id, user_id)
            if task_id == self._scout and self._rank(task_id) > self._scouts_rank:
                self._scout = None  # taken for somebody else's

    def appoint(self, task_id: UUID) -> bool:
        """Make this push the scout, if it comes before the one that there is."""
        rank = self._rank(task_id)
        if self._scout not in {None, task_id} and rank >= self._scouts_rank:
            return False
        self._scout, self._scouts_rank = task_id, rank
        return True

    def dismiss(self) -> None:
        """Have no scout: another rest begins, or the last one is over for good."""
        self._scout = None

    def may_go(self, task_id: UUID, user_id: str | None = None) -> bool:
        """Tell whether nobody is expected who would tell more; `user_id` where it is known."""
        rank = self._rank(task_id) if user_id is None else self._ranks.get(user_id, _NEVER)
        return self._scout in {None, task_id} or rank <= self._scouts_rank

    def forget(self) -> None:
        """Forget all: what was refused was refused to other credentials."""
        self._ranks.clear()
        self._users.clear()
        self._scout = None

    def _rank(self, task_id: UUID) -> int:
        user_id = self._users.get(task_id)
        return _NEVER if user_id is None else self._ranks.get(user_id, _NEVER)

    def _know(self, task_id: UUID, user_id: str) -> None:
        self._users.pop(task_id, None)
        self._users[task_id] = user_id
        if len(self._users) > _KNOWN_AT_MOST:
            self._users.popitem(last=False)
