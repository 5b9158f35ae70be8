"""How often each caller may ask: counted in this process, over a window that slides."""

import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address

from fastapi import Request

from api.auth import Caller
from domain.problems import LimitReached
from domain.rate_limit import RateLimit, parse

_LARGER = frozenset({"service", "support"})


def address(request: Request) -> str:
    """Name whom a request without a caller counts for: an address, of IPv6 its /64, which is what one customer has."""
    host = request.client.host if request.client else ""
    try:
        found = ip_address(host)
    except ValueError:
        return host
    if isinstance(found, IPv4Address):
        return host
    return str(found.ipv4_mapped or IPv6Address(int(found) >> 64 << 64))


class Rate:
    """One limit, counted for each caller.

    The count of the window before this one weighs as much as of it still lies within the last window's length. Both are
    forgotten as a whole, so a request costs the same however many callers there are.
    """

    def __init__(self, limit: RateLimit, clock: Callable[[], float] = time.time) -> None:
        self._most = limit.amount
        self._length = limit.seconds
        self._clock = clock
        self._window = 0
        self._counts: Counter[str] = Counter()
        self._before: Counter[str] = Counter()

    def spend(self, user_id: str) -> None:
        """Count a request; raises LimitReached for one too many, which does not count."""
        window, passed = divmod(self._clock(), self._length)
        if window != self._window:
            self._before = self._counts if window == self._window + 1 else Counter()
            self._window, self._counts = int(window), Counter()
        weight = 1 - passed / self._length
        count, before = self._counts[user_id], self._before[user_id]
        if before * weight + count >= self._most:
            raise LimitReached("Too many requests. Try again later.", self._wait(count, before, passed))
        self._counts[user_id] = count + 1

    def _wait(self, count: int, before: int, passed: float) -> timedelta:
        """Tell when one more has room, if nothing is asked until then."""
        if count < self._most:  # the window before has to weigh less
            wait = self._length * (1 - (self._most - count) / before) - passed
        else:  # this window has to be the one before, and weigh less
            wait = self._length * (2 - self._most / count) - passed
        return timedelta(seconds=wait)


class Rates:
    """The limit of each kind of caller."""

    def __init__(self, of_users: str, of_services: str) -> None:
        self._of_users, self._of_services = _rate(of_users), _rate(of_services)

    def spend(self, caller: Caller) -> None:
        """Count a caller's request; raises LimitReached."""
        rate = self._of_users if _LARGER.isdisjoint(caller.scopes) else self._of_services
        if rate is not None:
            rate.spend(caller.user_id)


def _rate(text: str) -> Rate | None:
    return None if text == "0" else Rate(parse(text))
