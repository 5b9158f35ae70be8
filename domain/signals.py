"""Operational signals: how the service stands at a moment, as the database tells it."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from domain.kinds import Kind
from domain.push import Route

LATELY = timedelta(minutes=15)  # since pushes were due, or died

TOKEN_ERRORS = frozenset(
    {
        "Unregistered",
        "ExpiredToken",
        "BadDeviceToken",
        "DeviceTokenNotForTopic",
        "UNREGISTERED",
        "INVALID_ARGUMENT_TOKEN",
        "SENDER_ID_MISMATCH",
    }
)

UNCALLED_FOR_US = frozenset({"app_not_configured", "oauth_refused"})  # there is no call that could have been refused


@dataclass(frozen=True, slots=True)
class Refusals:
    """Pushes whose token was refused, or which were refused for a fault of ours, and whose they are."""

    pushes: int
    users: int
    largest_user_id: str  # to whom most of them belong
    largest_pushes: int


@dataclass(frozen=True, slots=True)
class Answered:
    """Users on one route whose pushes, due lately, came to something."""

    route: Route
    users: int
    token_errors: int  # of these, whose token was refused
    rejected: int  # of these, whose push was refused for a fault of ours
    refusals: Refusals | None  # None where there were none


@dataclass(frozen=True, slots=True)
class RefusedPushes:
    """Pushes on one route that are refused, or died refused, for our credentials; due within the hour."""

    route: Route
    reason: str
    pushes: int
    users: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """The pushes of one kind that are pending for one route."""

    route: Route  # as the phones say it, so its app may be unknown
    kind: Kind
    pending: int  # those armed or posted ahead of their due instant, too
    overdue: int  # due by now
    retrying: int  # of these, hindered at least once; each waits for its next attempt
    behind_gate: int  # of these, on a route whose gate is shut in some worker, or braked
    oldest_due_at: datetime | None  # of those overdue; of one that was redriven or revived, when it was


@dataclass(frozen=True, slots=True)
class DeadPushes:
    """The pushes of one kind that are dead on one route, of those due so lately that they may be of use."""

    route: Route
    kind: Kind
    count: int
    unexpired: int  # a person can still redrive them
    unexpired_users: int  # whose those are
    lately_users: int  # whose died in the last minutes


@dataclass(frozen=True, slots=True)
class OutboxBacklog:
    """What waits to be handed over."""

    count: int
    oldest_at: datetime | None


@dataclass(frozen=True, slots=True)
class Transfers:
    """Device tokens that passed from one user to another within the last hour."""

    count: int = 0
    by_one_user: int = 0  # the most that one user took


@dataclass(frozen=True, slots=True)
class Signals:
    """All of them, read at one moment."""

    at: datetime  # by the database's clock
    backlogs: tuple[Backlog, ...]
    dead: tuple[DeadPushes, ...]
    outbox: OutboxBacklog  # dispatches to Temporal
    handoffs: OutboxBacklog  # messages of which it is not decided yet how each phone is told
    rejected: int  # pushes that were due in the last hour and refused for a fault of ours
    brakes: tuple[Route, ...]  # engaged
    answered: tuple[Answered, ...]
    refused: tuple[RefusedPushes, ...]
    workers: int  # seen lately
    streams: int  # open
    unopened: OutboxBacklog = OutboxBacklog(
        0, None
    )  # reminders that are due and that nobody opened, when a worker looked last
    swept_at: datetime | None = None  # when that was; None: no worker has looked yet
    transfers: Transfers = Transfers()
