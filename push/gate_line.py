"""The line before one gate: the most important first, then whoever came first."""

import asyncio
from collections import deque
from collections.abc import Iterator

from domain.kinds import Priority
from push.gate_breaker import Ticket

Waiter = asyncio.Future[Ticket]


class Line:
    """Those who wait. One who gave up stays until it would be its turn."""

    def __init__(self) -> None:
        self._waiting: dict[Priority, deque[Waiter]] = {priority: deque() for priority in Priority}

    def __len__(self) -> int:
        """Count those who wait."""
        return sum(map(len, self._waiting.values()))

    def ahead_of(self, priority: Priority) -> int:
        """Count those who go before a newcomer."""
        return sum(len(waiting) for other, waiting in self._waiting.items() if other <= priority)

    def join(self, priority: Priority) -> Waiter:
        """Go to the end of one's own priority; the future is settled when it is one's turn."""
        waiter: Waiter = asyncio.get_running_loop().create_future()
        self._waiting[priority].append(waiter)
        return waiter

    def first(self) -> tuple[Priority, Waiter] | None:
        """Look who is next."""
        for priority, waiting in self._waiting.items():
            while waiting and waiting[0].done():
                waiting.popleft()  # gave up
            if waiting:
                return priority, waiting[0]
        return None

    def dismissed(self) -> Iterator[Waiter]:
        """Empty the line."""
        for waiting in self._waiting.values():
            while waiting:
                waiter = waiting.popleft()
                if not waiter.done():
                    yield waiter
