"""Links to the hosted preference page, for the person whom a token names."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import AnyCaller, RowWrites
from api.fields import Body
from api.http.problems import responses
from api.preference_page.session import Page, PageServices
from api.row_queue import Writes
from db import preference_links
from db.preference_links import LinkFor, MadeLink
from telemetry import metrics

router = APIRouter(prefix="/v1/preference-links", tags=["preferences"])


class LinkIn(Body):
    """What a link is for."""

    kind: Annotated[
        LinkFor,
        Field(
            alias="for",
            description="`app`: opened at once in a browser of the app; 15 minutes. `email`: 30 days, and a button "
            "comes first, so that programs that look at mails do not use it up.",
        ),
    ] = LinkFor.APP


class LinkOut(BaseModel):
    """A link that opens the person's preferences, once. Whoever has it can change them: do not log it."""

    url: str
    expires_at: datetime


@router.post("", status_code=201, responses=responses())
async def make_preference_link(
    caller: AnyCaller, writes: RowWrites, services: Page, body: LinkIn | None = None
) -> LinkOut:
    """Make a link to the page with the caller's preferences, for a browser without an app's token.

    It works once. Of more than ten of a kind the oldest stops working.
    """
    return await make_link(caller.user_id, (body or LinkIn()).kind, writes, services)


async def make_link(user_id: str, kind: LinkFor, writes: Writes, services: PageServices) -> LinkOut:
    """Make a link for somebody; raises LimitReached, Unavailable."""
    services.new_links.spend(user_id)

    async def store(db: AsyncSession) -> MadeLink:
        return await preference_links.make(db, user_id, kind)

    made = await writes.run(store, f"preference-links/{user_id}")
    metrics.preference_links.labels("made").inc()
    return LinkOut(url=services.link(made.code), expires_at=made.expires_at)
