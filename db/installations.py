"""Installations: one app on one phone, known by the tokens it registered."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import DeviceToken
from domain.installations import Standing


async def standing(db: AsyncSession, user_id: str, installation_id: UUID) -> Standing:
    """Say how an installation stands to a user."""
    query = (
        select(DeviceToken.user_id, DeviceToken.active, DeviceToken.inactive_reason)
        .where(DeviceToken.installation_id == installation_id)
        .order_by(DeviceToken.active.desc(), DeviceToken.last_seen_at.desc(), DeviceToken.id)
    )
    rows = (await db.execute(query)).all()
    if not rows:
        return Standing.UNKNOWN
    mine = [row for row in rows if row.user_id == user_id]
    if not mine:
        return Standing.FOREIGN
    if mine[0].active:
        return Standing.ACTIVE
    if rows[0].active:
        return Standing.INACTIVE
    return Standing.INVALIDATED if mine[0].inactive_reason == "invalidated" else Standing.INACTIVE
