"""Who may call next on one route: concurrency, rate, and the queue of those who wait."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from datetime import timedelta
from heapq import heappop, heappush
from math import inf

from domain.kinds import Priority
from push.limiter.breaker import Breaker, BreakerPermit
from push.limiter.settings import Limits, Timings
from push.sender import Paused, Reserved
from push.wait_queue import FairQueue, QueueDepths, Waiter

BURST = 0.1  # seconds' worth of calls that may start at once
RAMP_TO = 1000.0  # calls per second at the end of a ramp, where there is no limit
RAMP_FROM = 0.02  # of what a ramp leads to
_KEPT = 4  # one in so many of the calls in flight is kept for reminders that are due
_SHARE = 4  # one in so many of the calls in flight may be one user's
_LATELY = 256  # calls, whose ends show how fast a queue without a rate moves
NOBODY = 0  # in place of the digest of an unknown user


class WaitQueue:
    """Waiting pushes by priority and user."""

    def __init__(self) -> None:
        self._waiting: dict[Priority, FairQueue[BreakerPermit]] = {priority: FairQueue() for priority in Priority}

    def __len__(self) -> int:
        """Count the waiting pushes."""
        return sum(map(len, self._waiting.values()))

    def count_ahead(self, priority: Priority, user: int) -> int:
        """Count the waiting pushes that go before a new one of this user, at most."""
        before = sum(len(waiting) for other, waiting in self._waiting.items() if other < priority)
        return before + self._waiting[priority].count_ahead(user)

    def join(self, priority: Priority, user: int) -> Waiter[BreakerPermit]:
        """Wait behind the others of the same priority and user; the future is done when the turn comes."""
        return self._waiting[priority].join(user)

    def give_up(self, priority: Priority, user: int, waiter: Waiter[BreakerPermit]) -> None:
        """Stop waiting; harmless after the turn."""
        self._waiting[priority].give_up(user, waiter)

    def first(self, is_skipped: Callable[[int], bool] = lambda _: False) -> tuple[Priority, int] | None:
        """Return priority and user of the next turn; None where only skipped users wait."""
        for priority, waiting in self._waiting.items():
            if (user := waiting.first(is_skipped)) is not None:
                return priority, user
        return None

    def next(self, priority: Priority, user: int) -> Waiter[BreakerPermit]:
        """Take the turn that `first` returned."""
        return self._waiting[priority].next(user)

    def drain(self) -> Iterator[Waiter[BreakerPermit]]:
        """Empty the queue."""
        while (first := self.first()) is not None:
            yield self.next(*first)


class Reservations:
    """Turns that are reserved and still to come, by priority."""

    def __init__(self) -> None:
        self._admission: dict[Priority, list[tuple[float, int]]] = {priority: [] for priority in Priority}  # heaps
        self._depths = {priority: QueueDepths() for priority in Priority}

    def reserve(
        self, now: float, priority: Priority, user: int, *, wait: float, each: float, at_most: float
    ) -> float | None:
        """Reserve a turn; returns in how many seconds it is, None where that is more than `at_most`.

        `wait` is how long the queue takes, and `each` how long one turn takes, in seconds.
        """
        self._forget(now)
        before = sum(depths.total for other, depths in self._depths.items() if other < priority)
        turn = wait + (before + self._depths[priority].count_ahead(user) + 1) * each
        if turn > at_most:
            return None
        heappush(self._admission[priority], (now + turn, user))
        self._depths[priority].add(user)
        return turn

    def _forget(self, now: float) -> None:
        for priority, turns in self._admission.items():
            while turns and turns[0][0] <= now:
                self._depths[priority].remove(heappop(turns)[1])


class TokenBucket:
    """How many calls may start: `full` per second, infinite without a limit, and none at first."""

    def __init__(self, now: float) -> None:
        self.full = 0.0
        self._rate = 0.0
        self._at = now
        self._level = 1.0
        self._ramp_began = self._ramp_ends = now

    def ramp_up(self, now: float, lasting: float) -> None:
        """Start again at a small part of the full rate, and grow to all of it in so many seconds."""
        self._ramp_began, self._ramp_ends = now, now + lasting

    def rate(self, now: float) -> float:
        """Return how many calls per second may start at present."""
        if now >= self._ramp_ends:
            return self.full
        top = min(self.full, RAMP_TO)
        done = (now - self._ramp_began) / (self._ramp_ends - self._ramp_began)
        return max(top * max(RAMP_FROM, done), min(top, 1.0))

    def take(self, now: float) -> bool:
        """Take a token for one call; False when it is too early."""
        self._fill(now)
        if self._rate == inf:
            return True
        if self._level < 1 or self._rate == 0:
            return False
        self._level -= 1
        return True

    def give_back(self) -> None:
        """Return an unused token."""
        self._level = min(self._most, self._level + 1)

    def wait(self, now: float, count: int) -> float:
        """Return in how many seconds so many calls may have started; infinite where none may start."""
        self._fill(now)
        if self._rate in (0, inf):
            return 0.0 if self._rate else inf
        return max(0.0, (count - self._level) / self._rate)

    @property
    def _most(self) -> float:
        return max(1.0, self._rate * BURST)

    def _fill(self, now: float) -> None:
        """Add the tokens since the last time, then go on at the present rate."""
        if self._rate != inf:
            self._level = min(self._most, self._level + (now - self._at) * self._rate)
        rate = self.rate(now)
        if rate != self._rate:
            self._rate = rate
            self._level = min(self._level, self._most)
        self._at = now


class AdmissionQueue:
    """Gives turns to as many as the limits allow.

    While the breaker is open, the queue waits for the outcome of a probe. If that decides nothing, the next one probes.
    """

    def __init__(
        self,
        limits: Limits,
        timings: Timings,
        breaker: Breaker,
        *,
        clock: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        self.in_flight = 0
        self.token_bucket = TokenBucket(clock())
        self._limits = limits
        self._timings = timings
        self._breaker = breaker
        self._clock = clock
        self._chance = chance
        self._waiters = WaitQueue()
        self._most_of_one = max(1, limits.concurrency // _SHARE)
        self._of_users: dict[int, int] = {}  # calls in flight
        self._reservations = Reservations()
        self._left: deque[float] = deque(maxlen=_LATELY)
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many pushes wait."""
        return len(self._waiters)

    @property
    def has_plenty(self) -> bool:
        """Whether nobody waits, no rate is set, and a part of the calls in flight would still be free."""
        kept = self._limits.concurrency // _KEPT
        is_limited = self.in_flight >= self._limits.concurrency - kept or self.token_bucket.full != inf
        return not is_limited and not self._waiters

    def at_once(self, now: float, priority: Priority, user: int) -> BreakerPermit | None:
        """Give a turn if nobody waits and the limits allow it."""
        if (
            self._has_share(user)
            or self._waiters.first(self._has_share) is not None
            or not self._may_start(now, priority)
        ):
            return None
        return self.take(user)

    def take(self, user: int) -> BreakerPermit:
        """Give a turn whatever the limits say."""
        self.in_flight += 1
        self._of_users[user] = self._of_users.get(user, 0) + 1
        return self._breaker.admit(user)

    async def wait(self, priority: Priority, user: int) -> BreakerPermit:
        """Wait in the queue; raises Reserved for a turn that is too far off, and what `dismiss` gives."""
        now = self._clock()
        ahead = self._waiters.count_ahead(priority, user)
        if self._timings.patience < self.token_bucket.wait(now, ahead + 1) < inf:
            raise self._reserved(now, priority, user, ahead, "rate_limited")
        waiter = self._waiters.join(priority, user)
        self.admit_waiting()
        try:
            async with asyncio.timeout(self._timings.patience):
                return await waiter
        except BaseException as error:
            self._waiters.give_up(priority, user, waiter)
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._breaker.unused(waiter.result())  # admitted at the very moment we gave up
                self.token_bucket.give_back()
                self.leave(user)
            if isinstance(error, TimeoutError):
                # all who were ahead have gone or given up as well
                raise self._reserved(self._clock(), priority, user, 0, "limit_reached") from None
            raise

    def leave(self, user: int) -> None:
        """Make room for the next one."""
        self.in_flight -= 1
        if self._of_users[user] > 1:
            self._of_users[user] -= 1
        else:
            del self._of_users[user]
        self._left.append(self._clock())
        self.admit_waiting()

    def admit_waiting(self) -> None:
        """Admit as many as may start, and come back when the next one may; one as the probe of an open breaker."""
        now = self._clock()
        if self._breaker.open_since is not None:
            self._admit_probe(now)
            return
        while (first := self._waiters.first(self._has_share)) is not None:
            priority, user = first
            if not self._may_start(now, priority):
                self._come_back(now, priority)
                return
            self._waiters.next(priority, user).set_result(self.take(user))

    def _admit_probe(self, now: float) -> None:
        """Let one who waits probe, of the refused only where nobody else waits."""
        if self._breaker.is_fresh_probing:
            return
        for is_skipped in (lambda user: not self._breaker.is_fresh(user), self._has_share):
            first = self._waiters.first(is_skipped)
            if first is not None and self._breaker.allows(now, first[1]):
                self._waiters.next(*first).set_result(self.take(first[1]))
                return

    def dismiss(self, why: Callable[[], Paused]) -> None:
        """Send all who wait away."""
        for waiter in self._waiters.drain():
            waiter.set_exception(why())

    def _has_room(self, priority: Priority) -> bool:
        """Whether one more call may start; a part is kept for reminders, however slow other calls are."""
        kept = 0 if priority is Priority.REMINDER else self._limits.concurrency // _KEPT
        return self.in_flight < self._limits.concurrency - kept

    def _has_share(self, user: int) -> bool:
        """Whether a user's calls take the share of one user: they may be slow, and others need the rest."""
        return self._of_users.get(user, 0) >= self._most_of_one and user != NOBODY

    def _may_start(self, now: float, priority: Priority) -> bool:
        return self._has_room(priority) and self.token_bucket.take(now)

    def _come_back(self, now: float, priority: Priority) -> None:
        if self._timer is not None:
            self._timer.cancel()
        wait = self.token_bucket.wait(now, 1)
        if wait < inf and self._has_room(priority):  # else the next call that ends, or a new share, admits
            self._timer = asyncio.get_running_loop().call_later(min(max(wait, 0.001), 0.25), self.admit_waiting)

    def _reserved(self, now: float, priority: Priority, user: int, ahead: int, reason: str) -> Reserved:
        rate, chance = self.token_bucket.rate(now), self._chance()
        if rate == 0:
            return Reserved(reason, retry_after=timedelta(seconds=self._timings.check_again * (1 + chance)))
        each = self._seconds_each(now) if rate == inf else 1 / rate
        wait = ahead * each if rate == inf else self.token_bucket.wait(now, ahead)
        at_most = self._timings.max_reserved
        turn = self._reservations.reserve(now, priority, user, wait=wait, each=each, at_most=at_most)
        if turn is None:  # too far ahead to reserve: it just asks again
            turn = at_most * (1 - chance / 2)
        return Reserved(reason, retry_after=timedelta(seconds=turn))

    def _seconds_each(self, now: float) -> float:
        """Return how long a turn takes at full concurrency, by the calls that ended lately."""
        at_most = self._timings.longest_call / self._limits.concurrency
        return min(at_most, (now - self._left[0]) / len(self._left)) if self._left else at_most
