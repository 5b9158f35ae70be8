"""The circuit breaker of one gate: judges a provider by what calls come to. The clock is passed in.

In the usual words: *closed* lets calls through, *open* lets none through, *half open* waits for the one that probes.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

MOMENT = 0.02  # seconds; a connection that breaks fails all its calls in one moment, which says no more than one call
IN_A_ROW = 6  # moments of failure, with no success in between
LONGEST_FLOOR = 600.0  # seconds; a provider may ask for a day, but a probe is one call
_RECENT = 40  # calls; the majority of them decides as well


class State(StrEnum):
    """Where a breaker stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Cause(StrEnum):
    """Why a breaker opens."""

    OUTAGE = "outage"
    THROTTLED = "throttled"
    MISCONFIGURED = "misconfigured"


@dataclass(frozen=True, slots=True)
class Rest:
    """How long a breaker stays open, in seconds: the first time, and at most, after probes that failed."""

    first: float
    longest: float


@dataclass(frozen=True, slots=True)
class Ticket:
    """Leave to call, given by a breaker as it stood then."""

    generation: int


class Breaker:
    """Opens on trouble, closes when a probe succeeds. What calls of an earlier generation come to changes nothing."""

    def __init__(self, rests: Mapping[Cause, Rest], chance: Callable[[], float]) -> None:
        self.cause: Cause | None = None  # of the last opening, with the provider's reason
        self.reason: str | None = None
        self.open_since: float | None = None
        self.open_until = 0.0
        self._rests = rests
        self._chance = chance
        self._generation = 0
        self._openings = 0  # in a row
        self._probing = False
        self._failing_moments = 0  # in a row
        self._last_moment = float("-inf")
        self._recent: deque[float | None] = deque(maxlen=_RECENT)  # the moment of a failure; None for a success

    def state(self, now: float) -> State:
        """Tell where it stands."""
        if self.open_since is None:
            return State.CLOSED
        return State.OPEN if now < self.open_until else State.HALF_OPEN

    def lets_through(self, now: float) -> bool:
        """Whether a call may start: always while closed, and one as a probe after a rest."""
        return self.open_since is None or (now >= self.open_until and not self._probing)

    def admit(self) -> Ticket:
        """Let a call through; the caller has asked."""
        self._probing = self.open_since is not None
        return Ticket(self._generation)

    def still_good(self, ticket: Ticket) -> bool:
        """Whether the call may still be made: not if the breaker opened meanwhile."""
        return self.open_since is None or ticket.generation == self._generation

    def given_back(self, ticket: Ticket) -> None:
        """Take back leave that was not used: the next one is the probe."""
        if ticket.generation == self._generation:
            self._probing = False

    def succeeded(self, ticket: Ticket) -> None:
        """Take note that the provider answered as it should."""
        if ticket.generation != self._generation:
            return
        self._failing_moments = 0
        self._recent.append(None)
        if self.open_since is not None:
            self.reset()

    def failed(self, ticket: Ticket, now: float, cause: Cause, reason: str, retry_after: float | None) -> None:
        """Take note of trouble; `retry_after` is the provider's own word in seconds, believed up to LONGEST_FLOOR."""
        if retry_after is not None:
            retry_after = min(retry_after, LONGEST_FLOOR)
        if ticket.generation != self._generation:
            if self.open_since is not None and retry_after is not None:
                self.open_until = max(self.open_until, now + retry_after)
        elif self.open_since is not None or cause is not Cause.OUTAGE or self._is_outage(now):
            self._open(now, cause, reason, retry_after)

    def reset(self) -> None:
        """Close, and start afresh."""
        self.cause = self.reason = self.open_since = None
        self._generation += 1
        self._openings = self._failing_moments = 0
        self._probing = False
        self._recent.clear()

    def _is_outage(self, now: float) -> bool:
        if now - self._last_moment >= MOMENT:
            self._last_moment = now
            self._failing_moments += 1
        self._recent.append(self._last_moment)
        moments = {moment for moment in self._recent if moment is not None}
        failures = sum(moment is not None for moment in self._recent)
        majority = failures * 2 > _RECENT and len(moments) >= IN_A_ROW
        return majority or self._failing_moments >= IN_A_ROW

    def _open(self, now: float, cause: Cause, reason: str, retry_after: float | None) -> None:
        rest = self._rests[cause]
        seconds: float = min(rest.longest, rest.first * 2 ** min(self._openings, 16))
        seconds *= 1 - self._chance() / 4  # so that workers do not all probe at once
        if retry_after is not None:
            seconds = max(seconds, retry_after + rest.first * self._chance())
        if self.open_since is None:
            self.open_since = now
        self.cause, self.reason, self.open_until = cause, reason, now + seconds
        self._generation += 1
        self._openings += 1
        self._probing = False
