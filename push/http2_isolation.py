"""Keeps users apart after a connection was lost with their calls on it, so that one user's calls cannot end others'.

A peer or a proxy may cut a connection because of one call. Which one is unknown. So the users whose calls were lost
share their next connection with a quarter as many others, until each has one alone. The first answer ends that.
"""

from collections.abc import Collection

MAX_ISOLATED = 4096  # users; the first ones are forgotten beyond that, which costs them nothing


class Isolation:
    """How many users may share a connection, by those who are on it."""

    def __init__(self) -> None:
        self._max_users: dict[int, int] = {}  # of a connection, for those who lost calls

    def may_join(self, user: int, others: Collection[int]) -> bool:
        """Tell whether a user may share a connection with the users who have calls on it."""
        if not self._max_users or not others:
            return True
        together = {user, *others}
        return len(together) == 1 or all(len(together) <= self._max_users.get(each, len(together)) for each in together)

    def lost(self, user: int, sharing: int) -> None:
        """Note that a user's call ended with its connection, on which so many users had calls."""
        if len(self._max_users) >= MAX_ISOLATED:
            del self._max_users[next(iter(self._max_users))]
        self._max_users[user] = max(1, sharing // 4)

    def answered(self, user: int) -> None:
        """Note that a user's call was answered."""
        self._max_users.pop(user, None)
