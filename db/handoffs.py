"""Handoffs: whom a message concerns, one statement for any number of members."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import and_, exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import DeviceToken, LogItem, Message, Presence, SyncPosition
from db.unreadable import route_of
from domain.handoff import Recipient


@dataclass(frozen=True, slots=True)
class Posted:
    """What a handoff has to know of a message."""

    conversation_id: UUID
    created_at: datetime


async def posted(db: AsyncSession, message_id: UUID) -> Posted | None:
    """Read when a message was posted, and where."""
    query = select(Message.conversation_id, Message.created_at).where(Message.id == message_id)
    row = (await db.execute(query)).one_or_none()
    return None if row is None else Posted(*row)


async def note_decided(db: AsyncSession, message_id: UUID) -> None:
    """Note that it is decided for each phone how it is told of a message; the sweep need not look after it."""
    query = update(Message).where(Message.id == message_id, Message.handed_off_at.is_(None))
    await db.execute(
        query.values(handed_off_at=func.clock_timestamp()), execution_options={"synchronize_session": False}
    )


async def recipients(db: AsyncSession, message_id: UUID) -> Sequence[tuple[DeviceToken, Recipient]]:
    """List the active tokens that this release can push to, of all whose log holds the message, but the sender's."""
    present = exists().where(
        Presence.installation_id == DeviceToken.installation_id,
        Presence.user_id == DeviceToken.user_id,
        Presence.expires_at > func.clock_timestamp(),
    )
    has_read = func.coalesce(SyncPosition.seq >= LogItem.seq, False)
    query = (
        select(DeviceToken, has_read, present)
        .join(LogItem, LogItem.user_id == DeviceToken.user_id)
        .join(Message, Message.id == LogItem.message_id)
        .outerjoin(
            SyncPosition,
            and_(
                SyncPosition.user_id == DeviceToken.user_id,
                SyncPosition.installation_id == DeviceToken.installation_id,
            ),
        )
        .where(LogItem.message_id == message_id, DeviceToken.active, DeviceToken.user_id != Message.sender_id)
        .order_by(DeviceToken.id)
    )
    return [
        (device, Recipient(read, is_present))
        for device, read, is_present in await db.execute(query)
        if route_of(device, "device_tokens") is not None
    ]
