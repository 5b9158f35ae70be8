"""Routes as support sees them: every route with a route limiter in some worker, or with a cutoff."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from db import token_error_cutoffs, workers
from db.engine import present_instant, within
from db.models.operations import TokenErrorCutoffRow, WorkerRow
from db.unreadable import log_unreadable, route_of
from db.views import answer_of
from domain.push import Environment, Provider, Route
from domain.reasons import TOKEN_ERRORS

MOST = 20_000  # pushes counted, the latest ones
MAX_SECONDS = 2.0  # for one query; an operator's page has others


ROUTE_STATES = {"closed": "sending", "open": "paused", "half_open": "paused, testing", "braked": "stopped"}  # to people
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
class ShownGate:
    """The state of one worker's limiter of a route."""

    worker_id: UUID
    seen_at: datetime  # the worker's last heartbeat
    state: str  # closed: calls pass, as in an electric circuit; open; half_open: one call is tried; braked
    reason: str | None
    until: datetime | None  # while open: the earliest next call
    waiting: int
    in_flight: int
    rate: float | None  # calls per second of this worker; null: no limit


@dataclass(frozen=True, slots=True)
class ShownBrake:
    """A token-error cutoff; while it is engaged, its route sends nothing and no token is deactivated."""

    id: UUID
    reason: str  # the most frequent one
    token_errors: int  # users whose token was refused
    answers: int  # users whose pushes were answered
    engaged_at: datetime
    resumed_at: datetime | None
    resumed_by: str | None


@dataclass(frozen=True, slots=True)
class ShownRoute:
    """One route, as all workers see it."""

    provider: Provider
    app_id: str | None
    environment: Environment
    brake: ShownBrake | None  # engaged
    workers: list[ShownGate]
    errors: Refusals | None = None  # of the pushes due in the last 15 minutes; null where none was refused


@dataclass(frozen=True, slots=True)
class ShownRefusal:
    """An answer of a provider that no table of ours has."""

    provider: Provider
    status: int  # 0 with the reason `others`: beyond the number of kinds that are counted
    reason: str
    count: int  # in all live workers together, each since it began
    last_at: datetime


@dataclass(frozen=True, slots=True)
class ShownGates:
    """All routes, and unknown answers on them; both are few, so there is one page."""

    items: list[ShownRoute]
    unknown_refusals: list[ShownRefusal]
    next_cursor: None = None


async def refused_of_late(db: AsyncSession, routes: Collection[Route], now: datetime) -> tuple[Answered, ...]:
    """Count the users whose recent pushes were settled, by route; `routes` are those that workers know.

    Gives nothing if that takes too long.
    """
    values = {"now": now, "since": now - LATELY, "apps": _apps(routes), "errors": sorted(TOKEN_ERRORS), "most": MOST}
    return tuple(
        Answered(
            route=route,
            users=row.users,
            token_errors=row.token_errors,
            rejected=row.rejected,
            refusals=Refusals(row.pushes, row.refused, row.largest_user_id, row.largest_pushes) if row.pushes else None,
        )
        for row in await within(db, MAX_SECONDS, _OF_LATE, values)
        if (route := route_of(row, "push_tasks")) is not None
    )


async def refused(db: AsyncSession, routes: Collection[Route], now: datetime) -> tuple[RefusedPushes, ...]:
    """Count the pushes that our credentials keep from being sent, and their users, by route and reason.

    Gives nothing if that takes too long.
    """
    values = {"now": now, "apps": _apps(routes), "uncalled": sorted(UNCALLED_FOR_US)}
    rows = await within(db, MAX_SECONDS, _REFUSED, values)
    return tuple(
        RefusedPushes(route, row.reason, row.pushes, row.users)
        for row in rows
        if (route := route_of(row, "push_tasks")) is not None
    )


def _apps(routes: Collection[Route]) -> list[str]:
    return sorted({route.app_id for route in routes if route.app_id is not None})


