"""Whose turn it is at one gate: concurrency, pace, and the line of those who wait."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from math import inf

from domain.push import Priority
from push.gate_breaker import Ticket
from push.gate_line import Line
from push.gate_pace import Pace
from push.gate_terms import Limits, Timings
from push.sender import Booked, Paused


class Turns:
    """Gives turns to as many as the limits allow; `admit` makes the ticket at the moment at which a turn is given."""

    def __init__(
        self,
        limits: Limits,
        timings: Timings,
        *,
        admit: Callable[[], Ticket],
        clock: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        self.in_flight = 0
        self.pace = Pace(clock())
        self._limits = limits
        self._timings = timings
        self._admit = admit
        self._clock = clock
        self._chance = chance
        self._line = Line()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._line)

    def at_once(self, now: float) -> Ticket | None:
        """Give a turn if nobody waits and the limits allow it."""
        if self._line.first() is not None or not self._may_start(now):
            return None
        return self.take()

    def take(self) -> Ticket:
        """Give a turn whatever the limits say."""
        self.in_flight += 1
        return self._admit()

    async def wait(self, priority: Priority) -> Ticket:
        """Stand in line; raises Booked for a turn that is too far off, and what `dismiss` says."""
        now = self._clock()
        if self._timings.patience < self.pace.wait(now, self._line.ahead_of(priority) + 1) < inf:
            raise self._booked(now, "rate_limited")
        waiter = self._line.join(priority)
        self.let_in()
        try:
            async with asyncio.timeout(self._timings.patience):
                return await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.pace.give_back()  # let in at the very moment we gave up
                self.leave()
            if isinstance(error, TimeoutError):
                raise self._booked(self._clock(), "limit_reached") from None
            raise

    def leave(self) -> None:
        """Make room for the next one."""
        self.in_flight -= 1
        if self._line.first() is not None:
            self.let_in()

    def let_in(self) -> None:
        """Let in as many as may start, and come back when the next one may."""
        now = self._clock()
        while (waiter := self._line.first()) is not None:
            if not self._may_start(now):
                self._come_back(now)
                return
            waiter.set_result(self.take())

    def dismiss(self, why: Callable[[], Paused]) -> None:
        """Send everybody away."""
        for waiter in self._line.dismissed():
            waiter.set_exception(why())

    def _may_start(self, now: float) -> bool:
        return self.in_flight < self._limits.concurrency and self.pace.take(now)

    def _come_back(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        wait = self.pace.wait(now, 1)
        if wait < inf and self.in_flight < self._limits.concurrency:  # else whoever leaves, or a new share, lets in
            self._timer = asyncio.get_running_loop().call_later(min(max(wait, 0.001), 0.25), self.let_in)

    def _booked(self, now: float, reason: str) -> Booked:
        wait = self.pace.book(now, len(self._line), self._timings.booked_ahead)
        if wait is None and self.pace.rate(now) not in (0, inf):  # whoever would come too late just looks in again
            wait = self._timings.booked_ahead * (1 - self._chance() / 2)
        return Booked(reason, retry_after=timedelta(seconds=wait or self._timings.looking_again))
