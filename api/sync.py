"""Sync: the caller's log after a cursor, and which pushes were opened.

The backend is the source of truth; a push only asks the app to read it.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import LARGEST_PAGE, AllServices, RowWrites, UserCaller
from api.fields import Out
from api.http.problem_types import responses
from api.http.problems import Detail
from db import device_tokens as installations
from db import log, push_tasks
from db.messages import PageSize
from domain.devices import InstallationStanding, check_may_sync
from domain.kinds import Kind
from domain.messages import LogItem
from domain.presentation import Presentation
from domain.problems import CursorTooOld, InvalidField, NotFound

user_router = APIRouter(prefix="/sync", tags=["messages"])
MAX_SEQ = 2**63 - 1


class ItemOut(Out):
    """One item of the caller's log."""

    seq: int
    kind: Kind
    id: UUID = Field(validation_alias="message_id")
    conversation_id: UUID = Field(description="For a reminder: the id of its fasting session.")
    created_at: datetime
    url: str = Field(description="Deep link, by the link template of the app that asks.")
    number: int | None = Field(description="For a message: its position in the conversation.")
    sender_id: str | None
    body: str | None
    reminder_minutes: int | None


class SyncOut(BaseModel):
    """The items after the cursor."""

    items: list[ItemOut]
    next_cursor: int = Field(description="Send it as `after` next time. That also acknowledges these items.")
    has_more: bool
    refresh_required: bool = Field(description="The app should get its token from the system and register again.")


@user_router.get("", responses=responses("not-found", "installation-inactive", "being-erased", "cursor-too-old"))
async def sync_log(
    installation_id: UUID,
    caller: UserCaller,
    services: AllServices,
    after: Annotated[
        int, Query(ge=0, le=MAX_SEQ, description="0: from the start. Acknowledges the items up to it.")
    ] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> SyncOut:
    """Read the caller's log after a cursor. `after` acknowledges what this installation has.

    An answer has at most 1 MiB of text, so it may have fewer items than `limit`. `has_more` says whether more follow.
    """
    size = PageSize(limit, LARGEST_PAGE)

    async def read(db: AsyncSession) -> tuple[log.LogPage, Arrived]:
        page = await log.page_after(db, caller.user_id, after, size)  # before the extent: a purge is noticed
        return page, await arrive(db, caller.user_id, installation_id, after, "after")

    if after:
        page, arrived = await services.writes.run(read, f"position/{caller.user_id}/{installation_id}")
    else:
        async with services.sessions() as db:
            page, arrived = await read(db)
    presentation = services.presentations.of(arrived.app_id)
    return SyncOut(
        items=[out for item in page.items if (out := item_out(item, presentation)) is not None],
        next_cursor=page.items[-1].seq if page.items else max(after, arrived.extent.horizon),
        has_more=page.has_more,
        refresh_required=arrived.standing is InstallationStanding.INVALIDATED,
    )


@dataclass(frozen=True, slots=True)
class Arrived:
    """An installation that continues after its cursor."""

    standing: InstallationStanding
    extent: log.LogExtent
    app_id: str | None


async def arrive(db: AsyncSession, user_id: str, installation_id: UUID, after: int, field: str) -> Arrived:
    """Check that an installation may continue after a cursor, and store the cursor as acknowledged.

    Raises NotFound, Conflict, CursorTooOld, and InvalidField for the field that the cursor came in.
    """
    standing, app_id = await installations.standing_and_app(db, user_id, installation_id)
    check_may_sync(standing)
    extent = await log.extent(db, user_id)
    if after > extent.head:
        raise InvalidField(field, Detail.FUTURE_CURSOR.format(head=extent.head))
    if 0 < after < extent.horizon:
        raise CursorTooOld(extent.horizon)
    await log.acknowledge(db, user_id, installation_id, after)
    return Arrived(standing, extent, app_id)


def item_out(item: LogItem, presentation: Presentation) -> ItemOut | None:
    """Show an item of a log to an app; None for an item of a newer release."""
    if item.kind is None:
        return None
    return ItemOut.model_validate(replace(item, url=presentation.url(item.kind, item.conversation_id)))


opened_router = APIRouter(prefix="/push-tasks", tags=["push tasks"])


@opened_router.post("/{task_id}/opened", status_code=204, responses=responses("not-found", "being-erased"))
async def mark_push_opened(task_id: UUID, caller: UserCaller, writes: RowWrites) -> Response:
    """Record that the user tapped the notification. The first time counts."""

    async def note(db: AsyncSession) -> bool:
        return await push_tasks.mark_opened(db, caller.user_id, task_id)

    if not await writes.run(note, f"push-task/{task_id}"):
        raise NotFound("push task")
    return Response(status_code=204)
