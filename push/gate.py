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
from uuid import UUID

import structlog

from domain.kinds import Priority
from domain.push import Route
from push.gate_alarm import RefusalAlarm
from push.gate_breaker import Bearing, Breaker, Cause, State, Ticket, Trouble
from push.gate_probe import Scouts
from push.gate_terms import GateReport, Limits, Timings
from push.gate_turns import Turns
from push.sender import (
    Accepted,
    AnsweredUnavailable,
    Appointed,
    Extent,
    Misconfigured,
    NoRoom,
    NotConfigured,
    Paused,
    ProviderTrouble,
    StaleCredential,
    Throttled,
    TokenMisconfigured,
    Unavailable,
    Unsendable,
)

BRAKED = "brake_engaged"

T = TypeVar("T")

log = structlog.get_logger()


class Passage:
    """One push on its way through a gate; a context manager. Leave that was not used for a call is given back."""

    __slots__ = ("_failed_at", "_gate", "_priority", "_task_id", "_ticket", "_used", "_user")

    def __init__(self, gate: "Gate", priority: Priority, task_id: UUID, user: int) -> None:
        self._gate = gate
        self._priority = priority
        self._task_id = task_id
        self._user = user
        self._ticket: Ticket | None = None
        self._used = False
        self._failed_at = 0.0

    async def __aenter__(self) -> Self:
        """Pass at once or wait for one's turn; raises Paused, Booked."""
        at_once = self._gate.pass_at_once(self._priority, self._task_id)
        self._ticket = at_once or await self._gate.wait_in_line(self._priority, self._user)
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        """Leave; trouble that comes before a call is the end of a probe, and otherwise waits for `hindered`."""
        assert self._ticket is not None
        self._failed_at = self._gate.now()
        if not self._used:
            is_telling = isinstance(error, NotConfigured) or self._gate.is_probe(self._ticket)
            if is_telling and isinstance(error, ProviderTrouble):
                self._gate.note(self._ticket, self._task_id, None, error, self._failed_at)
            self._gate.give_back()
        self._gate.leave(self._ticket)

    def check(self) -> None:
        """Raise Paused if the gate was shut since."""
        assert self._ticket is not None
        self._gate.check(self._ticket)

    def kept_for_others(self, user_id: str) -> timedelta | None:
        """Tell how long to wait where this is the probe, but of a user who was refused, and another's push is near."""
        assert self._ticket is not None
        return self._gate.kept_for_others(self._ticket, self._task_id, user_id)

    async def call(self, call: Awaitable[T], user_id: str) -> T:
        """Make the one call, for this user, and let the gate learn from what it comes to."""
        assert self._ticket is not None
        self._used = True
        try:
            answer = await call
        except ProviderTrouble as trouble:
            self._gate.note(self._ticket, self._task_id, user_id, trouble, self._gate.now())
            raise
        if isinstance(answer, Unsendable):
            self._used = False
        elif isinstance(answer, Accepted):
            self._gate.accepted(self._ticket, user_id)
        else:
            self._gate.answered(self._ticket)
        return answer

    def hindered(self, trouble: ProviderTrouble, user_id: str, left: float) -> None:
        """Tell whose push it was that met trouble before a call, and for how many seconds more it is of use.

        This is known only afterwards: whoever may not call is checked all the same.
        """
        if isinstance(trouble, Paused):
            self._gate.sent_away(self._task_id, user_id, left)
        elif self._ticket is not None and not self._used:
            self._gate.note(self._ticket, self._task_id, user_id, trouble, self._failed_at)


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
        self._scouts = Scouts()
        self._alarm = RefusalAlarm(self._log, timings.alarm_after)

    def enter(self, priority: Priority, task_id: UUID, user_digest: int = 0) -> Passage:
        """Ask to make one call for a push task; `async with` it. Users take turns, told apart by their digests."""
        return Passage(self, priority, task_id, user_digest)

    def now(self) -> float:
        """Tell the time of this gate, in seconds."""
        return self._clock()

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
        self._scouts.forget()
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

    async def wait_in_line(self, priority: Priority, user: int) -> Ticket:
        """Wait for one's turn; raises Paused, or Booked for a turn that is too far off."""
        return await self._turns.wait(priority, user)

    def pass_at_once(self, priority: Priority, task_id: UUID) -> Ticket | None:
        """Give leave at once, None where one has to wait; raises Paused."""
        now = self._clock()
        if self.braked or not self._breaker.lets_through(now):
            raise self._sent_away(task_id, now)
        if self._breaker.open_since is None:
            return self._turns.at_once(now, priority)
        if now < self._breaker.open_until + self._timings.looking_again and not self._scouts.may_go(task_id):
            raise self._paused()
        return self._turns.take()  # the probe

    def is_probe(self, ticket: Ticket) -> bool:
        """Whether this is leave for the one call that tries the route."""
        return self._breaker.is_probe(ticket)

    def kept_for_others(self, ticket: Ticket, task_id: UUID, user_id: str) -> timedelta | None:
        """Tell how long to wait where the probe is to be another user's, who is expected any moment."""
        is_late = self._clock() >= self._breaker.open_until + self._timings.looking_again
        if is_late or not self._breaker.is_probe(ticket) or self._scouts.may_go(task_id, user_id):
            return None
        self._scouts.waits(task_id, user_id)
        return timedelta(seconds=self._timings.looking_again)

    def sent_away(self, task_id: UUID, user_id: str, left: float) -> None:
        """Learn whose push waits at the shut gate, and for how many seconds more it is of use."""
        self._scouts.waits(task_id, user_id)
        self._breaker.hurry(self._clock(), left)

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

    def accepted(self, ticket: Ticket, user_id: str) -> None:
        """Learn that a push of this user was accepted."""
        was_open = self._breaker.open_since
        self._scouts.accepted(user_id)
        self._breaker.succeeded(ticket, self._clock())
        self._closed(was_open)

    def answered(self, ticket: Ticket) -> None:
        """Learn that the provider answered about one push, which says little about the others."""
        was_open = self._breaker.open_since
        self._breaker.answered(ticket)
        self._closed(was_open)

    def note(self, ticket: Ticket, task_id: UUID, user_id: str | None, trouble: ProviderTrouble, at: float) -> None:
        """Learn from trouble that a push met at this time, of this user if that is known."""
        if isinstance(trouble, Throttled) and trouble.extent is Extent.TOKEN:
            self.answered(ticket)
            return
        if user_id is not None and isinstance(trouble, Misconfigured):
            self._alarm.note(trouble.reason, task_id, user_id)
        if user_id is not None and not isinstance(trouble, StaleCredential | NoRoom):
            self._scouts.refused(task_id, user_id)
        said = _about_the_route(trouble)
        if said is None:
            return
        until, known_cause = self._breaker.open_until, self._breaker.cause
        self._breaker.failed(ticket, at, said, user_id)
        if self._breaker.open_since is None:
            return
        if self._breaker.open_until != until:
            self._scouts.dismiss()  # another rest
        if self._breaker.cause is not known_cause:
            self._shut()

    def _sent_away(self, task_id: UUID, now: float) -> Paused:
        """Say when to look in again; one of those who wait comes just when the rest is over."""
        rests = not self.braked and now < self._breaker.open_until
        if rests and self._scouts.appoint(task_id):
            left = min(self._breaker.open_until - now, self._timings.longest_pause)
            return Appointed(self._breaker.reason or "paused", retry_after=timedelta(seconds=left))
        return self._paused()

    def _paused(self) -> Paused:
        left = self._breaker.open_until - self._clock()
        if self.braked or left <= 0:  # a person decides, or a probe is under way
            left = self._timings.looking_again
        reason = BRAKED if self.braked else self._breaker.reason or "paused"
        return Paused(reason, retry_after=timedelta(seconds=min(left, self._timings.longest_pause)))

    def _shut(self) -> None:
        rest = round(self._breaker.open_until - self._clock(), 1)
        tell = self._log.error if self._breaker.cause is Cause.MISCONFIGURED else self._log.warning
        tell("breaker opened", cause=self._breaker.cause, reason=self._breaker.reason, rest=rest)
        self._alarm.drop()
        self._turns.dismiss(self._paused)

    def _closed(self, was_open: float | None) -> None:
        if was_open is not None and self._breaker.open_since is None:
            self._scouts.dismiss()
            self._reopen(self._clock() - was_open)

    def _reopen(self, after: float) -> None:
        self._log.info("breaker closed", after=round(after, 1))
        self._turns.pace.ramp_up(self._clock(), min(self._timings.ramp, after))


def _about_the_route(trouble: ProviderTrouble) -> Trouble | None:
    """Say what trouble tells about its route; None where it is nobody else's."""
    match trouble:
        case Throttled(extent=Extent.ROUTE):
            cause, bearing = Cause.THROTTLED, Bearing.WHOLE
        case Throttled(extent=Extent.UNNAMED):
            cause, bearing = Cause.THROTTLED, Bearing.CALL
        case TokenMisconfigured() | StaleCredential() | NoRoom():
            return None
        case NotConfigured():
            cause, bearing = Cause.MISCONFIGURED, Bearing.WHOLE
        case Misconfigured():
            cause, bearing = Cause.MISCONFIGURED, Bearing.CALL
        case AnsweredUnavailable():
            cause, bearing = Cause.OUTAGE, Bearing.CALL
        case Unavailable():
            cause, bearing = Cause.OUTAGE, Bearing.CONNECTION
        case _:
            return None
    retry_after = None if trouble.retry_after is None else trouble.retry_after.total_seconds()
    return Trouble(cause, trouble.reason, bearing, retry_after, is_usual=trouble.is_usual)
