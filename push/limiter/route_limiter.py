"""The limiter of one route, right before the call: limits, priorities, circuit breaker, token-error cutoff.

Everything here belongs to one event loop. While no limit is reached, a pass costs no await.
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
from domain.naming import user_digest
from domain.push import Route
from push.limiter.admission_queue import NOBODY, AdmissionQueue
from push.limiter.breaker import Breaker, BreakerPermit, Cause, State, Trouble, TroubleScope
from push.limiter.probes import CheckTimes, CredentialWaits, ProbeCandidates
from push.limiter.refusal_alarm import RefusalAlarm
from push.limiter.settings import LimiterReport, Limits, Timings
from push.sender import (
    Accepted,
    AnsweredUnavailable,
    AwaitsCredentials,
    ChecksAgain,
    Misconfigured,
    NoRoom,
    NotConfigured,
    Paused,
    ProbesNext,
    ProviderTrouble,
    Reserved,
    StaleCredential,
    Throttled,
    ThrottleExtent,
    TokenMisconfigured,
    Unavailable,
    Unsendable,
)

CUT_OFF = "brake_engaged"
T = TypeVar("T")

log = structlog.get_logger()


class Permit:
    """Permission for one push to make one call; a context manager. Unused, it goes back."""

    __slots__ = (
        "_admitted_for",
        "_breaker_permit",
        "_failed_at",
        "_limiter",
        "_priority",
        "_task_id",
        "_used",
        "_user",
    )

    def __init__(self, limiter: "RouteLimiter", priority: Priority, task_id: UUID, user: int) -> None:
        self._limiter = limiter
        self._priority = priority
        self._task_id = task_id
        self._admitted_for = self._user = user
        self._breaker_permit: BreakerPermit | None = None
        self._used = False
        self._failed_at = 0.0

    async def __aenter__(self) -> Self:
        """Pass at once or wait in the queue; raises Paused, Reserved, AwaitsCredentials."""
        at_once = self._limiter.admit_now(self._priority, self._task_id, self._user)
        self._breaker_permit = at_once or await self._limiter.wait(self._priority, self._user)
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        """Leave. Trouble before a call ends a probe; any other push reports it by `hindered`."""
        assert self._breaker_permit is not None
        self._failed_at = self._limiter.now()
        if not self._used:
            is_telling = isinstance(error, NotConfigured) or self._limiter.is_probe(self._breaker_permit)
            if is_telling and isinstance(error, ProviderTrouble):
                self._limiter.note(self._breaker_permit, self._user, error, self._failed_at)
            self._limiter.give_back()
        self._limiter.leave(self._breaker_permit, self._admitted_for)

    def check(self) -> None:
        """Raise Paused if the route was paused or stopped since."""
        assert self._breaker_permit is not None
        self._limiter.check(self._breaker_permit)

    async def call(self, call: Awaitable[T], user_id: str) -> T:
        """Make the one call, for this user, and let the limiter learn from its outcome."""
        assert self._breaker_permit is not None
        self._used = True
        self._user = user_digest(user_id)
        try:
            answer = await call
        except ProviderTrouble as trouble:
            self._limiter.refused(self._breaker_permit, self._task_id, self._user, trouble, self._limiter.now())
            raise
        if isinstance(answer, Unsendable):
            self._used = False
        elif isinstance(answer, Accepted):
            self._limiter.accepted(self._breaker_permit, self._task_id, self._user)
        else:
            self._limiter.answered(self._breaker_permit, self._user)
        return answer

    def hindered(self, trouble: ProviderTrouble, user_id: str, left: float) -> None:
        """Report trouble before a call: whose push it met, and how many seconds are left until that expires.

        Both are known only after the check, which a push that may not call gets all the same.
        """
        if isinstance(trouble, Paused):
            self._limiter.sent_away(left)
        elif self._breaker_permit is not None and not self._used:
            self._limiter.refused(self._breaker_permit, self._task_id, user_digest(user_id), trouble, self._failed_at)


class RouteLimiter:
    """Limits one route in this process. Nothing passes before it has a share of the fleet's rate."""

    def __init__(
        self,
        route: Route,
        limits: Limits,
        timings: Timings,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.is_cut_off = False
        self._route = route
        self._limits = limits
        self._timings = timings
        self._clock = clock
        self._breaker = Breaker(timings.rests, chance)
        self._admission = AdmissionQueue(limits, timings, self._breaker, clock=clock, chance=chance)
        self._log = log.bind(provider=route.provider.value, app_id=route.app_id, environment=route.environment.value)
        self._candidates = ProbeCandidates()
        self._checks = CheckTimes(timings.shortest_pause, timings.longest_pause, timings.looks, chance)
        self._credential_waits = CredentialWaits()
        self._alarm = RefusalAlarm(self._log, timings.alarm_after)

    def enter(self, priority: Priority, task_id: UUID, user_digest: int = NOBODY) -> Permit:
        """Ask to make one call for a push task; `async with` it. Users, known by their digests, take turns."""
        return Permit(self, priority, task_id, user_digest)

    @property
    def has_plenty(self) -> bool:
        """Whether a push may enter before it is due, since those that are due now would have room all the same."""
        return not self.is_cut_off and not self._is_open() and self._admission.has_plenty

    def now(self) -> float:
        """Return the time of this limiter's clock, in seconds."""
        return self._clock()

    def share(self, share: float | None) -> None:
        """Set this process's part of the fleet's rate; None: the fleet does not know it yet, so nothing passes."""
        rate = inf if self._limits.rate is None else self._limits.rate * (share or 0.0)
        self._admission.token_bucket.full = 0.0 if share is None else rate
        self._admission.admit_waiting()

    def cut_off(self) -> None:
        """Stop the route until a person resumes it."""
        self.is_cut_off = True
        self._admission.dismiss(self._pausing)

    def resume(self) -> None:
        """Let calls through again, slowly at first: a person has resumed the route."""
        if self.is_cut_off:
            self.is_cut_off = False
            self._admission.token_bucket.ramp_up(self._clock(), self._timings.ramp)

    def reset(self) -> None:
        """Forget what other credentials met; a route that was paused starts slowly."""
        was_open = self._breaker.open_since
        self._breaker.reset()
        self._candidates.forget()
        self._credential_waits.forget()
        if was_open is not None:
            self._reopen(self._clock() - was_open)

    def report(self) -> LimiterReport:
        """Report the present state."""
        now = self._clock()
        state = self._breaker.state(now)
        rate = self._admission.token_bucket.rate(now)
        until = datetime.now(UTC) + timedelta(seconds=self._breaker.next_probe_at - now)
        return LimiterReport(
            provider=self._route.provider.value,
            app_id=self._route.app_id,
            environment=self._route.environment.value,
            state="braked" if self.is_cut_off else state.value,
            cause="brake" if self.is_cut_off else self._breaker.cause,
            reason=CUT_OFF if self.is_cut_off else self._breaker.reason,
            until=until if state is State.OPEN and not self.is_cut_off else None,
            waiting=self._admission.waiting,
            in_flight=self._admission.in_flight,
            rate=None if rate == inf else rate,
        )

    def await_credentials(self, task_id: UUID, reason: str, rest: timedelta) -> timedelta:
        """Keep a push that was refused for our credentials from calling with the same ones for so long.

        Returns when it is to check whether they have changed.
        """
        now = self._clock()
        self._credential_waits.begin(task_id, now + rest.total_seconds(), reason)
        return min(rest, timedelta(seconds=self._checks.wait(now)))

    async def wait(self, priority: Priority, user: int) -> BreakerPermit:
        """Wait in the queue; raises Paused, or Reserved where the turn is too far off."""
        try:
            return await self._admission.wait(priority, user)
        except Reserved:
            if self._is_open():
                raise self._paused(self._clock()) from None
            raise

    def admit_now(self, priority: Priority, task_id: UUID, user: int) -> BreakerPermit | None:
        """Admit at once; None where the push has to wait. Raises Paused, AwaitsCredentials."""
        now = self._clock()
        if self.is_cut_off:
            raise self._paused(now)
        if not self._is_open():
            if rest := self._credential_waits.left(task_id, now):
                left, reason = rest
                look = min(left, self._checks.wait(now))
                raise AwaitsCredentials(reason, timedelta(seconds=left), retry_after=timedelta(seconds=look))
            return self._admission.at_once(now, priority, user)
        if self._breaker.is_fresh_probing:
            return None  # the probe shows in a moment whether the route is up again
        if not self._breaker.allows(now, user):
            raise self._sent_away(task_id, user, now)
        if now < self._breaker.open_until + self._timings.check_again and not self._candidates.may_probe(task_id, user):
            raise self._paused(now)
        return self._admission.take(user)  # the probe

    def is_probe(self, breaker_permit: BreakerPermit) -> bool:
        """Whether this permits the one call that probes the route."""
        return self._breaker.is_probe(breaker_permit)

    def sent_away(self, left: float) -> None:
        """Note how many seconds a waiting push has until it expires."""
        self._breaker.shorten(self._clock(), left)

    def check(self, breaker_permit: BreakerPermit) -> None:
        """Raise Paused if the route was paused or stopped since the permit was given."""
        if self.is_cut_off or not self._breaker.is_valid(breaker_permit):
            raise self._paused(self._clock())

    def give_back(self) -> None:
        """Take back a permit that was not used for a call."""
        self._admission.token_bucket.give_back()

    def leave(self, breaker_permit: BreakerPermit, user: int) -> None:
        """Make room for the next push; after a probe that decided nothing the next one is the probe."""
        is_undecided = self.is_probe(breaker_permit)
        self._breaker.unused(breaker_permit)
        self._admission.leave(user)
        if is_undecided and not self._breaker.is_probing:
            self._admission.dismiss(self._pausing)  # none of them may probe yet

    def accepted(self, breaker_permit: BreakerPermit, task_id: UUID, user: int) -> None:
        """Note that a push of this user was accepted."""
        was_open = self._breaker.open_since
        self._candidates.accepted(user)
        self._credential_waits.accepted(task_id)
        self._breaker.succeeded(breaker_permit, self._clock())
        self._closed(was_open)

    def answered(self, breaker_permit: BreakerPermit, user: int) -> None:
        """Note an answer about one push of this user, which says little about the others."""
        was_open = self._breaker.open_since
        self._breaker.answered(breaker_permit, user)
        self._closed(was_open)

    def refused(
        self, breaker_permit: BreakerPermit, task_id: UUID, user: int, trouble: ProviderTrouble, at: float
    ) -> None:
        """Note the trouble of a push of this user at this time, in its call or before it."""
        if isinstance(trouble, Misconfigured):
            self._alarm.note(trouble.reason, task_id, user)
        if not isinstance(trouble, StaleCredential | NoRoom) and not _concerns_one_token(trouble):
            self._candidates.refused(user)
        self.note(breaker_permit, user, trouble, at)

    def note(self, breaker_permit: BreakerPermit, user: int, trouble: ProviderTrouble, at: float) -> None:
        """Let the breaker judge the route by the trouble of a push of this user."""
        if _concerns_one_token(trouble):
            self.answered(breaker_permit, user)
            return
        route_trouble = _about_the_route(trouble)
        if route_trouble is None:
            return
        until, known_cause = self._breaker.open_until, self._breaker.cause
        self._breaker.failed(breaker_permit, at, route_trouble, user)
        if self._breaker.open_since is None:
            return
        if self._breaker.open_until != until:  # another rest
            self._candidates.dismiss()
            self._admission.dismiss(self._pausing)
        if self._breaker.cause is not known_cause:
            self._log_opened()

    def _is_open(self) -> bool:
        """Whether the breaker is open, so that only a probe passes."""
        return self._breaker.open_since is not None

    def _sent_away(self, task_id: UUID, user: int, now: float) -> Paused:
        """Say when to ask again; one of the waiting pushes comes just when the rest is over."""
        left = self._breaker.rests_until(user) - now
        paused = self._paused(now, left)
        if left <= 0 or not self._candidates.nominate(task_id, user) or isinstance(paused, ChecksAgain):
            return paused
        return ProbesNext(paused.reason, retry_after=paused.retry_after)

    def _pausing(self) -> Paused:
        return self._paused(self._clock())

    def _paused(self, now: float, left: float | None = None) -> Paused:
        """Say when to ask again, where the route may be probed in `left` seconds."""
        if left is None:
            left = self._breaker.open_until - now
        reason = CUT_OFF if self.is_cut_off else self._breaker.reason or "paused"
        if left <= 0 and not self.is_cut_off:  # a probe is under way
            return Paused(reason, retry_after=timedelta(seconds=self._timings.check_again))
        look = self._checks.wait(now)
        if self.is_cut_off or look < left:
            return ChecksAgain(reason, retry_after=timedelta(seconds=look))
        return Paused(reason, retry_after=timedelta(seconds=left))

    def _log_opened(self) -> None:
        rest = round(self._breaker.next_probe_at - self._clock(), 1)
        write = self._log.error if self._breaker.cause is Cause.MISCONFIGURED else self._log.warning
        write("breaker opened", cause=self._breaker.cause, reason=self._breaker.reason, rest=rest)
        self._alarm.drop()

    def _closed(self, was_open: float | None) -> None:
        if was_open is not None and not self._is_open():
            self._candidates.dismiss()
            self._credential_waits.forget()
            self._reopen(self._clock() - was_open)

    def _reopen(self, after: float) -> None:
        self._log.info("breaker closed", after=round(after, 1))
        self._admission.token_bucket.ramp_up(self._clock(), min(self._timings.ramp, after))
        self._admission.admit_waiting()


def _concerns_one_token(trouble: ProviderTrouble) -> bool:
    """Whether it is a throttle of one token."""
    return isinstance(trouble, Throttled) and trouble.extent is ThrottleExtent.TOKEN


def _about_the_route(trouble: ProviderTrouble) -> Trouble | None:
    """Say what trouble means for its route; None where it concerns this push alone."""
    match trouble:
        case Throttled(extent=ThrottleExtent.ROUTE):
            cause, scope = Cause.THROTTLED, TroubleScope.ROUTE
        case Throttled(extent=ThrottleExtent.UNNAMED):
            cause, scope = Cause.THROTTLED, TroubleScope.CALL
        case TokenMisconfigured() | StaleCredential() | NoRoom():
            return None
        case NotConfigured():
            cause, scope = Cause.MISCONFIGURED, TroubleScope.ROUTE
        case Misconfigured():
            cause, scope = Cause.MISCONFIGURED, TroubleScope.CALL
        case AnsweredUnavailable():
            cause, scope = Cause.OUTAGE, TroubleScope.CALL
        case Unavailable():
            cause, scope = Cause.OUTAGE, TroubleScope.CONNECTION
        case _:
            return None
    retry_after = None if trouble.retry_after is None else trouble.retry_after.total_seconds()
    return Trouble(cause, trouble.reason, scope, retry_after, is_advised=trouble.is_advised)
