"""Each user's log, how far it was read, and what reading it settles."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Boolean, Row, column, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from db import push_tasks
from db.engine import among, count_settled, count_synced, once_committed
from db.messages import ITEM_BYTES, PageSize
from db.models.people import LogHead, LogItemRow, MessageRow, SyncPosition
from db.models.pushes import PushTask
from db.unreadable import word
from domain.kinds import Kind
from domain.messages import LogItem
from domain.push import TaskState

MAX_UNREAD = 9_999  # that are counted
_AT_ONCE = 500  # items from either end that an acknowledgement settles; as many as in a page
CHANNEL = "log"  # of PostgreSQL's notifications of messages that enter logs, by id (db/messages.py)


@dataclass(frozen=True, slots=True)
class LogExtent:
    """What a user's log holds: items after `horizon`, up to `head`."""

    horizon: int
    head: int


async def extent(db: AsyncSession, user_id: str) -> LogExtent:
    """Read which items of a log there are."""
    row = (await db.execute(select(LogHead.horizon, LogHead.seq).where(LogHead.user_id == user_id))).one_or_none()
    return LogExtent(0, 0) if row is None else LogExtent(row.horizon, row.seq)


@dataclass(slots=True)
class LogPage:
    """Some items of a log, in its order."""

    items: list[LogItem] = field(default_factory=list)
    has_more: bool = False  # after them


async def page_after(db: AsyncSession, user_id: str, seq: int, size: PageSize) -> LogPage:
    """List the items of a log after a sequence number."""
    [page] = await pages_after(db, [(user_id, seq)], size)
    return page


async def pages_after(db: AsyncSession, cursors: Sequence[tuple[str, int]], size: PageSize) -> list[LogPage]:
    """List the items of many logs, each after a sequence number; gives a page for each, in their order.

    The database counts the bytes, so that what does not fit is not read here.
    """
    columns = {
        "user_ids": [user_id for user_id, _ in cursors],
        "seqs": [seq for _, seq in cursors],
        "items": size.items,
        "bytes": size.bytes,
        "item_bytes": ITEM_BYTES,
    }
    pages = [LogPage() for _ in cursors]
    for place, seq, has_next, message in await db.execute(_PAGES, columns):
        pages[place - 1].items.append(_item(seq, message))
        pages[place - 1].has_more = has_next
    return pages


async def unread(db: AsyncSession, whose: Collection[tuple[str, UUID]]) -> dict[tuple[str, UUID], int]:
    """Count the items that each (user, installation) has not acknowledged, up to `MAX_UNREAD`."""
    users, installations = [user_id for user_id, _ in whose], [installation_id for _, installation_id in whose]
    rows = await db.execute(_UNREAD, {"users": users, "installations": installations, "most": MAX_UNREAD})
    return {(row.user_id, row.installation_id): row.unread for row in rows}


async def owners(db: AsyncSession, message_ids: Collection[UUID]) -> set[str]:
    """Say whose logs hold one of these messages."""
    return set(await db.scalars(select(LogItemRow.user_id).where(among(LogItemRow.message_id, message_ids)).distinct()))


async def acknowledge(db: AsyncSession, user_id: str, installation_id: UUID, seq: int) -> None:
    """Record how far an installation has read: pushes of what it has read are synced, and pending ones withdrawn.

    A push whose provider is being called stays as it is until the call ends, since it may be accepted. After a leap
    over thousands of items the last ones are settled at once, the others by the next acknowledgements. None of them is
    sent meanwhile (`settle_read`).
    """
    if seq == 0:
        return
    mine = (SyncPosition.user_id == user_id, SyncPosition.installation_id == installation_id)
    before, settled = await _hold_position(db, user_id, installation_id)
    now = max(seq, before)
    if settled >= now:
        return
    span = {"user_id": user_id, "before": before, "settled": settled, "now": now, "most": _AT_ONCE}
    first, last, behind = (await db.execute(_PASSED, span)).one()
    read = {"installation_id": installation_id, "user_id": user_id, "message_ids": [*first, *last]}
    await _settle(db, (await db.scalars(_READ, read)).all())
    values: dict[str, Any] = {"settled_seq": now if behind is None else behind}
    if now > before:
        values |= {"seq": now, "synced_at": func.clock_timestamp()}
    await db.execute(update(SyncPosition).where(*mine).values(values))


