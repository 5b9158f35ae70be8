"""The limits, timings and reports of route limiters."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from push.limiter.breaker import Cause, Rest

RESTS = {
    Cause.OUTAGE: Rest(first=2.0, longest=30.0),
    Cause.THROTTLED: Rest(first=30.0, longest=300.0),
    Cause.MISCONFIGURED: Rest(first=30.0, longest=300.0),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one route takes: calls in flight from this process, and calls per second from the whole fleet."""

    concurrency: int
    rate: float | None = None  # None: no limit


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds. Tests use shorter ones.

    A send has 20 s. Where the limiter (3 s), access token (5 s), lease (5 s), check (5 s) and call (10 s) all take
    their longest, Temporal starts it again; the attempt on record keeps the second one from calling meanwhile.
    """

    rests: Mapping[Cause, Rest] = field(default_factory=lambda: RESTS)
    patience: float = 3.0  # in the queue
    check_again: float = 2.0  # where the turn cannot be predicted
    shortest_pause: float = 5.0  # between two checks of a paused route, which other credentials may open at any time
    longest_pause: float = 45.0  # the same, where many pushes wait and `looks` is reached
    looks: float = 20.0  # checks per second, of all waiting pushes
    max_reserved: float = 60.0  # how far ahead a turn may be reserved
    longest_call: float = 10.0  # so a full limiter lets in at least its concurrency in this time
    alarm_after: float = 1.0  # from the first refusal that does not pause the route, so that one line counts many
    ramp: float = 60.0  # from nearly nothing to the full rate, after a pause of this length or longer


@dataclass(frozen=True, slots=True)
class LimiterReport:
    """The state of a limiter, for people."""

    provider: str
    app_id: str | None
    environment: str
    state: str  # of the breaker: closed, open or half_open; or braked: the token-error cutoff has stopped the route
    cause: str | None  # why nothing passes: outage, throttled, misconfigured or brake
    reason: str | None
    until: datetime | None  # while open: the earliest next call
    waiting: int
    in_flight: int
    rate: float | None  # calls per second of this process; None: no limit
