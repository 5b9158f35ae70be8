"""Visits to the console without a browser: who is signed in, what a page says, how its forms are sent."""

import re
import secrets
from dataclasses import dataclass
from html import unescape
from ipaddress import IPv4Address
from uuid import UUID, uuid4

import httpx
from sqlalchemy import text

from api.console.session import COOKIE
from db import console_sessions
from db.support_actions import Actor
from tests.stack import Stack


@dataclass(frozen=True)
class Visit:
    """Somebody who is signed in."""

    stack: Stack
    user_id: str
    value: str  # of the cookie

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """Look at a page."""
        return await self.stack.http.get(path, headers=self.headers(**headers))

    async def post(self, path: str, form: dict[str, str] | None = None, **headers: str) -> httpx.Response:
        """Send a form with this sign-in's own CSRF token, as a browser does."""
        fields = {"csrf_token": await self.csrf_token()} | (form or {})
        sent = {"sec-fetch-site": "same-origin", **headers}
        return await self.stack.http.post(path, data=fields, headers=self.headers(**sent))

    async def csrf_token(self) -> str:
        """Read the token out of a page."""
        found = re.search(r'name="csrf_token" value="([\w-]{43})"', (await self.get("/console/person")).text)
        assert found is not None
        return found[1]

    def headers(self, **more: str) -> dict[str, str]:
        """Give the headers of a request, with the cookie."""
        return {"cookie": f"{COOKIE}={self.value}", **more}


async def visit(stack: Stack, user_id: str | None = None) -> Visit:
    """Sign somebody in, by the shortest way."""
    user_id = user_id or f"supporter-{uuid4()}"
    async with stack.sessions.begin() as db:
        opened = await console_sessions.open_for(db, Actor(user_id), "code")
    return Visit(stack, user_id, opened.value)


def an_address() -> str:
    """Make up where somebody signs in from: all tests share one API, and few may sign in from one address."""
    return str(IPv4Address(f"10.{1 + secrets.randbelow(255)}.0.0") + secrets.randbelow(65_536))


def words(answer: httpx.Response) -> str:
    """Read what a page says, without its markup."""
    main = re.sub(r"</?time\b[^>]*>", "", answer.text.partition("<main")[2])  # also in the middle of a sentence
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", main)).split())


async def engage(stack: Stack, app_id: str) -> UUID:
    """Engage the cutoff of an app that no other test uses."""
    statement = text(
        "INSERT INTO brakes (provider, app_id, environment, reason, token_errors, answers) "
        "VALUES ('apns', :app_id, 'sandbox', 'BadDeviceToken', 90, 100) RETURNING id"
    )
    async with stack.sessions.begin() as db:
        brake_id: UUID = (await db.execute(statement, {"app_id": app_id})).scalar_one()
        return brake_id
