"""Who may see the page: the cookie that a link was swapped for, and for every deed a form of the same page."""

import secrets
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from api.dependencies import Database
from api.forms import Form, check_origin, read_form
from api.preference_page.services import Page
from api.preference_page.view import CSRF_FIELD
from db import preference_sessions
from db.preference_sessions import OpenPage


class NotOpen(Exception):
    """The page is for those who followed a link."""


class OtherForm(Exception):
    """The form is of another page than the one that this browser has open now."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Whoever asks for the page, or has sent one of its forms."""

    page: OpenPage
    value: str  # of the cookie
    form: Form  # empty for a page that is only read

    @property
    def user_id(self) -> str:
        """Whose page it is."""
        return self.page.user_id


async def visitor(request: Request, sessions: Database, services: Page) -> Visitor:
    """Let nobody pass without an open page, and no form of another.

    Raises NotOpen, OtherForm, Refused, LimitReached.
    """
    value = request.cookies.get(services.cookie)
    if value is None:
        raise NotOpen
    async with sessions.begin() as db:
        page = await preference_sessions.of(db, value)
    if page is None:
        raise NotOpen
    services.visits.spend(page.user_id)
    if request.method in {"GET", "HEAD"}:
        return Visitor(page, value, Form())
    services.posts.spend(page.user_id)
    check_origin(request, services.origins)
    form = await read_form(request)
    if not secrets.compare_digest(form.get(CSRF_FIELD, "").encode(), page.csrf_token.encode()):
        raise OtherForm
    return Visitor(page, value, form)


Visits = Annotated[Visitor, Depends(visitor)]
