"""Lines on screens: the pushes of one collapse key to one installation, of which the newest is what stays."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from db.push_tasks import Task
from domain.last_check import Line


async def around(db: AsyncSession, tasks: Sequence[Task], in_flight: timedelta) -> dict[UUID, Line]:
    """Say of tasks what else goes to their lines, which are this transaction's until it ends.

    A call that began longer ago than `in_flight` has lost its worker.
    """
    if not tasks:
        return {}
    lines = {"installation_ids": [t.installation_id for t in tasks], "keys": [t.collapse_key for t in tasks]}
    await db.execute(_HOLD, lines)
    return await seen(db, [task.task_id for task in tasks], in_flight)


async def seen(db: AsyncSession, task_ids: Sequence[UUID], in_flight: timedelta) -> dict[UUID, Line]:
    """Say the same at a glance: nothing is held."""
    rows = await db.execute(_AROUND, {"task_ids": task_ids, "in_flight": in_flight})
    return {row.task_id: Line(row.newer_begun, row.newer_waits, row.call_under_way, row.has_sounded) for row in rows}


_HOLD = text("""
    SELECT pg_advisory_xact_lock(line)
      FROM (SELECT DISTINCT hashtextextended(installation_id || '/' || key, 0) AS line
              FROM unnest(CAST(:installation_ids AS uuid[]), CAST(:keys AS text[])) AS asked (installation_id, key)
             ORDER BY line) AS lines
""")

# Each question walks an index to its answer, so that a line costs the same however long its past: the latest of
# a line is the end of an index (of EXISTS the planner may hope to find one soon by reading all), and no index serves
# `clock_timestamp()`. A call that is under way belongs to a push that waits, or that was settled since.
_AROUND = text("""
    SELECT asked.task_id,
           calls.of_newer OR coalesce(asked.due_at < (
               SELECT max(other.due_at) FROM push_tasks AS other
                WHERE other.installation_id = asked.installation_id AND other.collapse_key = asked.collapse_key
                  AND other.state = 'accepted' AND other.synced_at IS NULL
           ), false) AS newer_begun,
           coalesce(asked.due_at < (
               SELECT max(other.due_at) FROM push_tasks AS other
                WHERE other.installation_id = asked.installation_id AND other.collapse_key = asked.collapse_key
                  AND other.state = 'pending' AND other.synced_at IS NULL
           ), false) AS newer_waits,
           calls.of_any AS call_under_way,
           coalesce(g.sounded_at > clock_timestamp() - interval '1 minute'
                    AND g.sounded_at < clock_timestamp() + interval '1 minute', false) AS has_sounded
      FROM push_tasks AS asked
      LEFT JOIN collapse_groups AS g
             ON g.installation_id = asked.installation_id AND g.collapse_key = asked.collapse_key
     CROSS JOIN LATERAL (
        SELECT count(*) > 0 AS of_any, coalesce(bool_or(other.due_at > asked.due_at), false) AS of_newer
          FROM (SELECT w.task_id, w.due_at
                  FROM push_tasks AS w
                 WHERE w.installation_id = asked.installation_id AND w.collapse_key = asked.collapse_key
                   AND w.state = 'pending' AND w.synced_at IS NULL AND w.attempt_count > 0
                 UNION ALL
                SELECT s.task_id, s.due_at
                  FROM push_tasks AS s
                 WHERE s.installation_id = asked.installation_id AND s.collapse_key = asked.collapse_key
                   AND s.synced_at IS NULL
                   AND s.settled_at > statement_timestamp() - CAST(:in_flight AS interval)) AS other
          JOIN push_attempts AS call
                 ON call.task_id = other.task_id AND call.outcome IS NULL
                AND call.started_at > statement_timestamp() - CAST(:in_flight AS interval)
         WHERE other.task_id <> asked.task_id
     ) AS calls
     WHERE asked.task_id = ANY(CAST(:task_ids AS uuid[]))
""")
