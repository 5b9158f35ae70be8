"""The outbox: what the database still owes Temporal. A row goes when Temporal agrees with its subject."""

import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.engine import among
from db.models import OutboxRow
from telemetry import tracing

GRACE = timedelta(seconds=5)  # the API process dispatches its own rows first; then they are anybody's
LEASE = timedelta(seconds=30)  # a dispatcher that died keeps its rows from others this long
_LONGEST_BACK_OFF = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Owed:
    """One dispatch that is due."""

    id: int
    subject_kind: str
    subject_id: UUID
    attempts: int
    traceparent: str | None = None


async def add(db: AsyncSession, subject_kind: str, subject_id: UUID) -> Owed:
    """Owe Temporal a dispatch of this subject, which this process is to try first."""
    traceparent = tracing.traceparent()
    values = {
        "subject_kind": subject_kind,
        "subject_id": subject_id,
        "next_attempt_at": func.clock_timestamp() + GRACE,
        "traceparent": traceparent,
    }
    outbox_id = (await db.execute(insert(OutboxRow).values(values).returning(OutboxRow.id))).scalar_one()
    return Owed(outbox_id, subject_kind, subject_id, 1, traceparent)


async def add_for_sweepers(db: AsyncSession, subject_kind: str, subject_ids: Iterable[UUID]) -> None:
    """Owe Temporal dispatches that no API process will try first."""
    common = {
        "subject_kind": subject_kind,
        "next_attempt_at": func.clock_timestamp(),
        "traceparent": tracing.traceparent(),
    }
    rows = [{"subject_id": each, **common} for each in subject_ids]
    if rows:
        await db.execute(insert(OutboxRow).values(rows))


async def lease_due(db: AsyncSession, limit: int) -> Sequence[Owed]:
    """Take the rows that are due, the oldest first, and keep other sweepers off them for a while."""
    now = func.statement_timestamp()  # stable, so that the index can be searched by it
    due = (
        select(OutboxRow.id)
        .where(OutboxRow.next_attempt_at <= now)
        .order_by(OutboxRow.next_attempt_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    lease = (
        update(OutboxRow)
        .where(OutboxRow.id.in_(due.scalar_subquery()))
        .values(next_attempt_at=now + LEASE, attempts=OutboxRow.attempts + 1)
        .returning(
            OutboxRow.id, OutboxRow.subject_kind, OutboxRow.subject_id, OutboxRow.attempts, OutboxRow.traceparent
        )
    )
    return [Owed(*row) for row in await db.execute(lease, execution_options={"synchronize_session": False})]


async def settle(db: AsyncSession, outbox_id: int) -> None:
    """Forget a row: Temporal agrees."""
    await db.execute(delete(OutboxRow).where(OutboxRow.id == outbox_id))


async def give_back(db: AsyncSession, outbox_ids: Collection[int]) -> None:
    """Let anybody have rows at once that were leased and not dispatched."""
    query = update(OutboxRow).where(among(OutboxRow.id, outbox_ids))
    await db.execute(
        query.values(next_attempt_at=func.clock_timestamp()), execution_options={"synchronize_session": False}
    )


async def postpone(db: AsyncSession, outbox_id: int, attempts: int, error: str) -> None:
    """Try again later: exponential back-off with full jitter."""
    wait = timedelta(seconds=random.uniform(0.5, min(_LONGEST_BACK_OFF, 2.0 ** min(attempts, 10))))  # noqa: S311
    values = {"next_attempt_at": func.clock_timestamp() + wait, "last_error": error}
    await db.execute(update(OutboxRow).where(OutboxRow.id == outbox_id).values(values))
