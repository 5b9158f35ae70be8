"""A person's page: their phones, fasts and timeline, and a test push."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import AfterValidator, Field

from api.console.door import Signed
from api.console.means import Means
from api.console.rendering import page
from api.dependencies import Cursor, Database, Page, next_cursor, page_at
from api.fasting_sessions import list_of
from api.fields import Body, printable
from db import device_history, present, timeline
from db.engine import as_of_one_moment
from domain.naming import reminder_workflow_id
from domain.timeline import Part

router = APIRouter()

_MOST_DEVICES, _MOST_FASTS, _ITEMS = 50, 10, 50


class PersonIn(Body):
    """Whose page, and which part of the timeline."""

    user: Annotated[str, Field(max_length=200), AfterValidator(printable)] = ""
    session_id: UUID | None = None
    message_id: UUID | None = None
    cursor: Cursor = None


@router.get("/person")
async def person(
    request: Request,
    visitor: Signed,
    sessions: Database,
    means: Means,
    asked: Annotated[PersonIn, Query()],
) -> Response:
    """Find somebody by their user id, and show what happened to their pushes."""
    user = asked.user
    if not user.strip():
        return page(request, "find", visitor)
    part, after = Part(asked.session_id, asked.message_id), page_at(asked.cursor, _ITEMS).after
    async with sessions() as db:
        await as_of_one_moment(db)
        devices = await device_history.of_user(db, user, None, _MOST_DEVICES)
        now = [] if after else await present.of_user(db, user, part)
        items = await timeline.of_user(db, user, part, after, _ITEMS + 1)
    fasts = (await list_of(user, sessions, Page(None, _MOST_FASTS))).items
    shown = items[:_ITEMS]
    return page(
        request,
        "person",
        visitor,
        user=user,
        devices=devices,
        fasts=[(fast, means.workflow_page(reminder_workflow_id(fast.id))) for fast in fasts],
        now=now,
        items=shown,
        part=part,
        is_first=after is None,
        next=next_cursor(shown[-1].at, shown[-1].id) if len(items) > len(shown) else None,
    )
