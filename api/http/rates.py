"""How often each caller may ask, and how many of their requests run at a time; nobody waits for somebody else's."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address

from fastapi import Request

from api.http.auth import Caller
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


WAIT = 2.0  # seconds that a request may wait for another of the same caller to end

MAX_WAITING = 64  # of one caller; beyond this a request is refused at once

_RETRY_AFTER = timedelta(seconds=1)


@dataclass(slots=True)
class _Places:
    """The places of one caller."""

    free: asyncio.Semaphore
    wanted: int = 0  # by requests that run, and by those that wait


@dataclass(slots=True)
class RequestPermit:
    """Leave to run; given back once, however often it is released."""

    _held: ExitStack = field(default_factory=ExitStack)

    def add(self, release: Callable[[], None]) -> None:
        """Hold one more place."""
        self._held.callback(release)

    def release(self) -> None:
        """Give the places back."""
        self._held.close()


class RunningRequests:
    """Counts the requests under way in this process: of each user, of each service, of each user a service acts for."""

    def __init__(self, of_users: int | None, of_services: int | None, wait: float = WAIT) -> None:
        self._of_users, self._of_services = of_users, of_services  # None: no limit
        self._wait = wait  # seconds
        self._places: dict[tuple[str, str], _Places] = {}

    async def enter(self, caller: Caller, acts_for: str | None = None) -> RequestPermit:
        """Let a request run; `acts_for` is the user whom a service names. Raises LimitReached."""
        permit = RequestPermit()
        try:
            if "service" not in caller.scopes:
                await self._enter(permit, ("user", caller.user_id), self._of_users)
            else:
                if acts_for is not None:  # first: who waits for this user must not take a place from the others
                    await self._enter(permit, ("user acted for", acts_for), self._of_users)
                await self._enter(permit, ("service", caller.user_id), self._of_services)
        except BaseException:
            permit.release()
            raise
        return permit

    async def _enter(self, permit: RequestPermit, who: tuple[str, str], most: int | None) -> None:
        if most is None:
            return
        places = self._places.setdefault(who, _Places(asyncio.Semaphore(most)))
        if places.wanted >= most + MAX_WAITING:
            raise _too_many(most)
        places.wanted += 1
        try:
            async with asyncio.timeout(self._wait):
                await places.free.acquire()
        except BaseException as error:
            self._forget(who, places)
            if isinstance(error, TimeoutError):
                raise _too_many(most) from None
            raise
        permit.add(lambda: self._leave(who, places))

    def _leave(self, who: tuple[str, str], places: _Places) -> None:
        places.free.release()
        self._forget(who, places)

    def _forget(self, who: tuple[str, str], places: _Places) -> None:
        places.wanted -= 1
        if not places.wanted:
            del self._places[who]


def _too_many(most: int) -> LimitReached:
    detail = f"At most {most} requests of one caller run at a time. Try again when others are answered."
    return LimitReached(detail, _RETRY_AFTER, code="too-many-concurrent-requests")
