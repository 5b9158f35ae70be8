"""Somebody's device tokens as support sees them, each with what happened to it."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from domain.devices import ShownDevice


async def of_user(db: AsyncSession, user_id: str, after: tuple[datetime, UUID] | None, limit: int) -> list[ShownDevice]:
    """List somebody's device tokens, the last seen first, from below one's (last_seen_at, id)."""
    raise NotImplementedError
