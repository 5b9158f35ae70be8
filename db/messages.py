"""Messages, and their entry into each user's log: sequence numbers without gaps, in the order of commits."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import Boolean, column, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from db import conversations
from db.engine import among, columns_of
from db.models.people import MessageRow
from domain.kinds import Kind
from domain.messages import Message

OUTBOX_KIND = "message"
ITEM_BYTES = 1000  # of an item beside its text, at most: a sender's id of 200 characters, names, numbers


@dataclass(frozen=True, slots=True)
class ReminderMessage:
    """A reminder that came due, as an item of its user's log."""

    message_id: UUID
    session_id: UUID
    user_id: str
    minutes: int | None


@dataclass(frozen=True, slots=True)
class Addressed:
    """A message, to one user."""

    body: str | None = field(repr=False)  # None: its sender was erased
    is_member: bool  # of its conversation now


@dataclass(frozen=True, slots=True)
class PageSize:
    """The limits of a page: items, and bytes of their texts; a single item may be larger."""

    items: int
    bytes: int


@dataclass(frozen=True, slots=True)
class MessagePage:
    """Some messages of a conversation."""

    items: list[Message]
    has_more: bool  # after them


async def post(db: AsyncSession, conversation_id: UUID, message_id: UUID, sender_id: str, body: str) -> Message | None:
    """Put a message into the logs of all members; None when its id is taken. The caller has locked the conversation.

    The log heads stay locked until the commit, so nobody sees an item of a log before an earlier one.
    """
    values = {"id": message_id, "conversation_id": conversation_id, "sender_id": sender_id, "body": body}
    row = (await db.execute(_POST, values)).one_or_none()
    if row is None:
        return None
    return Message(message_id, conversation_id, row.number, sender_id, body, row.created_at)


async def read(db: AsyncSession, message_id: UUID) -> Message | None:
    """Read a message; None for a reminder, too."""
    row = await db.get(MessageRow, message_id)
    return None if row is None or row.kind != Kind.MESSAGE else _message(row)


async def is_taken(db: AsyncSession, message_id: UUID) -> bool:
    """Tell whether a message or reminder has this id."""
    return await db.get(MessageRow, message_id) is not None


async def of_conversation(db: AsyncSession, conversation_id: UUID, before: int | None, size: PageSize) -> MessagePage:
    """List a conversation's messages below a number, the latest first; what does not fit is not read here."""
    values = {"conversation_id": conversation_id, "before": before, "item_bytes": ITEM_BYTES}
    rows = (await db.execute(_OF_CONVERSATION, values | {"items": size.items, "bytes": size.bytes})).all()
    return MessagePage([_message(row) for _, row in rows], has_more=bool(rows) and rows[-1].has_next)


async def addressed(db: AsyncSession, wanted: Mapping[UUID, tuple[UUID, str]]) -> dict[UUID, Addressed]:
    """Read (message, user) pairs by any key; the memberships are locked until the transaction ends."""
    if not wanted:
        return {}
    bodies = select(MessageRow.id, MessageRow.conversation_id, MessageRow.body)
    rows = await db.execute(bodies.where(among(MessageRow.id, {message_id for message_id, _ in wanted.values()})))
    by_id = {row.id: row for row in rows}
    pairs = {
        (by_id[message_id].conversation_id, user_id) for message_id, user_id in wanted.values() if message_id in by_id
    }
    members = await conversations.members_held(db, pairs)
    return {
        key: Addressed(by_id[message_id].body, (by_id[message_id].conversation_id, user_id) in members)
        for key, (message_id, user_id) in wanted.items()
        if message_id in by_id
    }


async def erased_among(db: AsyncSession, message_ids: Collection[UUID]) -> set[UUID]:
    """Say which of these messages have lost their text with their sender."""
    query = select(MessageRow.id).where(among(MessageRow.id, message_ids), MessageRow.body.is_(None))
    return set(await db.scalars(query)) if message_ids else set()


async def enter_reminders(db: AsyncSession, due: Collection[ReminderMessage]) -> None:
    """Put reminders into their users' logs, each once, however often this is repeated.

    Rows are touched in a fixed order, so that concurrent callers queue and never deadlock.
    """
    by_id = {message.message_id: message for message in due}
    if not by_id:
        return
    ordered = sorted(by_id.values(), key=lambda m: m.message_id)
    await db.execute(_ENTER, columns_of(ordered, "message_id", "session_id", "user_id", "minutes"))


def _message(row: MessageRow) -> Message:
    assert row.number is not None
    return Message(row.id, row.conversation_id, row.number, row.sender_id, row.body, row.created_at)


_OF_CONVERSATION = select(column("has_next", Boolean), MessageRow).from_statement(
    text("""
    SELECT page.has_next, m.*
      FROM (SELECT next.id, lead(next.id) OVER following IS NOT NULL AS has_next,
                   row_number() OVER following AS place,
                   coalesce(sum(:item_bytes + octet_length(next.body)) OVER before, 0) AS bytes_before
              FROM (SELECT id, number, body
                      FROM messages
                     WHERE conversation_id = :conversation_id AND number > 0
                       AND number < coalesce(CAST(:before AS bigint), 9223372036854775807)
                     ORDER BY number DESC
                     LIMIT :items + 1) AS next
            WINDOW following AS (ORDER BY next.number DESC),
                   before AS (ORDER BY next.number DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
           ) AS page
      JOIN messages m ON m.id = page.id
     WHERE page.place <= :items AND page.bytes_before < :bytes
     ORDER BY m.number DESC
    """)
)

_POST = text("""
    WITH posted AS (
        INSERT INTO messages (id, kind, conversation_id, number, sender_id, body)
        SELECT :id, 'message', id, last_number + 1, :sender_id, :body FROM conversations WHERE id = :conversation_id
        ON CONFLICT (id) DO NOTHING RETURNING conversation_id, number, created_at
    ), counted AS (
        UPDATE conversations SET last_number = number FROM posted WHERE id = conversation_id
    ), heads AS (
        INSERT INTO log_heads AS head (user_id, seq)
        SELECT user_id, 1 FROM members JOIN posted USING (conversation_id) ORDER BY user_id
        ON CONFLICT (user_id) DO UPDATE SET seq = head.seq + 1 WHERE head.seq < 9e18  -- that log is full
        RETURNING user_id, seq
    ), entered AS (
        INSERT INTO log_items (user_id, seq, message_id) SELECT user_id, seq, :id FROM heads
    )
    SELECT number, created_at, pg_notify('log', CAST(:id AS text)) FROM posted
""")

_ENTER = text("""
    WITH due AS (
        SELECT * FROM unnest(CAST(:message_id AS uuid[]), CAST(:session_id AS uuid[]), CAST(:user_id AS text[]),
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
        ON CONFLICT (user_id) DO UPDATE SET seq = head.seq + excluded.seq WHERE head.seq < 9e18
        RETURNING user_id, seq
    ), entered AS (
        INSERT INTO log_items (user_id, seq, message_id)
        SELECT user_id, heads.seq - new.behind, new.id FROM new JOIN heads USING (user_id)
        RETURNING message_id
    )
    SELECT pg_notify('log', CAST(message_id AS text)) FROM entered
""")
