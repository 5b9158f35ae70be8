"""Who may see the preference page, and what it holds: a link is swapped for a cookie, forms are of the same page."""

import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Annotated, TypedDict

from fastapi import Depends, Request, Response

from api.dependencies import Database
from api.http.forms import Form, check_origin, read_form
from api.http.rates import Rate
from api.preference_page.view import CSRF_FIELD, PATH
from db import preference_links as preference_sessions
from db.preference_links import LONGEST_SESSION, OpenPage
from domain.rate_limit import RateLimit

NEW_LINKS = 30  # a minute, of one person

BAD_CODES = 60  # a minute, from one address; no code can be guessed, and whoever has a good one is let in all the same

PAGE_VIEWS = 120  # a minute, of one person

POSTS = 30  # a minute, of one person

_COOKIE = "fastbell_preferences"


def _a_minute(amount: int) -> Rate:
    return Rate(RateLimit(amount))


@dataclass(frozen=True, slots=True)
class PageServices:
    """Held while the process runs; set by the composition root."""

    public_url: str
    new_links: Rate = field(default_factory=lambda: _a_minute(NEW_LINKS))
    bad_codes: Rate = field(default_factory=lambda: _a_minute(BAD_CODES))
    page_views: Rate = field(default_factory=lambda: _a_minute(PAGE_VIEWS))
    posts: Rate = field(default_factory=lambda: _a_minute(POSTS))

    @property
    def cookie(self) -> str:
        """Name the cookie; with this prefix a browser takes it over TLS only, and from nobody else."""
        return f"__Secure-{_COOKIE}" if self._is_encrypted else _COOKIE

    @property
    def origins(self) -> Collection[str]:
        """List what an older browser, which tells no site, may call the origin of our forms, whatever `Host` says.

        Where people find us, for a proxy may write another `Host`; and `null`, under our referrer policy. The CSRF
        token stands, and a cookie that no other site's form brings along.
        """
        return (self.public_url, "null")

    def link(self, code: str) -> str:
        """Write a link as people get it."""
        return f"{self.public_url}{PATH}{code}"

    def set_cookie(self, response: Response, value: str) -> None:
        """Give the browser the cookie of an open page. Lax, so that it comes along where a mail leads here."""
        response.set_cookie(
            self.cookie, value, max_age=int(LONGEST_SESSION.total_seconds()), **self._attributes, samesite="lax"
        )

    def delete_cookie(self, response: Response) -> None:
        """Take the cookie back."""
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
    """The page is for those who followed a link."""


class FormOfOtherPage(Exception):
    """The form is of another page than the one that this browser has open now."""


@dataclass(frozen=True, slots=True)
class LinkHolder:
    """Whoever asks for the page, or has sent one of its forms."""

    page: OpenPage
    value: str  # of the cookie
    form: Form  # empty for a page that is only read

    @property
    def user_id(self) -> str:
        """Whose page it is."""
        return self.page.user_id


async def holder(request: Request, sessions: Database, services: Page) -> LinkHolder:
    """Let nobody pass without an open page, and no form of another.

    Raises NotOpen, OtherForm, Refused, LimitReached.
    """
    value = request.cookies.get(services.cookie)
    if value is None:
        raise NoOpenPage
    async with sessions.begin() as db:
        page = await preference_sessions.of(db, value)
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


Holder = Annotated[LinkHolder, Depends(holder)]
