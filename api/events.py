"""Events: what became of pushes, reminders and device tokens, oldest first, read by cursor."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from api.dependencies import Database, ServiceCaller
from api.fields import Out
from api.http.problem_types import responses
from api.http.problems import Detail
from api.sync import MAX_SEQ
from db import events
from db.engine import as_of_one_moment
from domain.events import EventType
from domain.problems import EventCursorTooOld, InvalidField

router = APIRouter(prefix="/v1/events", tags=["events"])
MAX_EVENTS = 500


def _left_out(value: object) -> bool:
    return value is None


class EventDetailsOut(Out):
    """What an event is about; what does not apply is left out. Never a token or a text."""

    task_id: UUID | None = Field(default=None, description="The push.", exclude_if=_left_out)
    kind: str | None = Field(default=None, description="reminder, message or test.", exclude_if=_left_out)
    session_id: UUID | None = Field(default=None, description="The fast of a reminder.", exclude_if=_left_out)
    conversation_id: UUID | None = Field(default=None, description="Of a message.", exclude_if=_left_out)
    message_id: UUID | None = Field(default=None, description="The item of the user's log.", exclude_if=_left_out)
    installation_id: UUID | None = Field(default=None, description="The app on the phone.", exclude_if=_left_out)
    provider: str | None = Field(default=None, description="apns or fcm.", exclude_if=_left_out)
    reason: str | None = Field(default=None, description="Why, as a stable word.", exclude_if=_left_out)
    due_at: datetime | None = Field(default=None, description="When it was due.", exclude_if=_left_out)
    webhook_id: UUID | None = Field(default=None, description="The disabled webhook.", exclude_if=_left_out)


class EventOut(Out):
    """One event."""

    id: int = Field(description="Its place in the feed.")
    type: str = Field(description="What happened.", examples=[EventType.PUSH_ACCEPTED])
    occurred_at: datetime = Field(description="When it happened.")
    user_id: str | None = Field(description="Whom it concerns; null if no person.")
    data: EventDetailsOut = Field(description="What applies of these fields.")


class EventList(BaseModel):
    """The events after the cursor, oldest first."""

    items: list[EventOut] = Field(description="The events.")
    next_cursor: int = Field(description="Send it as `after` next time.")
    has_more: bool = Field(description="Whether to ask again at once.")


@router.get("", responses=responses("not-allowed", "event-cursor-too-old"))
async def list_events(
    _: ServiceCaller,
    sessions: Database,
    after: Annotated[int, Query(ge=0, le=MAX_SEQ, description="0: from the start.")] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_EVENTS)] = 100,
    types: Annotated[
        list[str] | None, Query(max_length=100, description="Only these, repeated or separated by commas; else all.")
    ] = None,
) -> EventList:
    """Read what happened after a cursor. No event ever appears behind a cursor that was given out."""
    wanted = _types(types or [])
    numbered = await events.number(sessions)
    async with sessions() as db:
        await as_of_one_moment(db)
        extent = await events.extent(db)
        if after > extent.head:
            raise InvalidField("after", Detail.FUTURE_EVENT.format(head=extent.head))
        if 0 < after < extent.horizon:
            raise EventCursorTooOld(extent.horizon)
        page = await events.page_after(db, after, limit, wanted, extent)
    return EventList(
        items=[EventOut.model_validate(event) for event in page.items],
        next_cursor=max(after, page.until),
        has_more=page.has_more or numbered >= events.NUMBERED_AT_ONCE,
    )


def _types(given: list[str]) -> set[str] | None:
    names = {name.strip() for each in given for name in each.split(",")} - {""}
    unknown = sorted(names - set(EventType))
    if unknown:
        raise InvalidField("types", Detail.UNKNOWN_TYPE.format(known=", ".join(EventType)))
    return names or None
