"""What the demonstrations are made of: users, their phones, and calls to the public addresses."""

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

import httpx

from demo.parts import Terminal
from domain.push import Provider

PROVIDER_NAMES = {Provider.APNS: "APNs", Provider.FCM: "FCM"}
_INSTALLATIONS = UUID("5d1f6b3a-6c0e-4a52-9a0f-6f2b8f0c7e11")  # names the same phones in every run
_MODEL = {Provider.APNS: "iPhone", Provider.FCM: "Pixel"}
_WITH_ARTICLE = {Provider.APNS: "an iPhone", Provider.FCM: "a Pixel"}


@dataclass(frozen=True, slots=True)
class Stage:
    """The addresses and the terminal of a demonstration."""

    api_url: str
    simulator_url: str
    simulated: frozenset[Provider]
    bearer: Callable[..., str]  # makes a user's token; further arguments are scopes
    terminal: Terminal


@dataclass(frozen=True, slots=True)
class StagePhone:
    """One app installation of a user."""

    owner: str
    provider: Provider
    which: str = ""  # where a user has two of a kind

    @property
    def name(self) -> str:
        """Its name in the story."""
        return f"{self.owner.capitalize()}'s {self.which}{_MODEL[self.provider]}"

    @property
    def installation_id(self) -> UUID:
        """The same in every run."""
        return uuid5(_INSTALLATIONS, self.name)

    @property
    def token(self) -> str:
        """Its device token."""
        digits = hashlib.sha256(self.installation_id.bytes).hexdigest()
        return digits if self.provider is Provider.APNS else f"demo-{digits}"


class Story:
    """A demonstration, call by call."""

    def __init__(self, stage: Stage, http: httpx.AsyncClient) -> None:
        self.stage = stage
        self.http = http
        self._began = time.monotonic()

    def say(self, text: str, style: str = "") -> None:
        """Print a line, with the seconds since the story began."""
        clock = self.stage.terminal.colour(f"{time.monotonic() - self._began:5.1f} s", "dim")
        self.stage.terminal.say(f"{clock}  {self.stage.terminal.colour(text, style)}")

    def say_failure(self, text: str) -> None:
        """Print that something went wrong."""
        self.say(f"The demonstration failed: {text}", "error")

    async def sign_in(self, user: str, phones: Sequence[StagePhone]) -> None:
        """Register a user's phones."""
        for phone in phones:
            declared = {"provider": phone.provider, "name": phone.name}
            await self.call("PUT", f"{self.stage.simulator_url}/phones/{phone.token}", body=declared)
            registration = {"provider": phone.provider, "token": phone.token}
            await self.api(user, "PUT", f"/v1/device-tokens/{phone.installation_id}", registration)
        self.say(f"{user} signs in on {' and '.join(_WITH_ARTICLE[phone.provider] for phone in phones)}.")

    async def look(self, phone: StagePhone, opens: str) -> tuple[list[Any], list[Any]]:
        """Read a phone's screen and log: the lines and the pushes that open one place in the app."""
        shown = await self.call("GET", f"{self.stage.simulator_url}/phones/{phone.token}")
        lines = [line for line in shown["screen"] if opens in line["data"].get("url", "")]
        return lines, [push for push in shown["log"] if opens in json.dumps(push["payload"])]

    async def await_push(self, phone: StagePhone, opens: str) -> Any:  # noqa: ANN401 -- JSON
        """Wait for the first push that opens this place."""
        while True:
            _, pushes = await self.look(phone, opens)
            if pushes:
                return pushes[0]
            await asyncio.sleep(0.05)

    async def say_screen(self, phone: StagePhone, opens: str) -> None:
        """Print what a phone shows, at a time when a second push would have come."""
        lines, pushes = await self.look(phone, opens)
        texts = " and ".join(f"“{line['title']}: {line['body']}”" for line in lines) or "nothing"
        line = f"{phone.name} shows {texts}, received {times(len(pushes))}."
        if len(lines) == len(pushes) == 1:
            self.say(line, "good")
        else:
            self.say_failure(line)

    async def api(self, user: str, method: str, path: str, body: object = None, *scopes: str) -> Any:  # noqa: ANN401 -- JSON
        """Call the API as a user; raises httpx.HTTPError."""
        return await self.call(method, f"{self.stage.api_url}{path}", self.stage.bearer(user, *scopes), body)

    async def call(self, method: str, url: str, bearer: str = "", body: object = None) -> Any:  # noqa: ANN401 -- JSON
        """Make one call; raises httpx.HTTPError."""
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        answer = await self.http.request(method, url, json=body, headers=headers)
        return answer.raise_for_status().json()


async def until(moment: datetime) -> None:
    """Wait for an instant."""
    await asyncio.sleep(max(0.0, (moment - datetime.now(UTC)).total_seconds()))


def times(count: int) -> str:
    """Give a count in words."""
    return "once" if count == 1 else f"{count} times"
