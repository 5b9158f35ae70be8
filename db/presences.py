"""Presences: which installations have an open stream. A row counts until it expires; its API process puts that off.

Retention deletes a row an hour after it expired. Until then its process may come back from an outage, and renew it.
"""

from collections.abc import Collection
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Select, delete, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from db.engine import among
from db.models.people import Presence


async def appear(db: AsyncSession, stream_id: UUID, user_id: str, installation_id: UUID, *, lives: float) -> None:
    """Make an installation present for some seconds by this stream; its earlier streams no longer count."""
    older = select(Presence.stream_id).where(Presence.installation_id == installation_id, Presence.user_id == user_id)
    await _delete(db, older.order_by(Presence.stream_id).with_for_update())
    values = {"stream_id": stream_id, "user_id": user_id, "installation_id": installation_id}
    values["expires_at"] = func.clock_timestamp() + timedelta(seconds=lives)
    await db.execute(insert(Presence).values(values))


async def renew(db: AsyncSession, stream_ids: Collection[UUID], *, lives: float) -> set[UUID]:
    """Extend these streams by some seconds; gives those that still have a row. Waits for no lock."""
    columns = {"stream_ids": list(stream_ids), "lives": timedelta(seconds=lives)}
    return set(await db.scalars(_RENEW, columns))


async def leave(db: AsyncSession, stream_ids: Collection[UUID]) -> None:
    """Delete streams that ended, except locked rows, which expire."""
    ended = select(Presence.stream_id).where(among(Presence.stream_id, stream_ids))
    await _delete(db, ended.order_by(Presence.stream_id).with_for_update(skip_locked=True))


async def _delete(db: AsyncSession, stream_ids: Select[UUID]) -> None:
    statement = delete(Presence).where(Presence.stream_id.in_(stream_ids.scalar_subquery()))
    await db.execute(statement)


_RENEW = text("""
    WITH mine AS (
        SELECT stream_id FROM presences WHERE stream_id = ANY(CAST(:stream_ids AS uuid[]))
         ORDER BY stream_id FOR UPDATE SKIP LOCKED
    ), renewed AS (
        UPDATE presences p
           SET expires_at = clock_timestamp() + CAST(:lives AS interval)
          FROM mine
         WHERE p.stream_id = mine.stream_id
    )
    SELECT stream_id FROM presences WHERE stream_id = ANY(CAST(:stream_ids AS uuid[]))
""")
