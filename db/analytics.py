"""What became of pushes. Each count walks the index of due instants through a bounded range, for some seconds at most."""

from collections.abc import Mapping
from contextlib import asynccontextmanager
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from db.engine import Sessions, present_instant
from domain.analytics import Analytics, Asked, Fate, Span, Step, Tally, Unaccepted
from domain.kinds import Kind
from domain.problems import InvalidField
from domain.push import Provider, TaskState

_CANCELED = "57014"  # SQLSTATE: canceled, here by the timeout
_MOST_REASONS = 200


async def by_day(sessions: Sessions, asked: Asked) -> Analytics:
    """Count the pushes of some days; raises InvalidField where that takes too long."""
    async with _in_time(sessions, "days") as db:
        to_at = await present_instant(db)
        first = to_at.astimezone(UTC).date() - timedelta(days=asked.days - 1)
        from_at = datetime.combine(first, time(), UTC)
        values = {
            "from_at": from_at,
            "to_at": to_at,
            "kind": asked.kind,
            "provider": asked.provider,
            "app_id": asked.app_id,
            "most": _MOST_REASONS,
        }
        tallies = [_tally(row) for row in (await db.execute(_TALLIES, values)).mappings()]
        unaccepted = [
            Unaccepted(Kind(row.kind), Provider(row.provider), row.app_id, row.outcome, row.reason, row.count)
            for row in await db.execute(_UNACCEPTED, values)
        ]
        fates = [
            Fate(Kind(row.kind), Provider(row.provider), row.app_id, TaskState(row.state), row.last_reason, row.count)
            for row in await db.execute(_FATES, values)
        ]
    return Analytics(from_at, to_at, tallies, unaccepted, fates)


async def lately(sessions: Sessions, span: Span) -> list[Step]:
    """Count the pushes of the last hours, step by step; raises InvalidField where that takes too long."""
    async with _in_time(sessions, "hours") as db:
        now = await present_instant(db)
        step = span.step.total_seconds()
        last = datetime.fromtimestamp(now.timestamp() // step * step, UTC)
        count = round(timedelta(hours=span.hours) / span.step)
        steps = [Step(last - span.step * ago) for ago in reversed(range(count))]
        values = {"from_at": steps[0].at, "to_at": now, "step": span.step}
        pushes = {row["at"]: row for row in (await db.execute(_PUSHES, values)).mappings()}
        calls = {row["at"]: row for row in (await db.execute(_CALLS, values)).mappings()}
    return [replace(each, **pushes.get(each.at, {}), **_without_at(calls.get(each.at, {}))) for each in steps]


@asynccontextmanager
async def _in_time(sessions: Sessions, field: str) -> AsyncIterator[AsyncSession]:
    """Open a transaction whose statements are cut off after a while."""
    try:
        async with sessions.begin() as db:
            await db.execute(text("SET LOCAL statement_timeout = '5s'"))
            yield db
    except DBAPIError as error:
        if getattr(error.orig, "pgcode", None) != _CANCELED:
            raise
        raise InvalidField(field, "So many pushes cannot be counted in 5 s; ask for less.") from None


def _tally(row: Mapping[str, Any]) -> Tally:
    return Tally(**(dict(row) | {"kind": Kind(row["kind"]), "provider": Provider(row["provider"])}))


def _without_at(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "at"}


_WANTED = """
       t.due_at >= :from_at AND t.due_at < :to_at
   AND (CAST(:kind AS text) IS NULL OR t.kind = CAST(:kind AS text))
   AND (CAST(:provider AS text) IS NULL OR t.provider = CAST(:provider AS text))
   AND (CAST(:app_id AS text) IS NULL OR t.app_id = CAST(:app_id AS text))
"""

_TALLIES = text(f"""
    SELECT CAST(t.due_at AT TIME ZONE 'UTC' AS date) AS day, t.kind, t.provider, t.app_id,
           count(*) AS pushes, sum(t.attempt_count) AS attempts,
           count(t.accepted_at) AS accepted,
           count(t.opened_at) FILTER (WHERE t.state = 'accepted') AS opened,
           count(t.synced_at) FILTER (WHERE t.state = 'accepted') AS synced,
           count(*) FILTER (WHERE t.state = 'pending') AS pending,
           count(*) FILTER (WHERE t.state = 'dead') AS dead
      FROM push_tasks t
     WHERE {_WANTED}
     GROUP BY 1, 2, 3, 4
     ORDER BY 1 DESC, 2, 3, 4 NULLS FIRST
""")

# a push that was accepted at its first call had no other call
_UNACCEPTED = text(f"""
    SELECT t.kind, t.provider, t.app_id, a.outcome, a.reason, count(*) AS count
      FROM push_tasks t JOIN push_attempts a ON a.task_id = t.task_id
     WHERE {_WANTED}
       AND (t.state <> 'accepted' OR t.attempt_count > 1) AND a.outcome IS DISTINCT FROM 'accepted'
     GROUP BY 1, 2, 3, 4, 5
     ORDER BY 6 DESC, 1, 2, 3, 4, 5
     LIMIT :most
""")

_FATES = text(f"""
    SELECT t.kind, t.provider, t.app_id, t.state, t.last_reason, count(*) AS count
      FROM push_tasks t
     WHERE {_WANTED}
       AND t.state NOT IN ('accepted', 'pending')
     GROUP BY 1, 2, 3, 4, 5
     ORDER BY 6 DESC, 1, 2, 3, 4, 5
     LIMIT :most
""")

_PUSHES = text("""
    SELECT date_bin(:step, due_at, :from_at) AS at, count(*) AS pushes,
           count(accepted_at) AS accepted,
           count(*) FILTER (WHERE state = 'dead') AS dead,
           count(synced_at) FILTER (WHERE state = 'accepted') AS synced,
           count(*) FILTER (WHERE state = 'withdrawn' AND last_reason = 'superseded') AS superseded,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM accepted_at - due_at)) AS late_p50,
           percentile_cont(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM accepted_at - due_at)) AS late_p99
      FROM push_tasks
     WHERE due_at >= :from_at AND due_at < :to_at
     GROUP BY 1
""")

_CALLS = text("""
    SELECT date_bin(:step, t.due_at, :from_at) AS at, count(*) AS calls,
           count(*) FILTER (WHERE a.outcome <> 'accepted') AS refused,
           count(*) FILTER (WHERE a.outcome = 'unregistered') AS invalid_tokens,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY a.latency_ms) / 1000 AS call_p50,
           percentile_cont(0.99) WITHIN GROUP (ORDER BY a.latency_ms) / 1000 AS call_p99
      FROM push_tasks t JOIN push_attempts a ON a.task_id = t.task_id AND a.outcome IS NOT NULL
     WHERE t.due_at >= :from_at AND t.due_at < :to_at
     GROUP BY 1
""")
