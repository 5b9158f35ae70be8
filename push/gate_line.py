"""The line before one gate: the most important first, and among equals users take turns."""

from collections.abc import Callable, Iterator

from domain.kinds import Priority
from push.gate_breaker import Ticket
from push.waiters import Waiter, Waiters


class Line:
    """Those who wait, by priority and user."""

    def __init__(self) -> None:
        self._waiting: dict[Priority, Waiters[Ticket]] = {priority: Waiters() for priority in Priority}

    def __len__(self) -> int:
        """Count those who wait."""
        return sum(map(len, self._waiting.values()))

    def ahead_of(self, priority: Priority, user: int) -> int:
        """Count those who go before a newcomer of this user, at most; of those who are there already."""
        before = sum(len(waiting) for other, waiting in self._waiting.items() if other < priority)
        return before + self._waiting[priority].ahead_of(user)

    def join(self, priority: Priority, user: int) -> Waiter[Ticket]:
        """Wait behind the others of one's own priority and user; the future is settled when it is one's turn."""
        return self._waiting[priority].join(user)

    def give_up(self, priority: Priority, user: int, waiter: Waiter[Ticket]) -> None:
        """Wait no longer; harmless after one's turn."""
        self._waiting[priority].give_up(user, waiter)

    def first(self, is_passed_over: Callable[[int], bool] = lambda _: False) -> tuple[Priority, int] | None:
        """Tell of which priority and user the next one is; None where nobody waits but users who are passed over."""
        for priority, waiting in self._waiting.items():
            if (user := waiting.first(is_passed_over)) is not None:
                return priority, user
        return None

    def next(self, priority: Priority, user: int) -> Waiter[Ticket]:
        """Take the turn that `first` told."""
        return self._waiting[priority].next(user)

    def dismissed(self) -> Iterator[Waiter[Ticket]]:
        """Empty the line."""
        while (first := self.first()) is not None:
            yield self.next(*first)
