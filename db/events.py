"""The feed of events: numbered in the order in which they became visible, read by cursor, purged from its start.

Triggers write events in the transaction of the change, without a number. Whoever reads the feed first numbers what is
committed, one at a time (`number`). So nothing is ever inserted behind a number that was read, and a transaction that
stays open delays its own events alone.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any
from uuid import UUID

from sqlalchemy import Row, bindparam, func, insert, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import Text

from db.engine import Sessions
from db.models.events import EventFeed, EventRow, UnnumberedEvent
from domain.events import EventDetails, EventType, UserEvent

NUMBERED_AT_ONCE = 5000
_LOOKED_AT = 50_000  # events in one page at most, where few are of the wanted types
_DETAILS = tuple(each.name for each in fields(EventDetails))
_COLUMNS = ", ".join(("type", "occurred_at", "user_id", *_DETAILS))


@dataclass(frozen=True, slots=True)
class FeedExtent:
    """What the feed holds: events after `horizon`, up to `head`."""

    horizon: int
    head: int


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events of the feed, in its order."""

    items: Sequence[UserEvent]
    until: int  # all wanted events up to here are in it
    has_more: bool  # after them


async def number(sessions: Sessions) -> int:
    """Give committed events their places, some thousands at most; returns how many.

    Where another process is doing that, this one leaves it to it. It costs nothing where there are none.
    """
    async with sessions.begin() as db:
        return await number_within(db)


async def number_within(db: AsyncSession) -> int:
    """Do the same in a transaction of the caller's, which has to end soon."""
    numbered: int = (await db.execute(_NUMBER, {"most": NUMBERED_AT_ONCE})).scalar_one()
    return numbered


async def extent(db: AsyncSession) -> FeedExtent:
    """Read which events there are."""
    row = (await db.execute(select(EventFeed.horizon, EventFeed.head))).one()
    return FeedExtent(row.horizon, row.head)


async def page_after(
    db: AsyncSession, after: int, limit: int, types: Collection[str] | None, extent: FeedExtent
) -> EventPage:
    """List the events after a number that `extent` covers; `types` None: of all types."""
    start = max(after, extent.horizon)
    until = min(start + _LOOKED_AT, extent.head)
    query = select(*_SHOWN).where(EventRow.number > start, EventRow.number <= until)
    if types is not None:
        query = query.where(EventRow.type == func.any(bindparam("types", sorted(types), type_=ARRAY(Text))))
    rows = (await db.execute(query.order_by(EventRow.number).limit(limit + 1))).all()
    if len(rows) > limit:
        return EventPage([_event(row) for row in rows[:limit]], rows[limit - 1].number, has_more=True)
    return EventPage([_event(row) for row in rows], until, has_more=until < extent.head)


@dataclass(frozen=True, slots=True)
class LatestEvents:
    """Some events, the newest first."""

    items: Sequence[UserEvent]
    before: int | None  # earlier ones are below this number; None: there are none


async def latest(
    db: AsyncSession, user_id: str | None, kind: EventType | None, before: int | None, limit: int
) -> LatestEvents:
    """List the newest events below a number, of one user or of all.

    Of all users, those of a rare type may be on a later page.
    """
    found = await extent(db)
    top = found.head if before is None else min(before - 1, found.head)
    floor = found.horizon if user_id is not None else max(found.horizon, top - _LOOKED_AT)
    query = select(*_SHOWN).where(EventRow.number > floor, EventRow.number <= top)
    if user_id is not None:
        query = query.where(EventRow.user_id == user_id)
    if kind is not None:
        query = query.where(EventRow.type == kind)
    rows = (await db.execute(query.order_by(EventRow.number.desc()).limit(limit + 1))).all()
    if len(rows) > limit:
        return LatestEvents([_event(row) for row in rows[:limit]], rows[limit - 1].number)
    return LatestEvents([_event(row) for row in rows], floor + 1 if floor > found.horizon else None)


async def by_number(db: AsyncSession, numbers: Collection[int]) -> dict[int, UserEvent]:
    """Read events; those that were deleted are left out."""
    if not numbers:
        return {}
    query = select(*_SHOWN).where(EventRow.number == func.any(bindparam("numbers", list(numbers), type_=_NUMBERS)))
    return {row.number: _event(row) for row in await db.execute(query)}


async def note_webhook_disabled(db: AsyncSession, webhook_id: UUID, reason: str) -> None:
    """Write the event of a webhook that is disabled in this transaction."""
    values = {"type": EventType.WEBHOOK_DISABLED, "webhook_id": webhook_id, "reason": reason}
    await db.execute(insert(UnnumberedEvent).values(occurred_at=func.clock_timestamp(), **values))


def _event(row: Row[Any]) -> UserEvent:
    details = EventDetails(**{name: getattr(row, name) for name in _DETAILS})
    return UserEvent(row.number, row.type, row.occurred_at, row.user_id, details)


_NUMBERS = ARRAY(EventRow.number.type)
_SHOWN = (
    EventRow.number,
    EventRow.type,
    EventRow.occurred_at,
    EventRow.user_id,
    *(getattr(EventRow, name) for name in _DETAILS),
)

# The lock of the feed's row orders this. Who waits for it reads the row as it is afterwards, and finds those events
# deleted that were numbered meanwhile.
_NUMBER = text(f"""
    WITH feed AS (
        SELECT head FROM event_feed WHERE EXISTS (SELECT FROM unnumbered_events) FOR UPDATE SKIP LOCKED
    ), taken AS (
        DELETE FROM unnumbered_events AS u
         USING feed
         WHERE u.id = ANY(ARRAY(SELECT id FROM unnumbered_events ORDER BY id LIMIT :most))
        RETURNING u.*
    ), numbered AS (
        INSERT INTO events (number, {_COLUMNS})
        SELECT feed.head + row_number() OVER (ORDER BY taken.id), {_COLUMNS} FROM taken CROSS JOIN feed
        RETURNING number
    ), moved AS (
        UPDATE event_feed SET head = latest.number
          FROM (SELECT max(number) AS number FROM numbered) AS latest
         WHERE latest.number IS NOT NULL
    )
    SELECT count(*) FROM numbered
""")  # noqa: S608 -- of the names of columns alone
