"""How many users refusals belong to, and to whom most; of so many pushes that counting them costs little.

Apps that no worker knows are one with the default app, so that nobody is counted twice by making names up.
"""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from db.engine import within
from db.unreadable import route_of
from domain.push import Route
from domain.refusals import LATELY, TOKEN_ERRORS, UNCALLED_FOR_US, Answered, Refusals, Refused

MOST = 20_000  # pushes looked at, the latest ones
MOST_SECONDS = 2.0  # for one question; an operator's page has others


async def of_late(db: AsyncSession, routes: Collection[Route], now: datetime) -> tuple[Answered, ...]:
    """Count the users whose pushes of late came to something, by route; `routes` are those that workers know.

    Gives nothing where that takes too long.
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
        for row in await within(db, MOST_SECONDS, _OF_LATE, values)
        if (route := route_of(row, "push_tasks")) is not None
    )


async def refused(db: AsyncSession, routes: Collection[Route], now: datetime) -> tuple[Refused, ...]:
    """Count the pushes that our credentials keep from being sent, and their users, by route and reason.

    Gives nothing where that takes too long.
    """
    values = {"now": now, "apps": _apps(routes), "uncalled": sorted(UNCALLED_FOR_US)}
    rows = await within(db, MOST_SECONDS, _REFUSED, values)
    return tuple(
        Refused(route, row.reason, row.pushes, row.users)
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
