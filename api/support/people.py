"""A user, for support: timeline, devices, fasts.

A user id is any text, so it comes percent-encoded, and a slash is part of it: `{user_id:path}`. No token may name an
id with a line break, so such an id gets 404.
"""

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field

from api.acting import UserIdInPath
from api.dependencies import Cursor, Database, Limit, Paged, cut, page_at
from api.fasting_sessions import SessionList, list_of
from api.fields import Body, Instant
from api.http.problem_types import responses
from db.engine import as_of_one_moment
from db.views import devices as device_history
from db.views import present, timeline
from db.views.devices import ShownDevice
from domain.timeline import TimelineItem, TimelinePart

router = APIRouter(prefix="/users/{user_id:path}")


class TimelineIn(Body):
    """Which part of a timeline to read."""

    session_id: Annotated[UUID | None, Field(description="Only this fasting session and its reminders.")] = None
    message_id: UUID | None = None
    at_from: Annotated[Instant | None, Field(alias="from")] = None
    at_to: Annotated[Instant | None, Field(alias="to", description="Exclusive.")] = None
    cursor: Cursor = None
    limit: Limit = 50


@dataclass(frozen=True, slots=True)
class Timeline:
    """A page of a timeline, the latest first.

    `present` is filled on the first page: one item for each push that is not settled, with what it waits for.
    """

    present: list[TimelineItem]
    items: list[TimelineItem]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class DeviceList:
    """A page of device tokens with their history, the last seen first."""

    items: list[ShownDevice]
    next_cursor: str | None


@router.get("/timeline", responses=responses("not-allowed", "not-found"))
async def show_timeline_of_user(
    user_id: UserIdInPath, query: Annotated[TimelineIn, Query()], sessions: Database
) -> Timeline:
    """Show what a user's pushes wait for now, and what was decided about them and why, as far back as it is kept."""
    part = TimelinePart(**query.model_dump(exclude={"cursor", "limit"}))
    page = page_at(query.cursor, query.limit)
    async with sessions() as db:
        await as_of_one_moment(db)
        now = [] if page.after else await present.of_user(db, user_id, part)
        found = await timeline.of_user(db, user_id, part, page.after, page.limit + 1)
    return Timeline(now, *cut(found, page.limit, lambda each: (each.at, each.id)))


@router.get("/devices", responses=responses("not-allowed", "not-found"))
async def list_devices_of_user(user_id: UserIdInPath, sessions: Database, page: Paged) -> DeviceList:
    """List a user's device tokens, each with its history."""
    async with sessions() as db:
        found = await device_history.of_user(db, user_id, page.after, page.limit + 1)
    return DeviceList(*cut(found, page.limit, lambda each: (each.last_seen_at, each.id)))


@router.get("/fasting-sessions", responses=responses("not-allowed", "not-found"))
async def list_fasts_of_user(user_id: UserIdInPath, sessions: Database, page: Paged) -> SessionList:
    """List a user's fasting sessions."""
    return await list_of(user_id, sessions, page)
