"""Conversations and their members."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import TextClause, delete, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from db.models.people import ConversationRow, Member
from domain.messages import MEMBERS_LISTED, Conversation
from domain.problems import MessageQuota, too_many_messages


async def store(db: AsyncSession, conversation_id: UUID, member_ids: Collection[str]) -> bool:
    """Make a conversation, or change the members of the existing one; True when it is new."""
    fresh = insert(ConversationRow).values(id=conversation_id).on_conflict_do_nothing().returning(ConversationRow.id)
    is_new = await db.scalar(fresh) is not None
    await lock(db, conversation_id)
    removal = delete(Member).where(Member.conversation_id == conversation_id, Member.user_id.not_in(member_ids))
    await db.execute(removal)
    await db.execute(_JOIN, {"conversation_id": conversation_id, "user_ids": sorted(member_ids)})
    return is_new


async def lock(db: AsyncSession, conversation_id: UUID) -> None:
    """Hold a conversation until the transaction ends: one writer at a time, members unchanged."""
    query = select(ConversationRow.id).where(ConversationRow.id == conversation_id)
    await db.execute(query.with_for_update(key_share=True))


async def read(db: AsyncSession, conversation_id: UUID) -> Conversation | None:
    """Read a conversation with all its members."""
    row = await db.get(ConversationRow, conversation_id, populate_existing=True)
    if row is None:
        return None
    members = select(Member.user_id).where(Member.conversation_id == conversation_id).order_by(Member.user_id)
    member_ids = (await db.scalars(members)).all()
    return Conversation(row.id, tuple(member_ids), len(member_ids), row.created_at)


async def of_member(
    db: AsyncSession, user_id: str, after: tuple[datetime, UUID] | None, limit: int
) -> Sequence[Conversation]:
    """List a user's conversations, the newest first, each with the first few of its members."""
    query = (
        select(ConversationRow)
        .join(Member, Member.conversation_id == ConversationRow.id)
        .where(Member.user_id == user_id)
        .order_by(ConversationRow.created_at.desc(), ConversationRow.id.desc())
        .limit(limit)
    )
    if after:
        query = query.where(tuple_(ConversationRow.created_at, ConversationRow.id) < after)
    return await _with_members(db, (await db.scalars(query)).all())


async def has_member(db: AsyncSession, conversation_id: UUID, user_id: str) -> bool:
    """Tell whether somebody belongs to a conversation."""
    return await db.get(Member, (conversation_id, user_id)) is not None


async def members_held(db: AsyncSession, memberships: Collection[tuple[UUID, str]]) -> set[tuple[UUID, str]]:
    """Say which of these are members; they stay so until the transaction ends."""
    return await _members(db, _MEMBERS_HELD, memberships)


async def members_among(db: AsyncSession, memberships: Collection[tuple[UUID, str]]) -> set[tuple[UUID, str]]:
    """Say which of these are members now; nothing is held."""
    return await _members(db, _MEMBERS, memberships) if memberships else set()


async def _members(
    db: AsyncSession, query: TextClause, memberships: Collection[tuple[UUID, str]]
) -> set[tuple[UUID, str]]:
    columns = {"conversation_ids": [each for each, _ in memberships], "user_ids": [user for _, user in memberships]}
    return {(row.conversation_id, row.user_id) for row in await db.execute(query, columns)}


async def _with_members(db: AsyncSession, rows: Sequence[ConversationRow]) -> Sequence[Conversation]:
    values = {"conversation_ids": [row.id for row in rows], "listed": MEMBERS_LISTED}
    first = {each.conversation_id: each for each in await db.execute(_FIRST_MEMBERS, values)}
    return [
        Conversation(row.id, tuple(first[row.id].user_ids), first[row.id].member_count, row.created_at) for row in rows
    ]


_JOIN = text("""
    INSERT INTO members (conversation_id, user_id)
    SELECT :conversation_id, user_id FROM unnest(CAST(:user_ids AS text[])) AS new (user_id)
        ON CONFLICT DO NOTHING
""")


_FIRST_MEMBERS = text("""
    SELECT asked.conversation_id, first.user_ids, counted.member_count
      FROM unnest(CAST(:conversation_ids AS uuid[])) AS asked (conversation_id)
     CROSS JOIN LATERAL (
        SELECT coalesce(array_agg(user_id ORDER BY user_id), '{}') AS user_ids
          FROM (SELECT user_id FROM members m
                 WHERE m.conversation_id = asked.conversation_id ORDER BY user_id LIMIT :listed) AS few
     ) AS first
     CROSS JOIN LATERAL (
        SELECT count(*) AS member_count FROM members m WHERE m.conversation_id = asked.conversation_id
     ) AS counted
""")


_MEMBERS = text("""
    SELECT m.conversation_id, m.user_id
      FROM members m
      JOIN unnest(CAST(:conversation_ids AS uuid[]), CAST(:user_ids AS text[])) AS asked (conversation_id, user_id)
     USING (conversation_id, user_id)
     ORDER BY m.conversation_id, m.user_id
""")


_MEMBERS_HELD = text(f"{_MEMBERS.text} FOR SHARE OF m")


_CLOCKS_DIFFER = timedelta(days=1)  # the clock of a server that took over may be behind


async def spend(db: AsyncSession, conversation_id: UUID, user_id: str, quota: MessageQuota | None) -> None:
    """Count a message, if it is posted; raises LimitReached. The caller has locked the conversation."""
    if quota is None:
        return
    values = {"conversation_id": conversation_id, "user_id": user_id, "every": quota.every, "span": quota.span}
    wait, _before = (await db.execute(_SPEND, values | {"most": quota.span + _CLOCKS_DIFFER})).one()
    if wait > timedelta(0):  # then the transaction is rolled back, and nothing is counted
        raise too_many_messages(wait)


# An instant further ahead than an empty burst can be is odd, and counts as absent. The old value is read so that
# `db/unreadable.py` can log one that Python lacks.
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
