"""Limits of each caller: requests per time, and requests at a time. No caller waits for another."""

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
from api.http.problems import Detail
from domain.problems import LimitReached, RateLimit, read_rate

_LARGER = frozenset({"service", "support"})
_Who = str | tuple[str, str]


def address(request: Request) -> str:
    """Name the address that an anonymous request is counted for; for IPv6 its /64, which one customer has."""
    host = request.client.host if request.client else ""
    try:
        found = ip_address(host)
    except ValueError:
        return host
    if isinstance(found, IPv4Address):
        return host
    return str(found.ipv4_mapped or IPv6Address(int(found) >> 64 << 64))


class Rate:
    """One limit, counted for each caller: a sliding window of two counters.

    The count of the previous window is weighted by its share that is still inside the sliding window. Counters are
    dropped as a whole, so the cost of a request does not depend on the number of callers.
    """

    def __init__(self, limit: RateLimit, clock: Callable[[], float] = time.time) -> None:
        self._most = limit.amount
        self._length = limit.seconds
        self._clock = clock
        self._window = 0
        self._counts: Counter[_Who] = Counter()
        self._before: Counter[_Who] = Counter()

    def spend(self, who: _Who) -> None:
        """Count a request; raises LimitReached for one too many, which is not counted."""
        window, passed = divmod(self._clock(), self._length)
        if window != self._window:
            self._before = self._counts if window == self._window + 1 else Counter()
            self._window, self._counts = int(window), Counter()
        weight = 1 - passed / self._length
        count, before = self._counts[who], self._before[who]
        if before * weight + count >= self._most:
            raise LimitReached(Detail.TOO_MANY_REQUESTS, self._wait(count, before, passed))
        self._counts[who] = count + 1

    def _wait(self, count: int, before: int, passed: float) -> timedelta:
        """Tell when one more is allowed, if none is counted until then."""
        if count < self._most:  # the previous window has to weigh less
            wait = self._length * (1 - (self._most - count) / before) - passed
        else:  # this window has to become the previous one, and weigh less
            wait = self._length * (2 - self._most / count) - passed
        return timedelta(seconds=wait)


class Rates:
    """The limits of users, of services, and of each user that a service acts for."""

    def __init__(self, of_users: str, of_services: str) -> None:
        self._of_users, self._of_services = _rate(of_users), _rate(of_services)
        self._of_users_acted_for = _rate(of_users)

    def spend(self, caller: Caller, acts_for: str | None = None) -> None:
        """Count a caller's request; raises LimitReached.

        `acts_for` is the user that a service names. One too many for that user is not counted for the service.
        """
        if acts_for is not None and "service" in caller.scopes and self._of_users_acted_for is not None:
            self._of_users_acted_for.spend(acts_for)
        rate = self._of_users if _LARGER.isdisjoint(caller.scopes) else self._of_services
        if rate is not None:
            rate.spend(caller.account)


def _rate(text: str) -> Rate | None:
    return None if text == "0" else Rate(read_rate(text))


WAIT = 2.0  # seconds that a request may wait for others of the same caller to end
MAX_WAITING = 64  # of one caller; more are refused at once
_RETRY_AFTER = timedelta(seconds=1)


@dataclass(slots=True)
class _Slots:
    """The slots of one caller."""

    free: asyncio.Semaphore
    wanted: int = 0  # by running and by waiting requests


@dataclass(slots=True)
class RequestPermit:
    """Permission to run a request. Releasing it again does nothing."""

    _held: ExitStack = field(default_factory=ExitStack)

    def add(self, release: Callable[[], None]) -> None:
        """Hold one more slot."""
        self._held.callback(release)

    def release(self) -> None:
        """Give the slots back."""
        self._held.close()


class RunningRequests:
    """Limits the requests under way in this process: of each user, each service, and each user a service acts for."""

    def __init__(self, of_users: int | None, of_services: int | None, wait: float = WAIT) -> None:
        self._of_users, self._of_services = of_users, of_services  # None: no limit
        self._wait = wait  # seconds
        self._slots: dict[tuple[str, str], _Slots] = {}

    async def enter(self, caller: Caller, acts_for: str | None = None) -> RequestPermit:
        """Let a request run; `acts_for` is the user that a service names. Raises LimitReached."""
        permit = RequestPermit()
        try:
            if "service" not in caller.scopes:
                await self._enter(permit, ("user" if caller.is_person else "support", caller.user_id), self._of_users)
            else:
                if acts_for is not None:  # first: waiting for this user must not hold a slot of the service
                    await self._enter(permit, ("user acted for", acts_for), self._of_users)
                await self._enter(permit, ("service", caller.user_id), self._of_services)
        except BaseException:
            permit.release()
            raise
        return permit

    async def _enter(self, permit: RequestPermit, who: tuple[str, str], most: int | None) -> None:
        if most is None:
            return
        slots = self._slots.setdefault(who, _Slots(asyncio.Semaphore(most)))
        if slots.wanted >= most + MAX_WAITING:
            raise _too_many(most)
        slots.wanted += 1
        try:
            async with asyncio.timeout(self._wait):
                await slots.free.acquire()
        except BaseException as error:
            self._forget(who, slots)
            if isinstance(error, TimeoutError):
                raise _too_many(most) from None
            raise
        permit.add(lambda: self._leave(who, slots))

    def _leave(self, who: tuple[str, str], slots: _Slots) -> None:
        slots.free.release()
        self._forget(who, slots)

    def _forget(self, who: tuple[str, str], slots: _Slots) -> None:
        slots.wanted -= 1
        if not slots.wanted:
            del self._slots[who]


def _too_many(most: int) -> LimitReached:
    detail = Detail.TOO_MANY_OF_CALLER.format(most=most)
    return LimitReached(detail, _RETRY_AFTER, code="too-many-concurrent-requests")
