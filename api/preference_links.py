"""Links to the hosted preference page of the caller."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import RowWrites, UserCaller
from api.fields import Body
from api.http.problem_types import responses
from api.preference_page.session import Page, PageServices
from api.row_queue import Writes
from db import preference_links
from db.preference_links import LinkFor, MadeLink
from telemetry import metrics

user_router = APIRouter(prefix="/preference-links", tags=["preferences"])


class LinkIn(Body):
    """How the link will be opened."""

    kind: Annotated[
        LinkFor,
        Field(
            alias="for",
            description="`app`: opens the page directly; valid for 15 minutes. `email`: shows a button first, so that "
            "mail scanners do not use up the link; valid for 30 days.",
        ),
    ] = LinkFor.APP


class LinkOut(BaseModel):
    """A link that opens the user's preferences once. It is a secret: do not log it."""

    url: str
    expires_at: datetime


@user_router.post("", status_code=201, responses=responses("being-erased"))
async def make_preference_link(
    caller: UserCaller, writes: RowWrites, services: Page, body: LinkIn | None = None
) -> LinkOut:
    """Create a link to the caller's preference page, for a browser that has no bearer token.

    It works once. A user has at most ten links of each kind: one more ends the oldest.
    """
    return await make_link(caller.user_id, (body or LinkIn()).kind, writes, services)


async def make_link(user_id: str, kind: LinkFor, writes: Writes, services: PageServices) -> LinkOut:
    """Create a link for a user; raises LimitReached, ServiceUnavailable."""
    services.new_links.spend(user_id)

    async def store(db: AsyncSession) -> MadeLink:
        return await preference_links.make(db, user_id, kind)

    made = await writes.run(store, f"preference-links/{user_id}")
    metrics.preference_links.labels("made").inc()
    return LinkOut(url=services.link(made.code), expires_at=made.expires_at)
