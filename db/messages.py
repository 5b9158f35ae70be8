"""Messages, and each user's log of them: sequence numbers without gaps, in the order of the commits."""

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession


@dataclass(frozen=True, slots=True)
class ReminderMessage:
    """A reminder that came due, as an item of its user's log."""

    message_id: UUID
    session_id: UUID
    user_id: str
    minutes: int | None


async def enter_reminders(db: AsyncSession, due: Collection[ReminderMessage]) -> None:
    """Put reminders into their users' logs, each once however often it is asked.

    Rows are touched in a fixed order, so that concurrent callers queue and never deadlock.
    """
    by_id = {message.message_id: message for message in due}
    if not by_id:
        return
    ordered = sorted(by_id.values(), key=lambda m: m.message_id)
    columns: dict[str, list[object]] = {
        "message_ids": [m.message_id for m in ordered],
        "conversation_ids": [m.session_id for m in ordered],
        "user_ids": [m.user_id for m in ordered],
        "minutes": [m.minutes for m in ordered],
    }
    await db.execute(_ENTER, columns)


_ENTER = text("""
    WITH due AS (
        SELECT * FROM unnest(CAST(:message_ids AS uuid[]), CAST(:conversation_ids AS uuid[]), CAST(:user_ids AS text[]),
                             CAST(:minutes AS int[])) AS due (id, conversation_id, user_id, minutes)
    ), fresh AS (
        INSERT INTO messages (id, kind, conversation_id, reminder_minutes)
        SELECT id, 'reminder', conversation_id, minutes FROM due ORDER BY id
        ON CONFLICT DO NOTHING RETURNING id
    ), new AS (
        SELECT due.*, row_number() OVER (PARTITION BY user_id ORDER BY id DESC) - 1 AS behind
          FROM due JOIN fresh USING (id)
    ), heads AS (
        INSERT INTO log_heads AS head (user_id, seq)
        SELECT user_id, count(*) FROM new GROUP BY user_id ORDER BY user_id
        ON CONFLICT (user_id) DO UPDATE SET seq = head.seq + excluded.seq
        RETURNING user_id, seq
    )
    INSERT INTO log_items (user_id, seq, message_id)
    SELECT user_id, heads.seq - new.behind, new.id FROM new JOIN heads USING (user_id)
""")
