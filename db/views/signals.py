"""Operational signals: the state of the service at a moment, for the whole fleet. Old tasks cost nothing."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from db import token_error_cutoffs, workers
from db.engine import present_instant
from db.models.people import Presence
from db.models.pushes import OutboxRow
from db.outbox import UNHURRIED
from db.unreadable import route_of, word
from db.views import gates as refused_users
from db.views.gates import LATELY, Answered, RefusedPushes
from db.workers import gates_of
from domain.fasts import LONGEST_USEFUL
from domain.housekeeping import SWEEP
from domain.kinds import Kind
from domain.push import Route


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


_FIRST = datetime(2020, 1, 1, tzinfo=UTC)  # nothing of ours is older, so an earlier instant tells no age


async def present(db: AsyncSession) -> Signals:
    """Read all signals."""
    now = await present_instant(db)
    engaged = (await token_error_cutoffs.engaged(db)).keys()
    reporting = await workers.live(db)
    gates = [each for worker in reporting for each in gates_of(worker)]
    shut = {route for route, gate in gates if gate.get("state") != "closed"} | engaged
    known = {route for route, _ in gates} | engaged
    waiting = (await db.execute(_PENDING, {"now": now, "first": _FIRST})).all()
    outbox = select(func.count(), func.min(_WAITS_SINCE).filter(OutboxRow.created_at > _FIRST))
    swept = await workers.reported(db, SWEEP)
    dead = (await db.execute(_DEAD, {"now": now, "useful_for": LONGEST_USEFUL, "lately": LATELY})).all()
    return Signals(
        at=now,
        backlogs=tuple(each for row in waiting if (each := _backlog(row, shut, known)) is not None),
        dead=tuple(group for row in dead if (group := _dead(row)) is not None),
        outbox=OutboxBacklog(*(await db.execute(outbox)).one()),
        handoffs=OutboxBacklog(*(await db.execute(_UNDECIDED, {"first": _FIRST})).one()),
        unopened=_unopened(swept),
        swept_at=_instant(swept.get("at")),
        rejected=(await db.scalar(_REJECTED, {"now": now})) or 0,
        brakes=tuple(engaged),
        answered=await refused_users.refused_of_late(db, known, now),
        refused=await refused_users.refused(db, known, now),
        workers=len(reporting),
        transfers=Transfers(*(await db.execute(_TRANSFERS, {"now": now})).one()),
        webhooks=WebhookSignals(*(await db.execute(_WEBHOOKS)).one()),
        erasures=OutboxBacklog(*(await db.execute(_ERASURES)).one()),
        streams=(await db.scalar(select(func.count()).where(Presence.expires_at > now))) or 0,
    )


def _backlog(row: Row[Any], shut: Collection[Route], known: Collection[Route]) -> Backlog | None:
    """Count a backlog; pushes wait behind the limiter of their app, or else of the default app."""
    route, kind = route_of(row, "push_tasks"), word(Kind, row.kind, "push_tasks.kind")
    if route is None or kind is None:
        return None
    gate = route if route in known else Route(route.provider, None, route.environment)
    behind_gate = row.overdue if gate in shut else 0
    return Backlog(route, kind, row.pending, row.overdue, row.retrying, behind_gate, row.oldest_due_at)


def _dead(row: Row[Any]) -> DeadPushes | None:
    route, kind = route_of(row, "push_tasks"), word(Kind, row.kind, "push_tasks.kind")
    if route is None or kind is None:
        return None
    return DeadPushes(route, kind, row.total, row.unexpired, row.unexpired_users, row.lately_users)


def _unopened(swept: Mapping[str, Any]) -> OutboxBacklog:
    count = swept.get("unopened")
    return OutboxBacklog(count if isinstance(count, int) else 0, _instant(swept.get("oldest_due_at")))


def _instant(text: object) -> datetime | None:
    """Read an instant of the sweep's findings; None if this release cannot."""
    try:
        return datetime.fromisoformat(str(text)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


_WAITS_SINCE = func.greatest(OutboxRow.created_at, OutboxRow.needed_at - UNHURRIED)  # an import has time

# States and kinds are written out, so that the planner uses partial indexes.
_PENDING = text("""
    SELECT provider, app_id, environment, kind, count(*) AS pending,
           count(*) FILTER (WHERE due_at <= :now) AS overdue,
           count(*) FILTER (WHERE due_at <= :now AND last_reason IS NOT NULL) AS retrying,
           min(coalesce(again_at, due_at))
               FILTER (WHERE due_at <= :now AND coalesce(again_at, due_at) > :first) AS oldest_due_at
      FROM push_tasks
     WHERE state = 'pending'
     GROUP BY provider, app_id, environment, kind
""")

_DEAD = text("""
    SELECT provider, app_id, environment, kind, count(*) AS total,
           count(*) FILTER (WHERE expires_at > :now) AS unexpired,
           count(DISTINCT user_id) FILTER (WHERE expires_at > :now) AS unexpired_users,
           count(DISTINCT user_id) FILTER (
               WHERE settled_at > CAST(:now AS timestamptz) - CAST(:lately AS interval)
           ) AS lately_users
      FROM push_tasks
     WHERE state = 'dead' AND due_at > CAST(:now AS timestamptz) - CAST(:useful_for AS interval)
     GROUP BY provider, app_id, environment, kind
""")

_REJECTED = text("""
    SELECT count(*)
      FROM push_tasks
     WHERE state = 'rejected' AND due_at > CAST(:now AS timestamptz) - interval '1 hour' AND due_at <= :now
""")

_TRANSFERS = text("""
    SELECT coalesce(sum(taken), 0)::int, coalesce(max(taken), 0)::int
      FROM (SELECT count(*) AS taken
              FROM device_token_events
             WHERE taken_by IS NOT NULL AND at > CAST(:now AS timestamptz) - interval '1 hour' AND at <= :now
             GROUP BY taken_by) AS takers
""")

_UNDECIDED = text("""
    SELECT count(*), min(created_at) FILTER (WHERE created_at > :first)
      FROM messages
     WHERE kind = 'message' AND handed_off_at IS NULL
""")
_ERASURES = text("SELECT count(*), min(requested_at) FROM erasures WHERE next_attempt_at IS NOT NULL")
_WEBHOOKS = text("""
    SELECT min(w.failing_since),
           coalesce(sum((SELECT count(*) FROM webhook_deliveries AS d
                          WHERE d.webhook_id = w.id AND d.state = 'dead')), 0)::int
      FROM webhooks AS w
     WHERE w.disabled_at IS NULL
""")
