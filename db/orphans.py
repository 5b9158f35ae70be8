"""Orphans: what is pending in the database, and whose workflow may be gone. All by the database's clock."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from db import push_attempts
from db.engine import among, columns_of, count_settled
from db.models.people import MessageRow
from db.models.pushes import OutboxRow
from domain.fasts import MAX_REMINDER_MINUTES
from domain.kinds import Kind


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a walk through rows in order of time has come."""

    at: datetime
    id: UUID


@dataclass(frozen=True, slots=True)
class Stray:
    """A pending push task that has not changed for a while, as it was read."""

    task_id: UUID
    kind: Kind
    conversation_id: UUID
    message_id: UUID
    due_at: datetime
    attempt_count: int
    next_attempt_at: str | None  # as PostgreSQL writes it, which has instants that Python lacks
    rev: int | None  # of its fasting session
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Unopened:
    """A reminder of an active fast, set in time, with nothing on record."""

    session_id: UUID
    user_id: str
    minutes: int
    due_at: datetime
    scheduled_at: datetime  # when it was set
    has_phone: bool  # that could be pushed to


@dataclass(frozen=True, slots=True)
class Window:
    """A time span without its start, with its end."""

    start: datetime
    end: datetime

    def holds(self, at: datetime) -> bool:
        """Tell whether an instant lies in it."""
        return self.start < at <= self.end


async def strays(db: AsyncSession, untouched: timedelta, after: Mark | None, limit: int) -> list[Stray]:
    """List push tasks that should be on their way and do not change, the longest due first.

    What is in the outbox is left out, since the relay dispatches it, and so are kinds of a newer release.
    """
    values = {"untouched": untouched, "limit": limit, "kinds": list(Kind)}
    rows = await db.execute(_STRAYS, values | _mark(after))
    return [Stray(row.task_id, Kind(row.kind), *row[2:]) for row in rows]


async def mark_dead(db: AsyncSession, seen: Collection[Stray]) -> int:
    """Mark strays dead that have not changed since they were read; returns how many.

    Each keeps the reason of its last attempt. One whose message was read during a lost last call is withdrawn.
    """
    columns = columns_of(seen, "task_id", "attempt_count", "next_attempt_at", "rev")
    dead = (await db.execute(_MARK_DEAD, columns)).all()
    count_settled(db, Counter((row.provider, row.kind, row.state, row.last_reason) for row in dead))
    lost = await push_attempts.under_way(db, [row.task_id for row in dead])
    await push_attempts.end_lost(db, lost.values())
    return len(dead)


async def sessions_due(db: AsyncSession, windows: Sequence[Window], after: Mark | None, limit: int) -> list[Mark]:
    """List active sessions that have a reminder in one of these windows, by their ends."""
    values = {
        "starts": [window.start for window in windows],
        "ends": [window.end for window in windows],
        "earliest": min(window.start for window in windows),
        "latest": max(window.end for window in windows) + timedelta(minutes=MAX_REMINDER_MINUTES),
        "limit": limit,
    }
    return [Mark(*row) for row in await db.execute(_SESSIONS_DUE, values | _mark(after))]


async def unopened(db: AsyncSession, window: Window, limit: int) -> list[Unopened]:
    """List reminders due in a window, the earliest first, without a planned or withheld push.

    Those opened for a user without a phone are among them for a moment: see `entered`.
    """
    values = {
        "start": window.start,
        "end": window.end,
        "latest": window.end + timedelta(minutes=MAX_REMINDER_MINUTES),
        "limit": limit,
    }
    return [Unopened(*row) for row in await db.execute(_UNOPENED, values)]


async def handoffs_not_done(
    db: AsyncSession, untouched: timedelta, useful_for: timedelta, after: Mark | None, limit: int
) -> list[Mark]:
    """List messages whose handoff is not certain, in the order they were posted."""
    values = {"untouched": untouched, "useful_for": useful_for, "limit": limit}
    return [Mark(*row) for row in await db.execute(_NOT_HANDED_OFF, values | _mark(after))]


async def entered(db: AsyncSession, message_ids: Collection[UUID]) -> set[UUID]:
    """Say which of these messages exist."""
    return set(await db.scalars(select(MessageRow.id).where(among(MessageRow.id, message_ids))))


async def in_outbox(db: AsyncSession, subject_ids: Collection[UUID]) -> set[UUID]:
    """Say which of these subjects are in the outbox."""
    return set(await db.scalars(select(OutboxRow.subject_id).where(among(OutboxRow.subject_id, subject_ids))))


def _mark(after: Mark | None) -> dict[str, Any]:
    return {"at": after and after.at, "id": after and after.id}


_STRAYS = text("""
    SELECT t.task_id, t.kind, t.conversation_id, t.message_id, t.due_at, t.attempt_count,
           CAST(t.next_attempt_at AS text), s.rev, t.expires_at
      FROM push_tasks t
      LEFT JOIN fasting_sessions s ON s.id = t.conversation_id
     WHERE t.state = 'pending' AND t.kind = ANY(CAST(:kinds AS text[]))
       AND t.due_at <= statement_timestamp() - CAST(:untouched AS interval)
       AND least(coalesce(t.next_attempt_at, t.due_at), t.expires_at)
           <= statement_timestamp() - CAST(:untouched AS interval)
       AND (CAST(:at AS timestamptz) IS NULL
            OR (t.due_at, t.task_id) > (CAST(:at AS timestamptz), CAST(:id AS uuid)))
       AND NOT EXISTS (SELECT FROM push_attempts a
                        WHERE a.task_id = t.task_id
                          AND a.started_at > statement_timestamp() - CAST(:untouched AS interval)
                          AND a.started_at < statement_timestamp() + CAST(:untouched AS interval))
       AND NOT EXISTS (SELECT FROM outbox o WHERE o.subject_id IN (t.task_id, t.conversation_id, t.message_id))
     ORDER BY t.due_at, t.task_id
     LIMIT :limit
""")

