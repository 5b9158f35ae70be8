"""The session of an operator: a cookie, and for every change a form of the same session; what pages depend on."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request, Response
from temporalio.client import Client

from api.dependencies import Database
from api.http.browsers import FormRefused, check_origin, read_form
from api.http.rates import Rate
from db import console_sessions
from db.console_sessions import Opened, SignedIn
from db.engine import Sessions
from db.support_actions import Actor
from domain.naming import workflow_page
from domain.problems import RateLimit

MAX_SIGN_INS = RateLimit(20)  # attempts of one address; codes cannot be guessed, this limits the cost of guessing


@dataclass(frozen=True, slots=True)
class ConsoleServices:
    """What the process holds for the console."""

    temporal: Client
    temporal_ui_url: str | None
    sign_ins: Rate = field(default_factory=lambda: Rate(MAX_SIGN_INS))  # attempts, by address

    def workflow_page(self, workflow_id: str) -> str | None:
        """Give the address of a workflow in Temporal's Web UI, if TEMPORAL_UI_URL is set."""
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
    """The request has no valid session."""


@dataclass(frozen=True, slots=True)
class Operator:
    """The person who is signed in, and the form that they sent."""

    session: SignedIn
    form: Mapping[str, str]  # empty for GET and HEAD

    @property
    def actor(self) -> Actor:
        """Give who acts, as it is recorded."""
        return self.session.actor


async def operator(request: Request, sessions: Database) -> Operator:
    """Require a session, and for a form its CSRF token; raises NotSignedIn, FormRefused."""
    found = await signed_in(request, sessions)
    if found is None:
        raise NotSignedIn
    if request.method in {"GET", "HEAD"}:
        return Operator(found, {})
    check_origin(request)
    form = await read_form(request)
    if not secrets.compare_digest(form.get("csrf_token", "").encode(), found.csrf_token.encode()):
        raise FormRefused("This form does not belong to your session. Load the page again.")
    return Operator(found, form)


async def signed_in(request: Request, sessions: Sessions) -> SignedIn | None:
    """Find the session of a request's cookie."""
    if COOKIE not in request.cookies:
        return None
    async with sessions() as db:
        return await console_sessions.of(db, request.cookies[COOKIE])


def check_cookie_allowed(request: Request) -> None:
    """Raise FormRefused if the browser would drop the session's cookie, before a code is used up.

    Behind a proxy the scheme here says little, but browsers send `Sec-Fetch-Site` only over TLS or to this machine.
    """
    if _is_remote(request) and request.url.scheme != "https" and "sec-fetch-site" not in request.headers:
        raise FormRefused(
            "This address is not encrypted, so your browser would drop the session's cookie. Use https, or open the "
            "console on the machine itself, for example through an SSH tunnel."
        )


def set_cookie(request: Request, response: Response, opened: Opened) -> None:
    """Set the cookie of a new session."""
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
