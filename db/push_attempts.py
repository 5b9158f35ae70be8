"""Push attempts: every provider call, recorded just before it starts."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from db.engine import among, columns_of, once_committed
from db.models.pushes import PushAttempt
from db.unreadable import known_or_none
from telemetry import metrics


@dataclass(frozen=True, slots=True)
class Begun:
    """An attempt that is about to call its provider."""

    attempt_id: UUID
    task_id: UUID
    number: int
    started_at: datetime
    silent_because: str | None = None  # why the phone is not to ring

    def is_under_way(self, now: datetime, lasts: timedelta) -> bool:
        """Whether its worker may still call; not where it began in the future, as after a clock was set back."""
        return abs(now - self.started_at) < lasts


@dataclass(frozen=True, slots=True)
class FinalAttempt:
    """The final result of a call."""

    task_id: UUID
    started_at: datetime
    latency_ms: int | None
    outcome: str  # accepted, rejected or unregistered
    reason: str | None

    @property
    def answered_at(self) -> datetime | None:
        """The instant of the provider's answer; None where the call began at an odd instant."""
        began_at = known_or_none(self.started_at)
        return None if began_at is None else began_at + timedelta(milliseconds=self.latency_ms or 0)


@dataclass(frozen=True, slots=True)
class Ended:
    """The result of an attempt."""

    attempt_id: UUID
    outcome: str
    reason: str | None
    latency_ms: int | None
    provider_id: str | None
    retry_at: datetime | None = None  # when another attempt is due


@dataclass(frozen=True, slots=True)
class Uncalled:
    """An attempt that ended without a call."""

    attempt_id: UUID
    task_id: UUID


async def under_way(db: AsyncSession, task_ids: Collection[UUID]) -> Mapping[UUID, Begun]:
    """Find the attempts of these tasks that have no outcome yet."""
    query = select(PushAttempt.attempt_id, PushAttempt.task_id, PushAttempt.number, PushAttempt.started_at).where(
        among(PushAttempt.task_id, task_ids), PushAttempt.outcome.is_(None)
    )
    return {row.task_id: Begun(*row) for row in await db.execute(query)}


async def final(db: AsyncSession, task_ids: Collection[UUID]) -> Mapping[UUID, FinalAttempt]:
    """Find the final results of these tasks' calls; a task's own row may have been locked when the call ended."""
    query = (
        select(
            PushAttempt.task_id,
            PushAttempt.started_at,
            PushAttempt.latency_ms,
            PushAttempt.outcome,
            PushAttempt.reason,
        )
        .where(among(PushAttempt.task_id, task_ids), PushAttempt.outcome.in_(_FINAL))
        .order_by(PushAttempt.number)
    )
    return {row.task_id: FinalAttempt(*row[:3], str(row.outcome), row.reason) for row in await db.execute(query)}


async def begin(db: AsyncSession, attempts: Collection[Begun]) -> None:
    """Record that calls are about to start."""
    if attempts:
        await db.execute(
            _BEGIN, columns_of(attempts, "attempt_id", "task_id", "number", "started_at", "silent_because")
        )


async def end(db: AsyncSession, attempts: Collection[Ended]) -> None:
    """Record the results of calls; a stored outcome stays."""
    if attempts:
        ordered = sorted(attempts, key=lambda a: a.attempt_id)
        names = ("attempt_id", "outcome", "reason", "latency_ms", "provider_id", "retry_at")
        await db.execute(_END, columns_of(ordered, *names))


async def end_lost(db: AsyncSession, attempts: Collection[Begun]) -> None:
    """Record of calls that their worker was lost before it stored the result."""
    await end(db, [Ended(a.attempt_id, "unknown", "worker_lost", None, None) for a in attempts])
    once_committed(db, lambda: metrics.push_attempts_lost.inc(len(attempts)))


async def forget(db: AsyncSession, attempts: Collection[Uncalled]) -> None:
    """Delete attempts without a call, and uncount them; one already recorded as lost stays.

    Where nobody has said when the push is tried again, that is at once.
    """
    if attempts:
        await db.execute(_FORGET, columns_of(attempts, "attempt_id", "task_id"))


_FINAL = ("accepted", "rejected", "unregistered")

_BEGIN = text("""
    INSERT INTO push_attempts (attempt_id, task_id, number, started_at, silent_because)
    SELECT * FROM unnest(CAST(:attempt_id AS uuid[]), CAST(:task_id AS uuid[]), CAST(:number AS int[]),
                         CAST(:started_at AS timestamptz[]), CAST(:silent_because AS text[]))
""")

_END = text("""
    UPDATE push_attempts AS a
       SET outcome = new.outcome, reason = new.reason, latency_ms = new.latency_ms, provider_id = new.provider_id,
           retry_at = new.retry_at
      FROM unnest(CAST(:attempt_id AS uuid[]), CAST(:outcome AS text[]), CAST(:reason AS text[]),
                  CAST(:latency_ms AS int[]), CAST(:provider_id AS text[]), CAST(:retry_at AS timestamptz[]))
           AS new (attempt_id, outcome, reason, latency_ms, provider_id, retry_at)
     WHERE a.attempt_id = new.attempt_id
       AND (a.outcome IS NULL OR a.outcome = 'unknown')
""")

_FORGET = text("""
    WITH held AS (
        SELECT task_id FROM push_tasks WHERE task_id = ANY(CAST(:task_id AS uuid[])) ORDER BY task_id FOR UPDATE
    ), gone AS (
        DELETE FROM push_attempts AS a USING held
         WHERE a.task_id = held.task_id AND a.attempt_id = ANY(CAST(:attempt_id AS uuid[])) AND a.outcome IS NULL
        RETURNING a.task_id
    )
    UPDATE push_tasks AS t
       SET attempt_count = t.attempt_count - 1,
           next_attempt_at = CASE WHEN t.state = 'pending' THEN coalesce(t.next_attempt_at, clock_timestamp()) END
      FROM gone
     WHERE t.task_id = gone.task_id
""")
