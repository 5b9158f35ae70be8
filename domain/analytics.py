"""What became of pushes, counted by day and in the last hours. Counted are pushes by when they were due."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from domain.kinds import Kind
from domain.push import Provider, TaskState

MAX_DAYS = 31


@dataclass(frozen=True, slots=True)
class Asked:
    """Which pushes are counted; None means any. Days are UTC days, the last one today."""

    days: int = 7
    kind: Kind | None = None
    provider: Provider | None = None
    app_id: str | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """The pushes of one kind, provider and app that were due on one day."""

    day: date
    kind: Kind
    provider: Provider
    app_id: str | None
    pushes: int
    attempts: int  # to call the provider; a few end without a call
    accepted: int
    opened: int  # of those accepted
    synced: int  # of those accepted
    pending: int
    dead: int
    withdrawn: int  # decided against: the fast was over, the app had read it, …; no failure


@dataclass(frozen=True, slots=True)
class Unaccepted:
    """Attempts that came to something else than acceptance; no outcome: under way."""

    kind: Kind
    provider: Provider
    app_id: str | None
    outcome: str | None
    reason: str | None
    count: int


@dataclass(frozen=True, slots=True)
class Fate:
    """Pushes that ended without acceptance."""

    kind: Kind
    provider: Provider
    app_id: str | None
    state: TaskState
    reason: str | None
    count: int


@dataclass(frozen=True, slots=True)
class Analytics:
    """All of it; few enough rows for one page."""

    from_at: datetime
    to_at: datetime  # itself not included
    items: list[Tally]  # the latest day first
    unaccepted: list[Unaccepted]  # the most frequent first
    fates: list[Fate]  # the most frequent first
    next_cursor: None = None


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """The last hours, cut into equal steps; the first begins at a full step of the clock."""

    hours: int
    step: timedelta


SPANS = (TimeSpan(1, timedelta(minutes=2)), TimeSpan(6, timedelta(minutes=10)), TimeSpan(24, timedelta(minutes=40)))


@dataclass(frozen=True, slots=True)
class Step:
    """The pushes that were due in one step, and the provider calls for them."""

    at: datetime
    pushes: int = 0
    accepted: int = 0
    dead: int = 0
    withdrawn: int = 0  # decided against; no failure
    synced: int = 0  # of those accepted
    superseded: int = 0  # a newer push has taken its line before it was accepted
    late_p50: float | None = (
        None  # seconds from due to accepted; test pushes and what was left to a stream do not count
    )
    late_p99: float | None = None
    calls: int = 0  # that came to an answer
    refused: int = 0  # calls that were not accepted
    invalid_tokens: int = 0
    call_p50: float | None = None  # seconds
    call_p99: float | None = None
