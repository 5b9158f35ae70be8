"""Operational signals: the state of the service at a moment, by the database."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from domain.kinds import Kind
from domain.push import Route

LATELY = timedelta(minutes=15)  # since pushes were due, or died

UNCALLED_FOR_US = frozenset({"app_not_configured", "oauth_refused"})  # without a call that could be refused


@dataclass(frozen=True, slots=True)
class Refusals:
    """Pushes whose token was refused, or that were refused because of our error, and their users."""

    pushes: int
    users: int
    largest_user_id: str  # to whom most of them belong
    largest_pushes: int


@dataclass(frozen=True, slots=True)
class Answered:
    """Users on one route whose recently due pushes were settled."""

    route: Route
    users: int
    token_errors: int  # of these, whose token was refused
    rejected: int  # of these, whose push was refused because of our error
    refusals: Refusals | None  # None where there were none


@dataclass(frozen=True, slots=True)
class RefusedPushes:
    """Pushes on one route that are or died refused because of our credentials; due within the last hour."""

    route: Route
    reason: str
    pushes: int
    users: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """The pushes of one kind that are pending for one route."""

    route: Route  # as the phones name it, so its app may be unknown
    kind: Kind
    pending: int  # including those armed or planned before they are due
    overdue: int  # already due
    retrying: int  # of these, put off at least once; each waits for its next attempt
    behind_gate: int  # of these, on a route that is paused in some worker, or stopped
    oldest_due_at: datetime | None  # of the overdue ones; for one redriven or revived, when it was


@dataclass(frozen=True, slots=True)
class DeadPushes:
    """The dead pushes of one kind on one route, of those due so lately that some may not have expired."""

    route: Route
    kind: Kind
    count: int
    unexpired: int  # a person can still redrive them
    unexpired_users: int  # their users
    lately_users: int  # users whose pushes died in the last minutes


@dataclass(frozen=True, slots=True)
class OutboxBacklog:
    """What is waiting to be handed over."""

    count: int
    oldest_at: datetime | None


@dataclass(frozen=True, slots=True)
class Transfers:
    """Device tokens that passed from one user to another within the last hour."""

    count: int = 0
    by_one_user: int = 0  # the most that one user took


@dataclass(frozen=True, slots=True)
class WebhookSignals:
    """How the webhooks are doing that are not disabled."""

    failing_since: datetime | None = None  # the earliest; None: none fails
    dead: int = 0  # deliveries that were tried for a day; a person can redrive them


@dataclass(frozen=True, slots=True)
class Signals:
    """All signals, read at one moment."""

    at: datetime  # by the database's clock
    backlogs: tuple[Backlog, ...]
    dead: tuple[DeadPushes, ...]
    outbox: OutboxBacklog  # dispatches to Temporal
    handoffs: OutboxBacklog  # messages whose delivery is not decided yet for each phone
    rejected: int  # pushes due in the last hour and refused because of our error
    brakes: tuple[Route, ...]  # engaged
    answered: tuple[Answered, ...]
    refused: tuple[RefusedPushes, ...]
    workers: int  # seen lately
    streams: int  # open
    unopened: OutboxBacklog = OutboxBacklog(0, None)  # due reminders that were not opened, at the last sweep
    swept_at: datetime | None = None  # when that was; None: no sweep yet
    transfers: Transfers = Transfers()
    webhooks: WebhookSignals = WebhookSignals()
    erasures: OutboxBacklog = OutboxBacklog(0, None)  # that run