async def settle_read(db: AsyncSession, task_ids: Collection[UUID]) -> bool:
    """Settle those of these locked tasks that were planned while their installation read past them."""
    read = (await db.scalars(_READ_ALREADY, {"task_ids": list(task_ids)})).all()
    await _settle(db, read)
    return bool(read)


async def withdraw_read(db: AsyncSession, task_ids: Collection[UUID]) -> None:
    """Withdraw those of these tasks that are pending after their call, although their installation has read past."""
    if task_ids:
        read = select(PushTask.task_id).where(among(PushTask.task_id, task_ids), PushTask.synced_at.is_not(None))
        await push_tasks.close(db, (await db.scalars(read)).all(), TaskState.WITHDRAWN, "synced")


async def purge(db: AsyncSession, user_id: str, *, until: int) -> None:
    """Drop the items of a log up to a sequence number; their messages stay in their conversations.

    The head comes last: posting needs it, and should not wait for the deletion.
    """
    old = delete(LogItemRow).where(LogItemRow.user_id == user_id, LogItemRow.seq <= until)
    await db.execute(old)
    head = update(LogHead).where(LogHead.user_id == user_id, LogHead.horizon < until, LogHead.seq >= until)
    await db.execute(head.values(horizon=until))


async def _hold_position(db: AsyncSession, user_id: str, installation_id: UUID) -> tuple[int, int]:
    """Read how far an installation has read, and how far that is settled, and lock it."""
    held = select(SyncPosition.seq, SyncPosition.settled_seq).with_for_update()
    held = held.where(SyncPosition.user_id == user_id, SyncPosition.installation_id == installation_id)
    position = (await db.execute(held)).one_or_none()
    if position is None:
        new = insert(SyncPosition).values(user_id=user_id, installation_id=installation_id, seq=0)
        await db.execute(new.on_conflict_do_nothing())
        position = (await db.execute(held)).one()
    return position.seq, position.settled_seq


async def _settle(db: AsyncSession, task_ids: Sequence[UUID]) -> None:
    if not task_ids:
        return
    read = (await db.execute(_SYNCED, {"task_ids": task_ids})).all()
    withdrawn = [row for row in read if (row.state, row.last_reason) == (TaskState.WITHDRAWN, "synced")]
    count_settled(db, Counter((row.provider, row.kind, row.state, row.last_reason) for row in withdrawn))
    once_committed(db, lambda: _count_synced([row for row in read if row.accepted_at]))


def _count_synced(rows: Sequence[Row[Any]]) -> None:
    for row in rows:
        count_synced(row.provider, row.kind, (row.synced_at - row.accepted_at).total_seconds())


def _item(seq: int, message: MessageRow) -> LogItem:
    return LogItem(
        seq=seq,
        message_id=message.id,
        kind=word(Kind, message.kind, "messages.kind"),
        conversation_id=message.conversation_id,
        created_at=message.created_at,
        number=message.number,
        sender_id=message.sender_id,
        body=message.body,
        reminder_minutes=message.reminder_minutes,
    )


