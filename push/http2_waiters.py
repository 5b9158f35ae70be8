"""Those who wait for a place on a connection: users take turns, and each user's calls go in the order they came."""

import asyncio
from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Waiters(Generic[T]):
    """Waiters by user. One who gave up stays until it would be its turn."""

    def __init__(self) -> None:
        self._of_users: OrderedDict[int, deque[asyncio.Future[T]]] = OrderedDict()  # whose turn is next comes first

    def join(self, user: int) -> asyncio.Future[T]:
        """Wait behind the other calls of this user; the future is settled when it is one's turn."""
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._of_users.setdefault(user, deque()).append(waiter)
        return waiter

    def any(self) -> bool:
        """Tell whether anybody waits."""
        while self._of_users:
            user, waiting = next(iter(self._of_users.items()))
            while waiting and waiting[0].done():
                waiting.popleft()
            if waiting:
                return True
            del self._of_users[user]
        return False

    def next(self) -> asyncio.Future[T]:
        """Take whose turn it is, after `any` told that there is one; that user's next turn comes after all others'."""
        user, waiting = next(iter(self._of_users.items()))
        waiter = waiting.popleft()
        if waiting:
            self._of_users.move_to_end(user)
        else:
            del self._of_users[user]
        return waiter
