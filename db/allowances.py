"""How many messages a member may still post in a conversation: a bucket kept as the instant at which it is full."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from domain.quotas import MessageQuota, too_many_messages


async def spend(db: AsyncSession, conversation_id: UUID, user_id: str, quota: MessageQuota | None) -> None:
    """Count a message, if it is posted; raises LimitReached. The caller has locked the conversation."""
    if quota is None:
        return
    values = {"conversation_id": conversation_id, "user_id": user_id, "every": quota.every, "span": quota.span}
    wait: timedelta = (await db.execute(_SPEND, values)).scalar_one()
    if wait > timedelta(0):  # then the transaction is rolled back, and nothing is counted
        raise too_many_messages(wait)


_SPEND = text("""
    INSERT INTO message_allowances AS a (conversation_id, user_id, full_at)
    VALUES (:conversation_id, :user_id, statement_timestamp() + CAST(:every AS interval))
        ON CONFLICT (conversation_id, user_id) DO UPDATE
       SET full_at = greatest(a.full_at, statement_timestamp()) + CAST(:every AS interval)
    RETURNING full_at - statement_timestamp() - CAST(:span AS interval)
""")