_PAGES = select(
    column("place", BigInteger), column("seq", BigInteger), column("has_next", Boolean), MessageRow
).from_statement(
    text("""
    SELECT asked.place, page.seq, page.has_next, m.*
      FROM unnest(CAST(:user_ids AS text[]), CAST(:seqs AS bigint[])) WITH ORDINALITY AS asked (user_id, seq, place)
     CROSS JOIN LATERAL (
        SELECT next.seq, next.message_id, lead(next.seq) OVER following IS NOT NULL AS has_next,
               row_number() OVER following AS number,
               coalesce(sum(:item_bytes + coalesce(octet_length(size.body), 0)) OVER before, 0) AS bytes_before
          FROM (SELECT i.seq, i.message_id
                  FROM log_items i
                 WHERE i.user_id = asked.user_id AND i.seq > asked.seq
                 ORDER BY i.seq
                 LIMIT :items + 1) AS next
          JOIN messages size ON size.id = next.message_id
        WINDOW following AS (ORDER BY next.seq),
               before AS (ORDER BY next.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
     ) AS page
      JOIN messages m ON m.id = page.message_id
     WHERE page.number <= :items AND page.bytes_before < :bytes
     ORDER BY asked.place, page.seq
    """)
)
# The first items that are not settled yet, the last ones that are passed now, and the last of the first if there may be
# more between them.
_PASSED = text("""
    WITH first AS (
        SELECT seq, message_id FROM log_items
         WHERE user_id = :user_id AND seq > CAST(:settled AS bigint) AND seq <= :now
         ORDER BY seq LIMIT :most
    ), last AS (
        SELECT seq, message_id FROM log_items
         WHERE user_id = :user_id AND seq > greatest(CAST(:before AS bigint), (SELECT max(seq) FROM first))
           AND seq <= :now
         ORDER BY seq DESC LIMIT :most
    )
    SELECT ARRAY(SELECT message_id FROM first), ARRAY(SELECT message_id FROM last),
           CASE WHEN (SELECT count(*) FROM first) = :most THEN (SELECT max(seq) FROM first) END
""")
_READ = text("""
    SELECT task_id
      FROM push_tasks
     WHERE message_id = ANY(CAST(:message_ids AS uuid[])) AND installation_id = :installation_id
       AND user_id = :user_id AND synced_at IS NULL
     ORDER BY task_id
       FOR UPDATE
""")
_READ_ALREADY = text("""
    SELECT t.task_id
      FROM push_tasks t
      JOIN log_items i ON i.message_id = t.message_id AND i.user_id = t.user_id
      JOIN sync_positions p ON p.user_id = t.user_id AND p.installation_id = t.installation_id AND p.seq >= i.seq
     WHERE t.task_id = ANY(CAST(:task_ids AS uuid[])) AND t.synced_at IS NULL
""")
_SYNCED = text("""
    UPDATE push_tasks t
       SET synced_at = clock_timestamp(),
           state = CASE WHEN waits THEN 'withdrawn' ELSE state END,
           last_reason = CASE WHEN waits THEN 'synced' ELSE last_reason END,
           next_attempt_at = CASE WHEN waits THEN NULL ELSE next_attempt_at END,
           settled_at = CASE WHEN waits THEN clock_timestamp() ELSE settled_at END
      FROM (SELECT p.task_id,
                   p.state = 'pending' AND NOT EXISTS (
                       SELECT FROM push_attempts a WHERE a.task_id = p.task_id AND a.outcome IS NULL
                   ) AS waits
              FROM push_tasks p
             WHERE p.task_id = ANY(CAST(:task_ids AS uuid[]))) AS read
     WHERE t.task_id = read.task_id
    RETURNING t.provider, t.kind, t.state, t.last_reason, t.accepted_at, t.synced_at
""")

_UNREAD = text("""
    SELECT asked.user_id, asked.installation_id,
           CAST(least(greatest(head.seq - greatest(coalesce(has.seq, 0), head.horizon), 0), :most) AS int) AS unread
      FROM unnest(CAST(:users AS text[]), CAST(:installations AS uuid[])) AS asked (user_id, installation_id)
      JOIN log_heads head USING (user_id)
      LEFT JOIN sync_positions has USING (user_id, installation_id)
""")
