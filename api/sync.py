"""Sync: the caller's log after a cursor. The backend is the source of truth; a push only says: come and look."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import LARGEST_PAGE, AnyCaller, Database, RowWrites
from api.http.problems import responses
from db import device_tokens as installations
from db import log
from db.messages import PageSize
from domain.devices import InstallationStanding, check_may_sync
from domain.kinds import RULES, Kind
from domain.messages import LogItem
from domain.problems import CursorTooOld, InvalidField

router = APIRouter(prefix="/v1/sync", tags=["messages"])

MAX_SEQ = 2**63 - 1


class ItemOut(BaseModel):
    """One item of the caller's log."""

    seq: int
    kind: Kind
    id: UUID
    conversation_id: UUID = Field(description="Of a reminder: the id of its fasting session.")
    created_at: datetime
    url: str = Field(description="Deep link.")
    number: int | None = Field(description="Of a message: its place in the conversation.")
    sender_id: str | None
    body: str | None
    reminder_minutes: int | None


class SyncOut(BaseModel):
    """What came after the cursor."""

    items: list[ItemOut]
    next_cursor: int = Field(description="Send it as `after` next time; that also says that the items arrived.")
    has_more: bool
    refresh_required: bool = Field(description="The app should fetch its token from the system and register again.")


@router.get("", responses=responses(404, 409, 410))
async def sync(
    installation_id: UUID,
    caller: AnyCaller,
    sessions: Database,
    writes: RowWrites,
    after: Annotated[int, Query(ge=0, le=MAX_SEQ, description="0: from the start. Acknowledges what it passes.")] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> SyncOut:
    """Read the log of the caller after a cursor; `after` says what this installation has already.

    An answer holds 1 MiB of texts at most, so it may have fewer items than `limit`; `has_more` tells.
    """
    size = PageSize(limit, LARGEST_PAGE)

    async def read(db: AsyncSession) -> tuple[log.LogPage, InstallationStanding, log.LogExtent]:
        page = await log.page_after(db, caller.user_id, after, size)  # before it is known that none was let go
        standing, extent = await arrive(db, caller.user_id, installation_id, after, "after")
        return page, standing, extent

    if after:
        page, standing, extent = await writes.run(read, f"position/{caller.user_id}/{installation_id}")
    else:
        async with sessions() as db:
            page, standing, extent = await read(db)
    return SyncOut(
        items=[out for item in page.items if (out := item_out(item)) is not None],
        next_cursor=page.items[-1].seq if page.items else max(after, extent.horizon),
        has_more=page.has_more,
        refresh_required=standing is InstallationStanding.INVALIDATED,
    )


async def arrive(
    db: AsyncSession, user_id: str, installation_id: UUID, after: int, field: str
) -> tuple[InstallationStanding, log.LogExtent]:
    """Check that an installation may go on after a cursor, and note that it has read so far.

    Raises NotFound, Conflict, CursorTooOld, and InvalidField for the field that the cursor came in.
    """
    standing = await installations.standing(db, user_id, installation_id)
    check_may_sync(standing)
    extent = await log.extent(db, user_id)
    if after > extent.head:
        raise InvalidField(field, f"This cursor lies in the future; the log ends at {extent.head}.")
    if 0 < after < extent.horizon:
        raise CursorTooOld(extent.horizon)
    await log.acknowledge(db, user_id, installation_id, after)
    return standing, extent


def item_out(item: LogItem) -> ItemOut | None:
    """Show an item of a log; nothing of one that only a newer release understands."""
    if item.kind is None:
        return None
    return ItemOut(
        seq=item.seq,
        kind=item.kind,
        id=item.message_id,
        conversation_id=item.conversation_id,
        created_at=item.created_at,
        url=RULES[item.kind].deep_link(item.conversation_id),
        number=item.number,
        sender_id=item.sender_id,
        body=item.body,
        reminder_minutes=item.reminder_minutes,
    )
