"""One gate per route, at the call itself: limits, priorities, the circuit breaker and the brake.

Everything here belongs to one event loop. A gate that is open, with no limit reached, costs no await.
"""

import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from math import inf
from types import TracebackType
from typing import Self, TypeVar

import structlog

from domain.kinds import Priority
from domain.push import Route
from push.gate_breaker import Breaker, Cause, State, Ticket
from push.gate_terms import GateReport, Limits, Timings
from push.gate_turns import Turns
from push.sender import (
    Extent,
    Misconfigured,
    NoRoom,
    Paused,
    ProviderTrouble,
    StaleCredential,
    Throttled,
    Unavailable,
    Unsendable,
)

BRAKED = "brake_engaged"

T = TypeVar("T")

log = structlog.get_logger()


class Passage:
    """One push on its way through a gate; a context manager. Leave that was not used for a call is given back."""

    __slots__ = ("_gate", "_priority", "_ticket", "_used")

    def __init__(self, gate: "Gate", priority: Priority) -> None:
        self._gate = gate
        self._priority = priority
        self._used = False

    async def __aenter__(self) -> Self:
        """Pass at once or wait for one's turn; raises Paused, Booked."""
        self._ticket = self._gate.pass_at_once(self._priority) or await self._gate.wait_in_line(self._priority)
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        """Leave; trouble that comes before a call, while a connection is made, counts as the provider's."""
        if not self._used:
            if isinstance(error, ProviderTrouble):
                self._gate.note(self._ticket, error)
            self._gate.give_back()
        self._gate.leave(self._ticket)

    def check(self) -> None:
        """Raise Paused if the gate was shut since."""
        self._gate.check(self._ticket)

    async def call(self, call: Awaitable[T]) -> T:
        """Make the one call, and let the gate learn from what it comes to."""
        self._used = True
        try:
            answer = await call
        except ProviderTrouble as trouble:
            self._gate.note(self._ticket, trouble)
            raise
        if isinstance(answer, Unsendable):
            self._used = False
        else:
            self._gate.note(self._ticket, None)
        return answer


class Gate:
    """The gate of one route in this process. It lets nothing through before it has a share of the fleet's rate."""

    def __init__(
        self,
        route: Route,
        limits: Limits,
        timings: Timings,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.braked = False
        self._route = route
        self._limits = limits
        self._timings = timings
        self._clock = clock
        self._breaker = Breaker(timings.rests, chance)
        self._turns = Turns(limits, timings, admit=self._breaker.admit, clock=clock, chance=chance)
        self._log = log.bind(provider=route.provider.value, app_id=route.app_id, environment=route.environment.value)

    def enter(self, priority: Priority) -> Passage:
        """Ask to make one call; `async with` it."""
        return Passage(self, priority)

    def share(self, share: float | None) -> None:
        """Learn which part of the fleet's rate is this process's; None: not heard by it yet, so nothing may go out."""
        rate = inf if self._limits.rate is None else self._limits.rate * (share or 0.0)
        self._turns.pace.full = 0.0 if share is None else rate
        self._turns.let_in()

    def brake(self) -> None:
        """Shut the gate until a person resumes."""
        self.braked = True
        self._turns.dismiss(self._paused)

    def release(self) -> None:
        """Open the gate slowly: a person resumed."""
        if self.braked:
            self.braked = False
            self._turns.pace.ramp_up(self._clock(), self._timings.ramp)

    def start_afresh(self) -> None:
        """Forget what was learnt with other credentials; a gate that was shut opens slowly."""
        was_open = self._breaker.open_since
        self._breaker.reset()
        if was_open is not None:
            self._reopen(self._clock() - was_open)

    def report(self) -> GateReport:
        """Tell how the gate stands."""
        now = self._clock()
        state = self._breaker.state(now)
        rate = self._turns.pace.rate(now)
        until = datetime.now(UTC) + timedelta(seconds=self._breaker.open_until - now)
        return GateReport(
            provider=self._route.provider.value,
            app_id=self._route.app_id,
            environment=self._route.environment.value,
            state="braked" if self.braked else state.value,
            cause="brake" if self.braked else self._breaker.cause,
            reason=BRAKED if self.braked else self._breaker.reason,
            until=until if state is State.OPEN and not self.braked else None,
            waiting=self._turns.waiting,
            in_flight=self._turns.in_flight,
            rate=None if rate == inf else rate,
        )

    async def wait_in_line(self, priority: Priority) -> Ticket:
        """Wait for one's turn; raises Paused, or Booked for a turn that is too far off."""
        return await self._turns.wait(priority)

    def pass_at_once(self, priority: Priority) -> Ticket | None:
        """Give leave at once, None where one has to wait; raises Paused."""
        now = self._clock()
        if self.braked or not self._breaker.lets_through(now):
            raise self._paused()
        if self._breaker.open_since is not None:
            return self._turns.take()  # the probe
        return self._turns.at_once(now, priority)

    def check(self, ticket: Ticket) -> None:
        """Raise Paused if the gate was shut since leave was given."""
        if self.braked or not self._breaker.still_good(ticket):
            raise self._paused()

    def give_back(self) -> None:
        """Take back leave that was not used for a call."""
        self._turns.pace.give_back()

    def leave(self, ticket: Ticket) -> None:
        """Make room for the next one; a probe that came to nothing hands the probe on."""
        self._breaker.given_back(ticket)
        self._turns.leave()

    def note(self, ticket: Ticket, trouble: ProviderTrouble | None) -> None:
        """Learn from what a call came to."""
        was_open, known_cause = self._breaker.open_since, self._breaker.cause
        match trouble:
            case None | Throttled(extent=Extent.TOKEN):
                self._breaker.succeeded(ticket)
            case Throttled():
                self._fail(ticket, Cause.THROTTLED, trouble)
            case Misconfigured():
                self._fail(ticket, Cause.MISCONFIGURED, trouble)
            case Unavailable() if not isinstance(trouble, StaleCredential | NoRoom):
                self._fail(ticket, Cause.OUTAGE, trouble)
            case _:  # nothing that the provider said about itself
                return
        if self._breaker.open_since is None:
            if was_open is not None:
                self._reopen(self._clock() - was_open)
        elif self._breaker.cause is not known_cause:
            self._shut()

    def _paused(self) -> Paused:
        left = self._breaker.open_until - self._clock()
        if self.braked or left <= 0:  # a person decides, or a probe is under way
            left = self._timings.looking_again
        reason = BRAKED if self.braked else self._breaker.reason or "paused"
        return Paused(reason, retry_after=timedelta(seconds=min(left, self._timings.longest_pause)))

    def _fail(self, ticket: Ticket, cause: Cause, trouble: ProviderTrouble) -> None:
        retry_after = None if trouble.retry_after is None else trouble.retry_after.total_seconds()
        self._breaker.failed(ticket, self._clock(), cause, trouble.reason, retry_after)

    def _shut(self) -> None:
        rest = round(self._breaker.open_until - self._clock(), 1)
        tell = self._log.error if self._breaker.cause is Cause.MISCONFIGURED else self._log.warning
        tell("breaker opened", cause=self._breaker.cause, reason=self._breaker.reason, rest=rest)
        self._turns.dismiss(self._paused)

    def _reopen(self, after: float) -> None:
        self._log.info("breaker closed", after=round(after, 1))
        self._turns.pace.ramp_up(self._clock(), min(self._timings.ramp, after))
