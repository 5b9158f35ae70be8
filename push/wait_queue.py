"""A fair queue: users take turns, and the waiters of one user go in their order."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeAlias, TypeVar

T = TypeVar("T")
Waiter: TypeAlias = asyncio.Future[T]

_EXACT = 64  # waiters of one user; beyond, all waiters are counted as ahead, so that counting stays cheap


class QueueDepths:
    """How many waiters each user has, and so how many go before a new one."""

    def __init__(self) -> None:
        self.total = 0
        self._of_users: dict[int, int] = {}
        self._users_with: list[int] = []  # how many users have at least one, two, …

    def add(self, user: int) -> None:
        """Count one more of this user."""
        depth = self._of_users.get(user, 0)
        if depth == len(self._users_with):
            self._users_with.append(0)
        self._users_with[depth] += 1
        self._of_users[user] = depth + 1
        self.total += 1

    def remove(self, user: int) -> None:
        """Count one less of this user."""
        depth = self._of_users.pop(user) - 1
        if depth:
            self._of_users[user] = depth
        self._users_with[depth] -= 1
        if not self._users_with[-1]:
            self._users_with.pop()
        self.total -= 1

    def count_ahead(self, user: int) -> int:
        """Count those who go before this user's next one, at most: of each user as many as this one has then."""
        depth = self._of_users.get(user, 0) + 1
        return self.total if depth > _EXACT else sum(self._users_with[:depth])


class FairQueue(Generic[T]):
    """Waiters by user."""

    def __init__(self) -> None:
        self._of_users: OrderedDict[int, OrderedDict[Waiter[T], None]] = OrderedDict()  # next turn first
        self._depths = QueueDepths()

    def __len__(self) -> int:
        """Count those who wait."""
        return self._depths.total

    def count_ahead(self, user: int) -> int:
        """Count those who go before a new one of this user, at most."""
        return self._depths.count_ahead(user)

    def join(self, user: int) -> Waiter[T]:
        """Wait behind the others of this user; the future is done when the turn comes."""
        waiter: Waiter[T] = asyncio.get_running_loop().create_future()
        self._of_users.setdefault(user, OrderedDict())[waiter] = None
        self._depths.add(user)
        return waiter

    def give_up(self, user: int, waiter: Waiter[T]) -> None:
        """Stop waiting; harmless after the turn."""
        queue = self._of_users.get(user)
        if queue is not None and waiter in queue:
            self._take_out(user, queue, waiter)

    def first(self, is_skipped: Callable[[int], bool] = lambda _: False) -> int | None:
        """Return the user of the next turn; None where only skipped users wait."""
        if not self._of_users:
            return None
        while (user := next((each for each in self._of_users if not is_skipped(each)), None)) is not None:
            queue = self._of_users[user]
            waiter = next(iter(queue))
            if not waiter.done():
                return user
            self._take_out(user, queue, waiter)  # cancelled, and not yet awake to give up
        return None

    def next(self, user: int) -> Waiter[T]:
        """Take the turn of the user that `first` returned, whose next turn comes after all others'."""
        queue = self._of_users[user]
        waiter = next(iter(queue))
        self._take_out(user, queue, waiter)
        if queue:
            self._of_users.move_to_end(user)
        return waiter

    def _take_out(self, user: int, queue: OrderedDict[Waiter[T], None], waiter: Waiter[T]) -> None:
        del queue[waiter]
        self._depths.remove(user)
        if not queue:
            del self._of_users[user]
