"""Collapse groups: the pushes of one conversation to one phone, which replace each other on its screen.

One transaction holds a group at a time: the check before a call (`around`), or the planning of its conversation. Rows
are touched last and in a fixed order, so that a transaction that waits for one waits for nothing else.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from db import push_attempts, push_tasks
from db.engine import columns_of
from db.push_tasks import DueMessage, Task
from domain.last_check import CollapseGroupUse
from domain.push import TaskState


@dataclass(frozen=True, slots=True)
class Sounding:
    """The sound of one attempt in its group."""

    installation_id: UUID
    collapse_key: str
    began_at: datetime


@dataclass(frozen=True, slots=True)
class CollapseGroupStanding:
    """The state of a group beside the message that is planned for it."""

    newer: bool  # a later message's push waits or was accepted
    taken: bool  # an earlier one is being sent, has not been tried yet, or is held by another transaction
    behind: tuple[UUID, ...]  # earlier ones that wait for another attempt; this transaction holds them
    planned_at: datetime | None  # when its last push was planned
    burst: int  # pushes until then, each within a minute of the one before


async def standings(
    db: AsyncSession, message: DueMessage, installation_ids: Collection[UUID], now: datetime, in_flight: timedelta
) -> dict[UUID, CollapseGroupStanding]:
    """Give the state of a message's group on each of these installations. Waits for no lock.

    A call that began longer ago than `in_flight` has lost its worker.
    """
    values = {
        "message_id": message.message_id,
        "collapse_key": message.collapse_key,
        "due_at": message.due_at,
        "installation_ids": list(installation_ids),
    }
    rows = (await db.execute(_STANDING, values)).all()
    waiting = [task_id for row in rows for task_id in row.waiting]
    tried: set[UUID] = set()
    if waiting:
        tried = set(await db.scalars(_HOLD_TRIED, {"task_ids": waiting}))
        calls = await push_attempts.under_way(db, tried)
        tried -= {call.task_id for call in calls.values() if call.is_under_way(now, in_flight)}
    return {
        row.installation_id: CollapseGroupStanding(
            newer=row.newer,
            taken=not tried.issuperset(row.waiting),
            behind=tuple(row.waiting),
            planned_at=row.planned_at,
            burst=row.burst,
        )
        for row in rows
    }


async def supersede(db: AsyncSession, task_ids: Collection[UUID]) -> None:
    """Withdraw pushes that this transaction holds: a later one is planned for their groups."""
    if task_ids:
        await push_tasks.close(db, task_ids, TaskState.WITHDRAWN, "superseded")
        await push_attempts.end_lost(db, (await push_attempts.under_way(db, task_ids)).values())


async def note_planned(db: AsyncSession, collapse_key: str, bursts: Mapping[UUID, int]) -> None:
    """Record that a push was planned now on each of these installations, with its number within its burst."""
    if bursts:
        ordered = sorted(bursts)
        columns = {"installation_ids": ordered, "bursts": [bursts[each] for each in ordered]}
        await db.execute(_PLANNED, {"collapse_key": collapse_key} | columns)


async def note_begun(db: AsyncSession, soundings: Sequence[Sounding]) -> None:
    """Record that calls with a sound are about to start; this transaction holds their groups."""
    if soundings:
        await db.execute(_BEGUN, _columns(soundings))


async def note_ended(db: AsyncSession, heard: Mapping[Sounding, bool]) -> None:
    """Record which calls with a sound were heard, as of now, and which were not; later ones stay."""
    if heard:
        await db.execute(_ENDED, _columns(heard) | {"heard": [heard[each] for each in sorted(heard, key=_place)]})


def _columns(soundings: Collection[Sounding]) -> dict[str, list[object]]:
    return columns_of(sorted(soundings, key=_place), "installation_id", "collapse_key", "began_at")


def _place(sounding: Sounding) -> tuple[UUID, str]:
    return sounding.installation_id, sounding.collapse_key


_STANDING = text("""
    SELECT asked.installation_id, CASE WHEN g.planned_at <= clock_timestamp() THEN g.planned_at END AS planned_at,
           coalesce(g.burst, 0) AS burst,
           coalesce(CAST(:due_at AS timestamptz) < greatest(
               (SELECT max(t.due_at) FROM push_tasks AS t
                 WHERE t.installation_id = asked.installation_id AND t.collapse_key = :collapse_key
                   AND t.state = 'accepted' AND t.synced_at IS NULL),
               (SELECT max(t.due_at) FROM push_tasks AS t
                 WHERE t.installation_id = asked.installation_id AND t.collapse_key = :collapse_key
                   AND t.state = 'pending' AND t.synced_at IS NULL)
           ), false) AS newer,
           ARRAY(SELECT t.task_id FROM push_tasks AS t
                  WHERE t.installation_id = asked.installation_id AND t.collapse_key = :collapse_key
                    AND t.state = 'pending' AND t.due_at <= CAST(:due_at AS timestamptz)
                    AND t.message_id <> :message_id) AS waiting
      FROM unnest(CAST(:installation_ids AS uuid[])) AS asked (installation_id)
      LEFT JOIN collapse_groups AS g
             ON g.installation_id = asked.installation_id AND g.collapse_key = :collapse_key
