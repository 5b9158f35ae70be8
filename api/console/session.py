"""Who may see a page: the cookie of a sign-in, and for every deed a form of the same sign-in; what pages hold."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request, Response
from temporalio.client import Client

from api.dependencies import Database
from api.http.forms import FormRefused, check_origin, read_form
from api.http.rates import Rate
from db import console_sessions
from db.console_sessions import Opened, SignedIn
from db.engine import Sessions
from domain.naming import workflow_page
from domain.rate_limit import RateLimit

_MAX_SIGN_INS = RateLimit(20)  # from one address; no code can be guessed, this keeps the guessing cheap


@dataclass(frozen=True, slots=True)
class ConsoleServices:
    """Held while the process runs; set by the composition root."""

    temporal: Client
    temporal_ui_url: str | None
    sign_ins: Rate = field(default_factory=lambda: Rate(_MAX_SIGN_INS))  # attempts, by address

    def workflow_page(self, workflow_id: str) -> str | None:
        """Name a workflow's page in Temporal's Web UI, where it is known."""
        if self.temporal_ui_url is None:
            return None
        return workflow_page(self.temporal_ui_url, self.temporal.namespace, workflow_id)


def _console(request: Request) -> ConsoleServices:
    console: ConsoleServices = request.app.state.console
    return console


Console = Annotated[ConsoleServices, Depends(_console)]


COOKIE = "fastbell_console"

PATH = "/console"

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class NotSignedIn(Exception):
    """The page is for those who are signed in."""


@dataclass(frozen=True, slots=True)
class Operator:
    """Whoever asks for a page, or has sent one of its forms."""

    session: SignedIn
    form: Mapping[str, str]  # empty for a page that is only read

    @property
    def user_id(self) -> str:
        """Who it is."""
        return self.session.user_id


async def operator(request: Request, sessions: Database) -> Operator:
    """Let nobody pass who is not signed in, and no form that is not of this sign-in; raises NotSignedIn, Refused."""
    found = await signed_in(request, sessions)
    if found is None:
        raise NotSignedIn
    if request.method in {"GET", "HEAD"}:
        return Operator(found, {})
    check_origin(request)
    form = await read_form(request)
    if not secrets.compare_digest(form.get("csrf_token", "").encode(), found.csrf_token.encode()):
        raise FormRefused("This form is not of your sign-in. Load the page again.")
    return Operator(found, form)


async def signed_in(request: Request, sessions: Sessions) -> SignedIn | None:
    """Find the sign-in that a request's cookie stands for."""
    if COOKIE not in request.cookies:
        return None
    async with sessions() as db:
        return await console_sessions.of(db, request.cookies[COOKIE])


def check_cookie_allowed(request: Request) -> None:
    """Raise Refused where a browser would drop the cookie of a sign-in, so that no code is spent in vain.

    Behind a proxy our own scheme says little; but a browser sends its site over an encrypted way or from this machine.
    """
    if _is_remote(request) and request.url.scheme != "https" and "sec-fetch-site" not in request.headers:
        raise FormRefused(
            "This address is not encrypted, so your browser would not keep a sign-in. Come by https, "
            "or on the machine itself (an SSH tunnel will do)."
        )


def set_cookie(request: Request, response: Response, opened: Opened) -> None:
    """Give the browser the cookie of a new sign-in."""
    response.set_cookie(
        COOKIE,
        opened.value,
        max_age=opened.seconds,
        path=PATH,
        secure=request.url.scheme == "https" or _is_remote(request),
        httponly=True,
        samesite="strict",
    )


def _is_remote(request: Request) -> bool:
    return request.url.hostname not in _LOOPBACK


Signed = Annotated[Operator, Depends(operator)]
