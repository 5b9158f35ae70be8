"""Those who wait for their turn: users take turns, and what each of them has waiting goes in the order it came."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeAlias, TypeVar

T = TypeVar("T")
Waiter: TypeAlias = asyncio.Future[T]

_EXACT = 64  # waiting of one user; who has more is told the number of all, so that counting stays cheap


class QueueDepths:
    """How many each user has waiting, and so how many go before a newcomer."""

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
        """Count those who go before this user's next one, at most: of every user as many as this one has then."""
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
        """Count those who go before a newcomer of this user, at most."""
        return self._depths.count_ahead(user)

    def join(self, user: int) -> Waiter[T]:
        """Wait behind the others of this user; the future is settled when it is one's turn."""
        waiter: Waiter[T] = asyncio.get_running_loop().create_future()
        self._of_users.setdefault(user, OrderedDict())[waiter] = None
        self._depths.add(user)
        return waiter

    def give_up(self, user: int, waiter: Waiter[T]) -> None:
        """Wait no longer; harmless after one's turn."""
        queue = self._of_users.get(user)
        if queue is not None and waiter in queue:
            self._take_out(user, queue, waiter)

    def first(self, is_skipped: Callable[[int], bool] = lambda _: False) -> int | None:
        """Tell which user's turn it is; None where nobody waits but users who are passed over."""
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
        """Take the turn of the user that `first` told; that one's next turn comes after all others'."""
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
