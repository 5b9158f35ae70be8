"""Whose an id is: of an installation, a fast, a message, a push, a provider's call, a conversation or a user."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from db.engine import within
from db.unreadable import word

MAX_FOUND = 50
MAX_SECONDS = 2.0  # for phones that are signed out: no index has their installations


class IdKind(StrEnum):
    """What an id names."""

    USER = "user"
    INSTALLATION = "installation"
    FAST = "fast"
    MESSAGE = "message"
    PUSH = "push"
    CONVERSATION = "conversation"


@dataclass(frozen=True, slots=True)
class FoundPerson:
    """A person whom an id belongs to, and the part of their timeline that it names."""

    kind: IdKind
    user_id: str
    session_id: UUID | None
    message_id: UUID | None


async def owners(db: AsyncSession, wanted: UUID, as_written: str) -> list[FoundPerson]:
    """List the people whom an id belongs to, at most MAX_FOUND. `as_written`: the same as a user id.

    All but the last question are answered by indexes. That one is cut off after MAX_SECONDS, and then finds nobody.
    """
    values = {"id": wanted, "user_id": as_written, "most": MAX_FOUND}
    found: Sequence[Row[tuple[str, str, UUID | None, UUID | None]]] = (await db.execute(_INDEXED, values)).all()
    if not found:
        found = await within(db, MAX_SECONDS, _SIGNED_OUT, values)
    return [
        FoundPerson(kind, row.user_id, row.session_id, row.message_id)
        for row in found
        if (kind := word(IdKind, row.kind, "kind of an id")) is not None
    ]


_INDEXED = text("""
    SELECT 'user' AS kind, CAST(:user_id AS text) AS user_id, CAST(NULL AS uuid) AS session_id,
           CAST(NULL AS uuid) AS message_id
     WHERE EXISTS (SELECT FROM device_tokens WHERE user_id = :user_id)
        OR EXISTS (SELECT FROM fasting_sessions WHERE user_id = :user_id)
        OR EXISTS (SELECT FROM log_heads WHERE user_id = :user_id)
        OR EXISTS (SELECT FROM preferences WHERE user_id = :user_id)
     UNION ALL
    SELECT 'installation', user_id, NULL, NULL FROM device_tokens WHERE installation_id = :id AND active
     UNION ALL
    SELECT 'fast', user_id, id, NULL FROM fasting_sessions WHERE id = :id
     UNION ALL
    SELECT 'push', user_id, NULL, message_id FROM push_tasks WHERE task_id = :id
     UNION ALL
    SELECT 'push', t.user_id, NULL, t.message_id
      FROM push_attempts a JOIN push_tasks t ON t.task_id = a.task_id
     WHERE a.attempt_id = :id
     UNION ALL
    (SELECT DISTINCT 'message', each.user_id, CAST(NULL AS uuid), CAST(:id AS uuid)
       FROM (SELECT user_id FROM log_items WHERE message_id = :id
              UNION
             SELECT user_id FROM push_tasks WHERE message_id = :id
              UNION
             SELECT user_id FROM withheld_pushes WHERE message_id = :id
              UNION
             SELECT sender_id FROM messages WHERE id = :id AND sender_id IS NOT NULL) AS each
      ORDER BY each.user_id
      LIMIT :most)
     UNION ALL
    (SELECT 'conversation', user_id, NULL, NULL FROM members WHERE conversation_id = :id ORDER BY user_id LIMIT :most)
     LIMIT :most
""")

_SIGNED_OUT = text("""
    SELECT 'installation' AS kind, user_id, CAST(NULL AS uuid) AS session_id, CAST(NULL AS uuid) AS message_id
      FROM device_tokens
     WHERE installation_id = :id
     GROUP BY user_id
     ORDER BY max(last_seen_at) DESC
     LIMIT :most
""")
