"""A person's timeline, derived from the tables that hold the truth: one statement, by indexes of the person alone."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from domain.timeline import Part, TimelineItem


async def of_user(
    db: AsyncSession, user_id: str, part: Part, after: tuple[datetime, UUID] | None, limit: int
) -> list[TimelineItem]:
    """List what happened to somebody's pushes, the latest first, from below an item's (at, id)."""
    raise NotImplementedError
