"""Turns at one gate that were given away: the most important first, and among equals users take turns.

A turn says when to come back to the line, and keeps no place there. The clock is passed in.
"""

from heapq import heappop, heappush

from domain.kinds import Priority
from push.waiters import QueueDepths


class Bookings:
    """Whose turns are still to come, by priority."""

    def __init__(self) -> None:
        self._turns: dict[Priority, list[tuple[float, int]]] = {priority: [] for priority in Priority}  # heaps
        self._depths = {priority: QueueDepths() for priority in Priority}

    def book(
        self, now: float, priority: Priority, user: int, *, wait: float, each: float, at_most: float
    ) -> float | None:
        """Give a turn away; in how many seconds, None where that is more than `at_most`.

        `wait` is how long those in line take, and `each` how long one turn takes, in seconds.
        """
        self._forget(now)
        before = sum(depths.total for other, depths in self._depths.items() if other < priority)
        turn = wait + (before + self._depths[priority].ahead_of(user) + 1) * each
        if turn > at_most:
            return None
        heappush(self._turns[priority], (now + turn, user))
        self._depths[priority].add(user)
        return turn

    def _forget(self, now: float) -> None:
        for priority, turns in self._turns.items():
            while turns and turns[0][0] <= now:
                self._depths[priority].remove(heappop(turns)[1])
