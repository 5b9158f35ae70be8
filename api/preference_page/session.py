"""Links to the preference page, and its session: a cookie in exchange for a link, and a CSRF token in every form."""

import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, TypedDict

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import Database, RowWrites, UserCaller
from api.fields import Body
from api.http.browsers import Form, check_origin, read_form
from api.http.problem_types import responses
from api.http.rates import Rate
from api.preference_page.view import CSRF_FIELD, PATH
from api.writes import Writes
from db import preference_links
from db.preference_links import LONGEST_SESSION, LinkFor, MadeLink, OpenPage
from domain.presentation import Presentations
from domain.problems import RateLimit
from telemetry import metrics

NEW_LINKS = 30  # a minute, of one user
BAD_CODES = 60  # a minute, from one address; a valid code works all the same
PAGE_VIEWS = 120  # a minute, of one user
POSTS = 30  # a minute, of one user
_COOKIE = "fastbell_preferences"


def _a_minute(amount: int) -> Rate:
    return Rate(RateLimit(amount))


@dataclass(frozen=True, slots=True)
class PageServices:
    """What the process holds for the preference page."""

    public_url: str
    presentations: Presentations
    new_links: Rate = field(default_factory=lambda: _a_minute(NEW_LINKS))
    bad_codes: Rate = field(default_factory=lambda: _a_minute(BAD_CODES))
    page_views: Rate = field(default_factory=lambda: _a_minute(PAGE_VIEWS))
    posts: Rate = field(default_factory=lambda: _a_minute(POSTS))

    @property
    def cookie(self) -> str:
        """Name the cookie. Browsers accept this prefix only over TLS."""
        return f"__Secure-{_COOKIE}" if self._is_encrypted else _COOKIE

    @property
    def origins(self) -> Collection[str]:
        """List the origins that a browser without `Sec-Fetch-Site` may give for our forms.

        The public address, because a proxy may change `Host`; and `null`, because of our referrer policy. The CSRF
        token still protects, and so does the cookie, which forms on other sites do not send.
        """
        return (self.public_url, "null")

    def link(self, code: str) -> str:
        """Write the link of a code."""
        return f"{self.public_url}{PATH}{code}"

    def set_cookie(self, response: Response, value: str) -> None:
        """Set the cookie of an open page. Lax, so that links in mails send it."""
        response.set_cookie(
            self.cookie, value, max_age=int(LONGEST_SESSION.total_seconds()), **self._attributes, samesite="lax"
        )

    def delete_cookie(self, response: Response) -> None:
        """Delete the cookie."""
        response.delete_cookie(self.cookie, **self._attributes, samesite="lax")

    @property
    def _is_encrypted(self) -> bool:
        return self.public_url.startswith("https://")

    @property
    def _attributes(self) -> "_Attributes":
        return {"path": PATH.rstrip("/"), "secure": self._is_encrypted, "httponly": True}


class _Attributes(TypedDict):
    path: str
    secure: bool
    httponly: bool


def _services(request: Request) -> PageServices:
    services: PageServices = request.app.state.preference_page
    return services


Page = Annotated[PageServices, Depends(_services)]


class NoOpenPage(Exception):
    """The request has no valid cookie of the page."""


class FormOfOtherPage(Exception):
    """The form belongs to another page than the cookie."""


@dataclass(frozen=True, slots=True)
class LinkHolder:
    """The user whose page is open, and the form that they sent."""

    page: OpenPage
    value: str  # of the cookie
    form: Form  # empty for GET and HEAD

    @property
    def user_id(self) -> str:
        """Give the user id."""
        return self.page.user_id


async def link_holder(request: Request, sessions: Database, services: Page) -> LinkHolder:
    """Require an open page, and for a form its CSRF token.

    Raises NoOpenPage, FormOfOtherPage, FormRefused, LimitReached.
    """
    value = request.cookies.get(services.cookie)
    if value is None:
        raise NoOpenPage
    async with sessions.begin() as db:
        page = await preference_links.of(db, value)
    if page is None:
        raise NoOpenPage
    services.page_views.spend(page.user_id)
    if request.method in {"GET", "HEAD"}:
        return LinkHolder(page, value, Form())
    services.posts.spend(page.user_id)
    check_origin(request, services.origins)
    form = await read_form(request)
    if not secrets.compare_digest(form.get(CSRF_FIELD, "").encode(), page.csrf_token.encode()):
        raise FormOfOtherPage
    return LinkHolder(page, value, form)


Holder = Annotated[LinkHolder, Depends(link_holder)]


links_router = APIRouter(prefix="/preference-links", tags=["preferences"])


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


@links_router.post("", status_code=201, responses=responses("being-erased"))
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
