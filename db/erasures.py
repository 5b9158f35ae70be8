"""Erasures: who is being erased, whose turn it is, and what of them may still have a workflow."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from sqlalchemy import func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.engine import any_of_locked, columns_of
from db.models.operations import ErasureRow

LEASE = timedelta(seconds=60)  # a worker that died holds an erasure this long
_LONGEST = timedelta(minutes=1)  # no transaction of ours lasts longer: its statements end in 30 s, its pauses in 10 s


class ErasureState(StrEnum):
    """Whether anything of the person may be left."""

    RUNNING = "running"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Erasure:
    """An erasure, without a name."""

    id: UUID
    state: ErasureState
    requested_at: datetime
    done_at: datetime | None


@dataclass(frozen=True, slots=True)
class Erasing:
    """An erasure that a worker goes on with."""

    id: UUID
    user_id: str = field(repr=False)
    attempts: int  # that failed, in a row


@dataclass(frozen=True, slots=True)
class ErasureSubject:
    """What was deleted and may have a workflow; `kind` as in the outbox."""

    kind: str
    id: UUID


async def running(db: AsyncSession, user_id: str) -> Erasure | None:
    """Give the erasure of somebody who is being erased now."""
    row = await db.scalar(select(ErasureRow).where(ErasureRow.user_id == user_id))
    return None if row is None else _shown(row)


async def read(db: AsyncSession, erasure_id: UUID) -> Erasure | None:
    """Read an erasure."""
    row = await db.get(ErasureRow, erasure_id)
    return None if row is None else _shown(row)


async def add(db: AsyncSession, user_id: str, digest: bytes) -> Erasure:
    """Begin an erasure: from the commit on, triggers keep new rows about this person out."""
    values = {"user_id": user_id, "digest": digest, "next_attempt_at": func.clock_timestamp()}
    return _shown((await db.scalars(insert(ErasureRow).values(values).returning(ErasureRow))).one())


async def lease_due(db: AsyncSession) -> Erasing | None:
    """Take the erasure that waits for longest, and keep other workers off it for a while."""
    row = (await db.execute(_LEASE_DUE)).one_or_none()
    if row is None:
        return None
    assert row.user_id is not None  # as long as it is due
    return Erasing(row.id, row.user_id, row.attempts)


_NOW = func.statement_timestamp()
_DUE = (
    select(ErasureRow.id)
    .where(ErasureRow.next_attempt_at <= _NOW)
    .order_by(ErasureRow.next_attempt_at)
    .limit(1)
    .with_for_update(skip_locked=True)
)
_LEASE_DUE = (  # made once, since a worker runs it every second
    update(ErasureRow)
    .where(any_of_locked(ErasureRow.id, _DUE))
    .values(next_attempt_at=_NOW + LEASE)
    .returning(ErasureRow.id, ErasureRow.user_id, ErasureRow.attempts)
)


async def go_on_later(db: AsyncSession, erasure_id: UUID, wait: timedelta, attempts: int) -> None:
    """Let any worker go on after a wait."""
    values = {"next_attempt_at": func.clock_timestamp() + wait, "attempts": attempts}
    query = update(ErasureRow).where(ErasureRow.id == erasure_id, ErasureRow.done_at.is_(None))
    await db.execute(query.values(values))


async def finish(db: AsyncSession, erasure_id: UUID) -> None:
    """Forget the name: from the commit on, the person may come back."""
    values = {"user_id": None, "next_attempt_at": None, "done_at": func.clock_timestamp()}
    query = update(ErasureRow).where(ErasureRow.id == erasure_id, ErasureRow.done_at.is_(None))
    await db.execute(query.values(values))


async def is_anyone_older(db: AsyncSession, at: datetime) -> bool:
    """Tell whether a transaction is open that began before an instant: it may not know of what was committed since.

    All processes connect as one role, so each sees the others. Transactions older than any of ours can be are ignored.
    """
    return bool(await db.scalar(_OLDER, {"at": at, "longest": _LONGEST}))


async def subjects(
    db: AsyncSession, erasure_id: UUID, after: ErasureSubject | None, limit: int
) -> Sequence[ErasureSubject]:
    """List subjects whose workflows are to be deleted, except those that a relay may just be dispatching."""
    values = {"kind": after.kind if after else "", "id": after.id if after else UUID(int=0)}
    rows = await db.execute(_SUBJECTS, {"erasure_id": erasure_id, "limit": limit} | values)
    return [ErasureSubject(*row) for row in rows]


async def has_subjects(db: AsyncSession, erasure_id: UUID) -> bool:
    """Tell whether a subject is left."""
    return bool(await db.scalar(_HAS_SUBJECTS, {"erasure_id": erasure_id}))


async def settle(db: AsyncSession, erasure_id: UUID, gone: Collection[ErasureSubject]) -> None:
    """Forget subjects that have no workflow."""
    await db.execute(_SETTLE, columns_of(gone, "kind", "id") | {"erasure_id": erasure_id})


def _shown(row: ErasureRow) -> Erasure:
    state = ErasureState.RUNNING if row.done_at is None else ErasureState.DONE
    return Erasure(row.id, state, row.requested_at, row.done_at)


_OLDER = text("""
    SELECT EXISTS (
        SELECT FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
           AND xact_start <= CAST(:at AS timestamptz)
           AND xact_start > clock_timestamp() - CAST(:longest AS interval)
    )
""")

_SUBJECTS = text("""
    SELECT s.subject_kind, s.subject_id
      FROM erased_subjects s
     WHERE s.erasure_id = :erasure_id AND (s.subject_kind, s.subject_id) > (:kind, CAST(:id AS uuid))
       AND NOT EXISTS (SELECT FROM outbox o WHERE o.subject_id = s.subject_id AND o.subject_kind = s.subject_kind)
     ORDER BY s.subject_kind, s.subject_id
     LIMIT :limit
""")

_HAS_SUBJECTS = text("SELECT EXISTS (SELECT FROM erased_subjects WHERE erasure_id = :erasure_id)")

_SETTLE = text("""
    DELETE FROM erased_subjects s
     USING unnest(CAST(:kind AS text[]), CAST(:id AS uuid[])) AS gone (kind, id)
     WHERE s.erasure_id = :erasure_id AND s.subject_kind = gone.kind AND s.subject_id = gone.id
""")
