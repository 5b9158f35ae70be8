"""What a push that is not settled waits for, at this moment: facts in, one obstacle out."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

A_MOMENT = timedelta(seconds=5)  # in which workers that are there take up what has come due
CALL_LASTS = timedelta(seconds=16)  # after so long a call without an outcome has lost its worker
MOST_PRESENT = 50  # lines about one person; the longest due come first


class WaitsFor(StrEnum):
    """What has to happen before a push goes out, or is given up."""

    CHECK = "check"  # it will be withdrawn at its next check
    EXPIRY = "expiry"  # it has expired, and nobody has noted that yet
    RESUME = "resume"  # the token-error cutoff is engaged: an operator has to resume the route
    REDRIVE = "redrive"  # it is dead, and a person may redrive it
    ANSWER = "answer"  # its provider is being called
    WORKER = "worker"  # no worker is alive
    TEMPORAL = "temporal"  # Temporal has not taken it, or does not answer
    ROUTE = "route"  # the breaker is open
    RETRY = "retry"  # trouble of its own, such as too many pushes to this phone
    DUE = "due"  # its due instant
    TURN = "turn"  # nothing known holds it up, and yet it is late
    NOTHING = "nothing"  # it is being sent at this moment


@dataclass(frozen=True, slots=True)
class Cutoff:
    """An engaged token-error cutoff."""

    brake_id: str
    engaged_at: datetime
    token_errors: int
    answers: int
    reason: str  # the most frequent one


@dataclass(frozen=True, slots=True)
class RouteNow:
    """How the route of a push stands."""

    cutoff: Cutoff | None = None
    reason: str | None = None  # why the breaker is open; None: calls pass
    until: datetime | None = None  # while it rests; None: one call is tried


@dataclass(frozen=True, slots=True)
class Unsettled:
    """What is known of a push that is not settled."""

    now: datetime
    due_at: datetime
    expires_at: datetime
    next_attempt_at: datetime | None
    last_reason: str | None
    is_dead: bool
    refused: str | None  # why the check would not let it go out now
    call_since: datetime | None  # a call without an outcome
    owed_since: datetime | None  # Temporal is owed a dispatch of it
    workers: int  # alive
    temporal_answers: bool  # as far as the workers know
    route: RouteNow


def waits_for(push: Unsettled) -> WaitsFor:
    """Name the obstacle that has to go first."""
    if push.is_dead:
        return WaitsFor.RESUME if push.route.cutoff else WaitsFor.REDRIVE
    if push.expires_at <= push.now:
        return WaitsFor.EXPIRY
    if push.refused:
        return WaitsFor.CHECK
    if push.call_since is not None and push.call_since + CALL_LASTS > push.now:
        return WaitsFor.ANSWER
    return _obstacle(push) or _by_the_clock(push)


def _obstacle(push: Unsettled) -> WaitsFor | None:
    """Name what holds up others, too."""
    if push.route.cutoff:
        return WaitsFor.RESUME
    if not push.workers:
        return WaitsFor.WORKER
    if not push.temporal_answers or (push.owed_since is not None and push.owed_since + A_MOMENT <= push.now):
        return WaitsFor.TEMPORAL
    opens_at = max(push.route.until or push.now, push.now)
    return WaitsFor.ROUTE if push.route.reason is not None and push.due_at <= opens_at else None


def _by_the_clock(push: Unsettled) -> WaitsFor:
    if push.due_at > push.now:
        return WaitsFor.DUE
    if push.next_attempt_at is not None and push.next_attempt_at > push.now:
        return WaitsFor.RETRY if push.last_reason else WaitsFor.NOTHING
    late_since = max(push.due_at, push.next_attempt_at or push.due_at)
    return WaitsFor.TURN if late_since + A_MOMENT <= push.now else WaitsFor.NOTHING


def next_try(push: Unsettled) -> datetime | None:
    """Say when it is tried next, where that is known, lies ahead, and comes before it expires."""
    planned = push.next_attempt_at or push.due_at
    return planned if push.now < planned < push.expires_at else None
