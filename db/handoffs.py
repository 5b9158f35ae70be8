"""Handoffs: which phones a message concerns, in one statement for any number of members."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import and_, exists, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.models.people import DeviceToken, LogItemRow, MessageRow, Presence, SyncPosition
from db.models.pushes import PushTask
from db.unreadable import route_of
from domain.messages import Recipient


@dataclass(frozen=True, slots=True)
class Posted:
    """What a handoff needs of a message."""

    conversation_id: UUID
    created_at: datetime
    number: int | None  # in its conversation; None: it is a reminder
    is_alone: bool = False  # until this transaction ends, no other message of its conversation is planned


@dataclass(frozen=True, slots=True)
class HandoffPhone:
    """An installation that may get a push, and its device token."""

    id: UUID  # of the device token
    user_id: str
    installation_id: UUID
    has_push: bool  # of this message, in any state


async def posted(db: AsyncSession, message_id: UUID) -> Posted | None:
    """Read when and where a message was posted."""
    query = select(MessageRow.conversation_id, MessageRow.created_at, MessageRow.number).where(
        MessageRow.id == message_id
    )
    row = (await db.execute(query)).one_or_none()
    return None if row is None else Posted(*row)


async def begin(db: AsyncSession, message_id: UUID) -> Posted | None:
    """Read a message, and try to be the only one to plan in its conversation until the transaction ends."""
    row = (await db.execute(_BEGIN, {"message_id": message_id})).one_or_none()
    return None if row is None else Posted(*row)


async def note_decided(db: AsyncSession, message_id: UUID) -> None:
    """Record that the delivery of a message is decided for each phone; the sweep can leave it out."""
    query = update(MessageRow).where(MessageRow.id == message_id, MessageRow.handed_off_at.is_(None))
    await db.execute(query.values(handed_off_at=func.clock_timestamp()))


async def recipients(db: AsyncSession, message_id: UUID) -> Sequence[tuple[HandoffPhone, Recipient]]:
    """List the phones of all whose log holds the message, without the sender's and those of newer releases."""
    present = exists().where(
        Presence.installation_id == DeviceToken.installation_id,
        Presence.user_id == DeviceToken.user_id,
        Presence.expires_at > func.clock_timestamp(),
    )
    has_push = exists().where(
        PushTask.message_id == message_id, PushTask.installation_id == DeviceToken.installation_id
    )
    has_read = func.coalesce(SyncPosition.seq >= LogItemRow.seq, False)
    query = (
        select(
            DeviceToken.id,
            DeviceToken.user_id,
            DeviceToken.installation_id,
            DeviceToken.provider,
            DeviceToken.environment,
            DeviceToken.app_id,
            DeviceToken.time_zone,
            has_push.label("has_push"),
            has_read.label("has_read"),
            present.label("is_present"),
        )
        .join(LogItemRow, LogItemRow.user_id == DeviceToken.user_id)
        .join(MessageRow, MessageRow.id == LogItemRow.message_id)
        .outerjoin(
            SyncPosition,
            and_(
                SyncPosition.user_id == DeviceToken.user_id, SyncPosition.installation_id == DeviceToken.installation_id
            ),
        )
        .where(LogItemRow.message_id == message_id, DeviceToken.active, DeviceToken.user_id != MessageRow.sender_id)
        .order_by(DeviceToken.id)
    )
    return [
        (
            HandoffPhone(row.id, row.user_id, row.installation_id, row.has_push),
            Recipient(row.has_read, row.is_present, row.time_zone),
        )
        for row in await db.execute(query)
        if route_of(row, "device_tokens") is not None
    ]


async def users_awaiting_a_later(db: AsyncSession, posted: Posted) -> set[str]:
    """Give the users whom a later message of the conversation concerns that is not handed off yet."""
    values = {"conversation_id": posted.conversation_id, "number": posted.number}
    return set(await db.scalars(_AWAITING, values))


_BEGIN = text("""
    SELECT conversation_id, created_at, number,
           pg_try_advisory_xact_lock(hashtextextended('handoff/' || conversation_id, 0)) AS is_alone
      FROM messages WHERE id = :message_id
""")

# The newest such message, and the newest by another sender, for the phones that the first leaves out.
_AWAITING = text("""
    WITH later AS (
        SELECT id, sender_id, number
          FROM messages
         WHERE conversation_id = :conversation_id AND number > 0 AND number > :number AND handed_off_at IS NULL
    ), newest AS (
        SELECT * FROM later ORDER BY number DESC LIMIT 1
    ), by_another AS (
        SELECT later.* FROM later JOIN newest ON later.sender_id <> newest.sender_id ORDER BY later.number DESC LIMIT 1
    )
    SELECT DISTINCT i.user_id
      FROM (SELECT * FROM newest UNION ALL SELECT * FROM by_another) AS m
      JOIN log_items AS i ON i.message_id = m.id AND i.user_id <> m.sender_id
""")