_MARK_DEAD = text("""
    WITH seen AS (
        SELECT * FROM unnest(CAST(:task_id AS uuid[]), CAST(:attempt_count AS int[]),
                             CAST(:next_attempt_at AS text[]), CAST(:rev AS int[]))
                   AS seen (task_id, attempt_count, next_attempt_at, rev)
    ), same AS (
        SELECT t.task_id
          FROM push_tasks t JOIN seen USING (task_id)
         WHERE t.state = 'pending' AND t.attempt_count = seen.attempt_count
           AND CAST(t.next_attempt_at AS text) IS NOT DISTINCT FROM seen.next_attempt_at
           AND NOT EXISTS (SELECT FROM fasting_sessions s WHERE s.id = t.conversation_id AND s.rev <> seen.rev)
           AND NOT EXISTS (SELECT FROM outbox o WHERE o.subject_id IN (t.task_id, t.conversation_id, t.message_id))
         ORDER BY t.task_id
           FOR UPDATE OF t SKIP LOCKED
    )
    UPDATE push_tasks t
       SET state = CASE WHEN t.synced_at IS NULL THEN 'dead' ELSE 'withdrawn' END,
           last_reason = CASE WHEN t.synced_at IS NULL THEN coalesce(t.last_reason, 'orphaned') ELSE 'synced' END,
           next_attempt_at = NULL, settled_at = clock_timestamp()
      FROM same
     WHERE t.task_id = same.task_id
    RETURNING t.task_id, t.provider, t.kind, t.state, t.last_reason
""")

_SESSIONS_DUE = text("""
    SELECT s.ends_at, s.id
      FROM fasting_sessions s
     WHERE s.status = 'active'
       AND s.ends_at > CAST(:earliest AS timestamptz) AND s.ends_at <= CAST(:latest AS timestamptz)
       AND (CAST(:at AS timestamptz) IS NULL OR (s.ends_at, s.id) > (CAST(:at AS timestamptz), CAST(:id AS uuid)))
       AND EXISTS (SELECT
                     FROM unnest(s.reminder_minutes) AS minutes,
                          unnest(CAST(:starts AS timestamptz[]), CAST(:ends AS timestamptz[])) AS w (starts_at, ends_at)
                    WHERE s.ends_at - minutes * interval '1 minute' > w.starts_at
                      AND s.ends_at - minutes * interval '1 minute' <= w.ends_at)
     ORDER BY s.ends_at, s.id
     LIMIT :limit
""")

# Of all active fasts, most end too late to be reckoned with: few reminders come more than an hour before the end.
_UNOPENED = text("""
    SELECT s.id, s.user_id, r.minutes, r.due_at, s.scheduled_at,
           EXISTS (SELECT FROM device_tokens d WHERE d.user_id = s.user_id AND d.active)
      FROM fasting_sessions s
     CROSS JOIN LATERAL (
        SELECT minutes, s.ends_at - minutes * interval '1 minute' AS due_at FROM unnest(s.reminder_minutes) AS minutes
     ) AS r
     WHERE s.status = 'active'
       AND s.ends_at > CAST(:start AS timestamptz) AND s.ends_at <= CAST(:latest AS timestamptz)
       AND (s.ends_at <= CAST(:end AS timestamptz) + interval '1 hour' OR 60 < ANY(s.reminder_minutes))
       AND r.due_at > CAST(:start AS timestamptz) AND r.due_at <= CAST(:end AS timestamptz)
       AND r.due_at > s.scheduled_at AND r.minutes <> ALL(s.late_minutes)
       AND NOT EXISTS (SELECT FROM push_tasks t
                        WHERE t.conversation_id = s.id AND t.reminder_minutes = r.minutes AND t.due_at = r.due_at)
       AND NOT EXISTS (SELECT FROM withheld_pushes w
                        WHERE w.user_id = s.user_id AND w.at >= r.due_at - interval '2 seconds'
                          AND w.conversation_id = s.id AND w.reminder_minutes = r.minutes
                          AND w.reason <> 'goal_moved')
     ORDER BY r.due_at, s.id
     LIMIT :limit
""")

_NOT_HANDED_OFF = text("""
    SELECT m.created_at, m.id
      FROM messages m
     WHERE m.kind = 'message' AND m.handed_off_at IS NULL
       AND m.created_at <= statement_timestamp() - CAST(:untouched AS interval)
       AND m.created_at > statement_timestamp() - CAST(:useful_for AS interval)
       AND (CAST(:at AS timestamptz) IS NULL OR (m.created_at, m.id) > (CAST(:at AS timestamptz), CAST(:id AS uuid)))
       AND NOT EXISTS (SELECT FROM outbox o WHERE o.subject_id = m.id)
     ORDER BY m.created_at, m.id
     LIMIT :limit
""")
