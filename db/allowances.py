"""How many messages a member may still post in a conversation: a bucket kept as the instant at which it is full."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from domain.quotas import MessageQuota, too_many_messages

_CLOCKS_DIFFER = timedelta(days=1)  # that of a server which took over may be behind


async def spend(db: AsyncSession, conversation_id: UUID, user_id: str, quota: MessageQuota | None) -> None:
    """Count a message, if it is posted; raises LimitReached. The caller has locked the conversation."""
    if quota is None:
        return
    values = {"conversation_id": conversation_id, "user_id": user_id, "every": quota.every, "span": quota.span}
    wait, _before = (await db.execute(_SPEND, values | {"most": quota.span + _CLOCKS_DIFFER})).one()
    if wait > timedelta(0):  # then the transaction is rolled back, and nothing is counted
        raise too_many_messages(wait)


# What lies further ahead than an empty burst ever does is odd, and counts as absent. What was there before is read so
# that it is told where Python lacks it (`db/odd_values.py`).
_SPEND = text("""
    INSERT INTO message_allowances AS a (conversation_id, user_id, full_at)
    VALUES (:conversation_id, :user_id, statement_timestamp() + CAST(:every AS interval))
        ON CONFLICT (conversation_id, user_id) DO UPDATE
       SET full_at = CASE WHEN a.full_at < statement_timestamp() + CAST(:most AS interval)
                          THEN greatest(a.full_at, statement_timestamp()) ELSE statement_timestamp()
                     END + CAST(:every AS interval)
    RETURNING full_at - statement_timestamp() - CAST(:span AS interval),
              (SELECT b.full_at FROM message_allowances AS b
                WHERE b.conversation_id = :conversation_id AND b.user_id = :user_id)
""")
