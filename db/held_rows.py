"""Which push tasks could be checked, or could take an outcome, without waiting for a row that somebody else holds."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession


async def unheld(db: AsyncSession, task_ids: Collection[UUID]) -> set[UUID]:
    """Give those of these tasks whose row nobody holds. Waits for no lock."""
    return set(await db.scalars(_UNHELD, {"task_ids": list(task_ids)}))


async def unheld_around(db: AsyncSession, task_ids: Collection[UUID]) -> set[UUID]:
    """Give those of which nobody holds the fast, membership, device token or log's head either. Waits for no lock.

    One row of one person may be what hundreds of their tasks wait for.
    """
    return set(await db.scalars(_UNHELD_AROUND, {"task_ids": list(task_ids)}))


_UNHELD = text("""
    SELECT task_id FROM push_tasks WHERE task_id = ANY(CAST(:task_ids AS uuid[])) FOR UPDATE SKIP LOCKED
""")

_UNHELD_AROUND = text("""
    WITH tasks AS MATERIALIZED (
        SELECT task_id, conversation_id, installation_id, user_id FROM push_tasks
         WHERE task_id = ANY(CAST(:task_ids AS uuid[])) FOR UPDATE SKIP LOCKED
    ), fasts AS MATERIALIZED (
        SELECT id FROM fasting_sessions
         WHERE id IN (SELECT conversation_id FROM tasks) FOR SHARE SKIP LOCKED
    ), memberships AS MATERIALIZED (
        SELECT conversation_id, user_id FROM members
         WHERE (conversation_id, user_id) IN (SELECT conversation_id, user_id FROM tasks) FOR SHARE SKIP LOCKED
    ), tokens AS MATERIALIZED (
        SELECT installation_id FROM device_tokens
         WHERE active AND installation_id IN (SELECT installation_id FROM tasks) FOR SHARE SKIP LOCKED
    ), heads AS MATERIALIZED (
        SELECT user_id FROM log_heads
         WHERE user_id IN (SELECT user_id FROM tasks) FOR NO KEY UPDATE SKIP LOCKED
    )
    SELECT task_id FROM tasks t
     WHERE (conversation_id IN (SELECT id FROM fasts)
            OR NOT EXISTS (SELECT FROM fasting_sessions s WHERE s.id = t.conversation_id))
       AND ((conversation_id, user_id) IN (SELECT conversation_id, user_id FROM memberships)
            OR NOT EXISTS (SELECT FROM members m
                            WHERE m.conversation_id = t.conversation_id AND m.user_id = t.user_id))
       AND (installation_id IN (SELECT installation_id FROM tokens)
            OR NOT EXISTS (SELECT FROM device_tokens d WHERE d.active AND d.installation_id = t.installation_id))
       AND (user_id IN (SELECT user_id FROM heads)
            OR NOT EXISTS (SELECT FROM log_heads h WHERE h.user_id = t.user_id))
""")
