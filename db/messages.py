"""Messages, and each user's log of them: sequence numbers without gaps, in the order of the commits."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import LogHead, LogItem, Message
from domain.push import Kind


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
    rows = [
        {"id": m.message_id, "kind": Kind.REMINDER, "conversation_id": m.session_id, "reminder_minutes": m.minutes}
        for m in sorted(by_id.values(), key=lambda m: m.message_id)
    ]
    fresh = insert(Message).values(rows).on_conflict_do_nothing().returning(Message.id)
    new = [by_id[message_id] for message_id in await db.scalars(fresh)]
    if not new:
        return
    counts = Counter(message.user_id for message in new)
    heads = insert(LogHead).values([{"user_id": user, "seq": counts[user]} for user in sorted(counts)])
    raised = heads.on_conflict_do_update(
        index_elements=["user_id"], set_={"seq": LogHead.seq + heads.excluded.seq}
    ).returning(LogHead.user_id, LogHead.seq)
    last = {user_id: seq for user_id, seq in await db.execute(raised)}  # noqa: C416 -- rows are not plain pairs
    items = []
    for message in new:
        counts[message.user_id] -= 1
        seq = last[message.user_id] - counts[message.user_id]
        items.append({"user_id": message.user_id, "seq": seq, "message_id": message.message_id})
    await db.execute(insert(LogItem).values(items))