_OF_LATE = text("""
    WITH latest AS (
        SELECT provider, app_id, environment, user_id, state, last_reason,
               coalesce(last_reason = ANY(CAST(:errors AS text[])), false) AS is_token_error
          FROM push_tasks
         WHERE due_at > CAST(:since AS timestamptz) AND due_at <= CAST(:now AS timestamptz)
         ORDER BY due_at DESC
         LIMIT :most
    ), by_user AS (
        SELECT provider, CASE WHEN app_id = ANY(CAST(:apps AS text[])) THEN app_id END AS app_id, environment, user_id,
               bool_or(is_token_error) AS token_errors,
               bool_or(state = 'rejected' AND NOT is_token_error) AS rejected,
               count(*) FILTER (WHERE is_token_error OR state = 'rejected') AS pushes
          FROM latest
         WHERE state IN ('accepted', 'unregistered', 'rejected', 'dead')
         GROUP BY 1, 2, 3, 4
    )
    SELECT provider, app_id, environment, count(*) AS users, count(*) FILTER (WHERE token_errors) AS token_errors,
           count(*) FILTER (WHERE rejected) AS rejected, CAST(sum(pushes) AS bigint) AS pushes,
           count(*) FILTER (WHERE pushes > 0) AS refused,
           (array_agg(user_id ORDER BY pushes DESC, user_id))[1] AS largest_user_id, max(pushes) AS largest_pushes
      FROM by_user
     GROUP BY 1, 2, 3
""")


# Both states have a partial index by `due_at`.
_REFUSED = text("""
    WITH waiting AS (
        SELECT * FROM push_tasks
         WHERE state = 'pending' AND due_at > CAST(:now AS timestamptz) - interval '1 hour' AND due_at <= :now
           AND last_reason IS NOT NULL
        UNION ALL
        SELECT * FROM push_tasks
         WHERE state = 'dead' AND due_at > CAST(:now AS timestamptz) - interval '1 hour' AND due_at <= :now
    )
    SELECT t.provider, CASE WHEN t.app_id = ANY(CAST(:apps AS text[])) THEN t.app_id END AS app_id, t.environment,
           coalesce(a.reason, t.last_reason) AS reason, count(*) AS pushes, count(DISTINCT t.user_id) AS users
      FROM waiting AS t
      LEFT JOIN push_attempts AS a
        ON a.task_id = t.task_id AND a.number = t.attempt_count AND a.outcome = 'misconfigured'
     WHERE a.task_id IS NOT NULL OR t.last_reason = ANY(CAST(:uncalled AS text[]))
     GROUP BY 1, 2, 3, 4
""")


_GATE = TypeAdapter(ShownGate)
_REFUSALS = TypeAdapter(list[ShownRefusal])


async def shown(db: AsyncSession) -> ShownGates:
    """Show the routes with the limiters of all live workers, in order, and the answers that no table has."""
    reporting = await workers.live(db)
    return ShownGates(await _routes(db, reporting), _unknown_refusals(reporting))


async def _routes(db: AsyncSession, reporting: Sequence[WorkerRow]) -> list[ShownRoute]:
    gates: dict[Route, list[ShownGate]] = {}
    for worker in reporting:
        for route, report in workers.gates_of(worker):
            if gate := _gate(worker, report):
                gates.setdefault(route, []).append(gate)
    engaged = await token_error_cutoffs.engaged(db)
    known = gates.keys() | engaged.keys()
    of_late = await refused_of_late(db, known, await present_instant(db))
    refused = {each.route: each.refusals for each in of_late if each.refusals}
    listed = known | refused.keys()
    return [
        ShownRoute(
            provider=route.provider,
            app_id=route.app_id,
            environment=route.environment,
            brake=shown_cutoff(engaged[route]) if route in engaged else None,
            workers=gates.get(route, []),
            errors=refused.get(route),
        )
        for route in sorted(listed, key=lambda route: (route.provider, route.app_id or "", route.environment))
    ]


def _unknown_refusals(reporting: Sequence[WorkerRow]) -> list[ShownRefusal]:
    totals: dict[tuple[str, int, str], ShownRefusal] = {}
    for worker in reporting:
        for each in _refusals(worker):
            key = (each.provider, each.status, each.reason)
            known = totals.get(key, replace(each, count=0))
            totals[key] = replace(known, count=known.count + each.count, last_at=max(known.last_at, each.last_at))
    return [totals[key] for key in sorted(totals)]


def _refusals(worker: WorkerRow) -> list[ShownRefusal]:
    try:
        return _REFUSALS.validate_python(worker.gates.get("unknown_refusals", ()))
    except ValidationError:
        log_unreadable("workers.unknown_refusals", "")
        return []


def _gate(worker: WorkerRow, report: dict[str, object]) -> ShownGate | None:
    try:
        return _GATE.validate_python(report | {"worker_id": worker.worker_id, "seen_at": worker.seen_at})
    except ValidationError:
        log_unreadable("workers.gates", "")
        return None


def shown_cutoff(row: TokenErrorCutoffRow) -> ShownBrake:
    """Show one cutoff."""
    return answer_of(ShownBrake, row)
