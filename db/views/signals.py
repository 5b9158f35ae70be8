"""Operational signals: counts for the whole fleet. Old tasks, however many, cost nothing."""

from collections.abc import Collection, Mapping
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
from db.workers import gates_of
from domain.fasts import LONGEST_USEFUL
from domain.housekeeping import SWEEP
from domain.kinds import Kind
from domain.push import Route
from domain.signals import LATELY, Backlog, DeadPushes, OutboxBacklog, Signals, Transfers, WebhookSignals

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