""")


# Those that have been tried, or put off, at least once.
_HOLD_TRIED = text("""
    SELECT task_id FROM push_tasks
     WHERE task_id = ANY(CAST(:task_ids AS uuid[])) AND state = 'pending'
       AND (attempt_count > 0 OR last_reason IS NOT NULL)
     ORDER BY task_id
       FOR UPDATE SKIP LOCKED
""")


_PLANNED = text("""
    INSERT INTO collapse_groups (installation_id, collapse_key, planned_at, burst)
    SELECT installation_id, :collapse_key, clock_timestamp(), burst
      FROM unnest(CAST(:installation_ids AS uuid[]), CAST(:bursts AS int[])) AS new (installation_id, burst)
     ORDER BY installation_id
        ON CONFLICT (installation_id, collapse_key)
        DO UPDATE SET planned_at = excluded.planned_at, burst = excluded.burst
""")


_BEGUN = text("""
    INSERT INTO collapse_groups (installation_id, collapse_key, sounded_at)
    SELECT * FROM unnest(CAST(:installation_id AS uuid[]), CAST(:collapse_key AS text[]),
                         CAST(:began_at AS timestamptz[]))
        ON CONFLICT (installation_id, collapse_key) DO UPDATE SET sounded_at = excluded.sounded_at
""")


_ENDED = text("""
    WITH ended AS (
        SELECT g.installation_id, g.collapse_key, new.heard
          FROM unnest(CAST(:installation_id AS uuid[]), CAST(:collapse_key AS text[]),
                      CAST(:began_at AS timestamptz[]), CAST(:heard AS boolean[]))
               AS new (installation_id, collapse_key, began_at, heard)
          JOIN collapse_groups AS g
               ON g.installation_id = new.installation_id AND g.collapse_key = new.collapse_key
              AND g.sounded_at = new.began_at
         ORDER BY g.installation_id, g.collapse_key
           FOR UPDATE OF g
    )
    UPDATE collapse_groups AS g
       SET sounded_at = CASE WHEN ended.heard THEN clock_timestamp() END
      FROM ended
     WHERE g.installation_id = ended.installation_id AND g.collapse_key = ended.collapse_key
""")


async def around(db: AsyncSession, tasks: Sequence[Task], in_flight: timedelta) -> dict[UUID, CollapseGroupUse]:
    """Say of tasks what else is in their groups, which this transaction holds until it ends.

    A call that began longer ago than `in_flight` has lost its worker.
    """
    if not tasks:
        return {}
    lines = {"installation_ids": [t.installation_id for t in tasks], "keys": [t.collapse_key for t in tasks]}
    await db.execute(_HOLD, lines)
    return await seen(db, [task.task_id for task in tasks], in_flight)


async def seen(db: AsyncSession, task_ids: Sequence[UUID], in_flight: timedelta) -> dict[UUID, CollapseGroupUse]:
    """Say the same without holding anything."""
    rows = await db.execute(_AROUND, {"task_ids": task_ids, "in_flight": in_flight})
    return {
        row.task_id: CollapseGroupUse(row.newer_begun, row.newer_waits, row.call_under_way, row.has_sounded)
        for row in rows
    }


_HOLD = text("""
    SELECT pg_advisory_xact_lock(line)
      FROM (SELECT DISTINCT hashtextextended(installation_id || '/' || key, 0) AS line
              FROM unnest(CAST(:installation_ids AS uuid[]), CAST(:keys AS text[])) AS asked (installation_id, key)
             ORDER BY line) AS lines
""")


# Each subquery reads the end of an index, so that a group costs the same however long its past. With EXISTS the planner
# may read all, hoping to find one soon. No index serves `clock_timestamp()`. A call that is under way belongs to a
# push that is pending, or that was settled since.
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
                AND call.started_at < statement_timestamp() + CAST(:in_flight AS interval)
         WHERE other.task_id <> asked.task_id
     ) AS calls
     WHERE asked.task_id = ANY(CAST(:task_ids AS uuid[]))
""")
