"""The demonstration: one fast that reminds, one that is over before, told line by line; public addresses only."""

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4, uuid5

import httpx

from domain.push import Provider
from local_parts.terminal import Terminal

_INSTALLATIONS = UUID("5d1f6b3a-6c0e-4a52-9a0f-6f2b8f0c7e11")  # names the same phones in every run
_ALICE_DUE = timedelta(seconds=8)
_BOB_DUE, _BOB_ENDS = timedelta(seconds=6), timedelta(seconds=3)
_SURELY_NOT = timedelta(seconds=2)  # what has not come so long after it was due does not come
_PATIENCE = timedelta(seconds=30)
_MODEL = {Provider.APNS: "iPhone", Provider.FCM: "Pixel"}
_WITH_ARTICLE = {Provider.APNS: "an iPhone", Provider.FCM: "a Pixel"}
_SPOKEN = {Provider.APNS: "APNs", Provider.FCM: "FCM"}


@dataclass(frozen=True, slots=True)
class Stage:
    """Where it plays."""

    api_url: str
    simulator_url: str
    simulated: frozenset[Provider]
    bearer: Callable[[str], str]  # signs a user in
    terminal: Terminal


@dataclass(frozen=True, slots=True)
class _Phone:
    owner: str
    provider: Provider

    @property
    def name(self) -> str:
        return f"{self.owner.capitalize()}'s {_MODEL[self.provider]}"

    @property
    def installation_id(self) -> UUID:
        return uuid5(_INSTALLATIONS, self.name)

    @property
    def token(self) -> str:
        digits = hashlib.sha256(self.installation_id.bytes).hexdigest()
        return digits if self.provider is Provider.APNS else f"demo-{digits}"


@dataclass(frozen=True, slots=True)
class _Fast:
    owner: str
    path: str
    url: str  # what a phone is told to open
    session_id: UUID
    due_at: datetime


async def demonstrate(stage: Stage) -> UUID | None:
    """Play it; gives the session that was to remind, if it was started. Trouble is told, not raised."""
    async with httpx.AsyncClient(timeout=10, trust_env=False) as http:
        story = _Story(stage, http)
        try:
            await story.play()
        except httpx.HTTPStatusError as error:
            asked = error.request
            story.tell_trouble(f"it stops: {asked.method} {asked.url} answered {error.response.status_code}.")
        except httpx.HTTPError as error:
            story.tell_trouble(f"it stops: {error.request.url} did not answer ({type(error).__name__}).")
        return story.session_id


