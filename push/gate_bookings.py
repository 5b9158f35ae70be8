"""Turns at one gate that were given away: each priority after all that go before it. The clock is passed in."""

from domain.kinds import Priority


class Bookings:
    """When the last turn of each priority is."""

    def __init__(self, now: float) -> None:
        self._until = dict.fromkeys(Priority, now)

    def book(self, now: float, priority: Priority, wait: float, each: float, at_most: float) -> float | None:
        """Give a turn away; in how many seconds, None where that is more than `at_most`.

        `wait` is how long those in line take, and `each` how long one turn takes, in seconds.
        """
        before = max(until for other, until in self._until.items() if other <= priority)
        turn = max(before, now + wait) + each
        if turn - now > at_most:
            return None
        self._until[priority] = turn
        for other, until in self._until.items():
            if other > priority and until > now:
                self._until[other] = until + each  # whoever books there comes after this one, too
        return turn - now
