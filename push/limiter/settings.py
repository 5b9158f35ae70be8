"""What gates are told, and what they tell: limits, timings and reports."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from push.limiter.breaker import Cause, Rest


@dataclass(frozen=True, slots=True)
class Limits:
    """What one route may be asked: calls under way in this process, and calls per second of the whole fleet."""

    concurrency: int
    rate: float | None = None  # None: no limit


RESTS = {
    Cause.OUTAGE: Rest(first=2.0, longest=30.0),
    Cause.THROTTLED: Rest(first=30.0, longest=300.0),
    Cause.MISCONFIGURED: Rest(first=30.0, longest=300.0),
}


@dataclass(frozen=True, slots=True)
class Timings:
    """How patient a gate is, in seconds. Tests may live faster.

    A send has a budget of 20 s. Where gate (3 s), access token (5 s), place (5 s), check (5 s) and call (10 s) all take
    their longest, Temporal starts it once more; the attempt on record keeps that one from calling meanwhile.
    """

    rests: Mapping[Cause, Rest] = field(default_factory=lambda: RESTS)
    patience: float = 3.0  # in line
    check_again: float = 2.0  # where nobody can say when it will be one's turn
    shortest_pause: float = 5.0  # between two looks at a shut gate, which other credentials may open at any time
    longest_pause: float = 45.0  # where so many wait that the looks of all would be more than the next says
    looks: float = 20.0  # per second, of all who wait
    max_reserved: float = 60.0  # at most
    longest_call: float = 10.0  # so a full gate lets in as many as its concurrency in this time, if not more
    alarm_after: float = 1.0  # the first refusal that does not shut the gate, so that one line tells of many
    ramp: float = 60.0  # from nearly nothing to full, after an opening that lasted as long or longer


@dataclass(frozen=True, slots=True)
class LimiterReport:
    """How a gate stands, for people."""

    provider: str
    app_id: str | None
    environment: str
    state: str  # closed, open or half_open, as said of a circuit breaker; or braked
    cause: str | None  # why it is shut: outage, throttled, misconfigured or brake
    reason: str | None
    until: datetime | None  # while open: the earliest next call
    waiting: int
    in_flight: int
    rate: float | None  # calls per second of this process; None: no limit