class _Story:
    def __init__(self, stage: Stage, http: httpx.AsyncClient) -> None:
        self.session_id: UUID | None = None
        self._stage = stage
        self._http = http
        self._began = time.monotonic()

    async def play(self) -> None:
        alices = [_Phone("alice", provider) for provider in Provider if provider in self._stage.simulated]
        bobs = _Phone("bob", alices[0].provider)
        await self._sign_in("alice", alices)
        await self._sign_in("bob", [bobs])
        alices_fast = await self._start("alice", _ALICE_DUE)
        self.session_id = alices_fast.session_id
        bobs_fast = await self._start("bob", _BOB_DUE)
        await _until(bobs_fast.due_at - _BOB_DUE + _BOB_ENDS)
        await self._api("bob", "POST", f"{bobs_fast.path}/end")
        self.tell("bob ends his fast early.")
        came = await asyncio.gather(*(self._await_reminder(phone, alices_fast) for phone in alices))
        await _until(alices_fast.due_at + _SURELY_NOT)
        for phone in (phone for phone, has_come in zip(alices, came, strict=True) if has_come):
            await self._tell_screen(phone, alices_fast)
        await self._tell_silence(bobs, bobs_fast)

    def tell(self, text: str, style: str = "") -> None:
        clock = self._stage.terminal.colour(f"{time.monotonic() - self._began:5.1f} s", "dim")
        self._stage.terminal.say(f"{clock}  {self._stage.terminal.colour(text, style)}")

    def tell_trouble(self, text: str) -> None:
        self.tell(f"The demonstration did not go as it should: {text}", "error")

    async def _sign_in(self, user: str, phones: Sequence[_Phone]) -> None:
        for phone in phones:
            declared = {"provider": phone.provider, "name": phone.name}
            await self._call("PUT", f"{self._stage.simulator_url}/phones/{phone.token}", body=declared)
            registration = {"provider": phone.provider, "token": phone.token}
            await self._api(user, "PUT", f"/v1/device-tokens/{phone.installation_id}", registration)
        self.tell(f"{user} signs in on {' and '.join(_WITH_ARTICLE[phone.provider] for phone in phones)}.")

    async def _start(self, user: str, due_in: timedelta) -> _Fast:
        session_id = uuid4()
        path = f"/v1/fasting-sessions/{session_id}"
        ends_at = datetime.now(UTC) + timedelta(minutes=1) + due_in
        answer = await self._api(user, "PUT", path, {"ends_at": ends_at.isoformat(), "reminder_minutes": [1]})
        due_at = datetime.fromisoformat(answer["reminders"][0]["due_at"])
        self.tell(f"{user} starts a fast; its reminder is due in {due_in.seconds} s, at {due_at:%H:%M:%S} UTC.")
        return _Fast(user, path, f"fastbell://fasting-sessions/{session_id}", session_id, due_at)

    async def _await_reminder(self, phone: _Phone, fast: _Fast) -> bool:
        """Wait until the reminder comes for one phone, and tell how late it was."""
        while not (pushes := (await self._look(phone, fast))[1]):
            if datetime.now(UTC) > fast.due_at + _PATIENCE:
                state = (await self._api(fast.owner, "GET", fast.path))["reminders"][0]["state"]
                waited = f"nothing for {phone.name} within {_PATIENCE.seconds} s of the due instant"
                self.tell_trouble(f"{waited}; the API calls the reminder {state}.")
                return False
            await asyncio.sleep(0.05)
        late = (datetime.fromisoformat(pushes[0]["received_at"]) - fast.due_at) / timedelta(milliseconds=1)
        self.tell(f"{_SPOKEN[phone.provider]} has received {fast.owner}'s reminder, {late:.0f} ms after it was due.")
        return True

    async def _tell_screen(self, phone: _Phone, fast: _Fast) -> None:
        """Tell what one phone shows, now that a second push would have come."""
        lines, pushes = await self._look(phone, fast)
        texts = " and ".join(f"“{line['title']}: {line['body']}”" for line in lines) or "nothing"
        told = f"{phone.name} shows {texts}, received {_times(len(pushes))}."
        if len(lines) == len(pushes) == 1:
            self.tell(told, "good")
        else:
            self.tell_trouble(told)

    async def _tell_silence(self, phone: _Phone, fast: _Fast) -> None:
        _, pushes = await self._look(phone, fast)
        if pushes:
            self.tell_trouble(f"a reminder came to {phone.name}, {_times(len(pushes))}, though the fast was over.")
        else:
            self.tell(f"{phone.name} shows nothing: his fast was over before its reminder was due.", "good")

    async def _look(self, phone: _Phone, fast: _Fast) -> tuple[list[Any], list[Any]]:
        """Look at a phone: the lines on its screen, and the pushes it took, that are about one fast."""
        shown = await self._call("GET", f"{self._stage.simulator_url}/phones/{phone.token}")
        lines = [line for line in shown["screen"] if line["data"].get("url") == fast.url]
        return lines, [push for push in shown["log"] if fast.url in json.dumps(push["payload"])]

    async def _api(self, user: str, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 -- JSON
        return await self._call(method, f"{self._stage.api_url}{path}", self._stage.bearer(user), body)

    async def _call(self, method: str, url: str, bearer: str = "", body: object = None) -> Any:  # noqa: ANN401 -- JSON
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        answer = await self._http.request(method, url, json=body, headers=headers)
        return answer.raise_for_status().json()


async def _until(moment: datetime) -> None:
    await asyncio.sleep(max(0.0, (moment - datetime.now(UTC)).total_seconds()))


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
