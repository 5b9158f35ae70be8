"""The demonstration: users, their phones, fasts, then messages, printed line by line. It uses public addresses only."""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4, uuid5

import httpx

from demo.parts import Terminal
from domain.messages import PRESENCE_TRUSTED
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


_ALICE_DUE = timedelta(seconds=8)

_BOB_DUE, _BOB_ENDS = timedelta(seconds=6), timedelta(seconds=3)

_SECOND_REMINDER_TIMEOUT = timedelta(seconds=2)  # a reminder that is later than this does not come
_REMINDER_TIMEOUT = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class _Fast:
    owner: str
    path: str
    opens: str  # the path in its deep link; what is around it is the app's own
    session_id: UUID
    due_at: datetime


class FastStory(Story):
    """Alice is reminded on all her phones. Bob ends his fast early and is not reminded."""

    session_id: UUID | None = None  # of alice's fast

    async def play(self) -> None:
        """Play it; raises httpx.HTTPError."""
        alices = [StagePhone("alice", provider) for provider in Provider if provider in self.stage.simulated]
        bobs = StagePhone("bob", alices[0].provider)
        await self.sign_in("alice", alices)
        await self.sign_in("bob", [bobs])
        alices_fast = await self._start("alice", _ALICE_DUE)
        self.session_id = alices_fast.session_id
        bobs_fast = await self._start("bob", _BOB_DUE)
        await until(bobs_fast.due_at - _BOB_DUE + _BOB_ENDS)
        await self.api("bob", "POST", f"{bobs_fast.path}/end")
        self.say("bob ends his fast early.")
        came = await asyncio.gather(*(self._await_reminder(phone, alices_fast) for phone in alices))
        await until(alices_fast.due_at + _SECOND_REMINDER_TIMEOUT)
        for phone in (phone for phone, has_come in zip(alices, came, strict=True) if has_come):
            await self.say_screen(phone, alices_fast.opens)
        await self._check_silence(bobs, bobs_fast)

    async def _start(self, user: str, due_in: timedelta) -> _Fast:
        session_id = uuid4()
        path = f"/v1/fasting-sessions/{session_id}"
        ends_at = datetime.now(UTC) + timedelta(minutes=1) + due_in
        answer = await self.api(user, "PUT", path, {"ends_at": ends_at.isoformat(), "reminder_minutes": [1]})
        due_at = datetime.fromisoformat(answer["reminders"][0]["due_at"])
        self.say(f"{user} starts a fast. Its reminder is due in {due_in.seconds} s, at {due_at:%H:%M:%S} UTC.")
        return _Fast(user, path, f"fasting-sessions/{session_id}", session_id, due_at)

    async def _await_reminder(self, phone: StagePhone, fast: _Fast) -> bool:
        """Wait until one phone has its reminder, and print how late it was."""
        try:
            async with asyncio.timeout((fast.due_at + _REMINDER_TIMEOUT - datetime.now(UTC)).total_seconds()):
                push = await self.await_push(phone, fast.opens)
        except TimeoutError:
            state = (await self.api(fast.owner, "GET", fast.path))["reminders"][0]["state"]
            waited = f"{phone.name} got no reminder within {_REMINDER_TIMEOUT.seconds} s of the due instant"
            self.say_failure(f"{waited}; the API calls the reminder {state}.")
            return False
        late = (datetime.fromisoformat(push["received_at"]) - fast.due_at) / timedelta(milliseconds=1)
        self.say(f"{PROVIDER_NAMES[phone.provider]} received {fast.owner}'s reminder {late:.0f} ms after it was due.")
        return True

    async def _check_silence(self, phone: StagePhone, fast: _Fast) -> None:
        _, pushes = await self.look(phone, fast.opens)
        if pushes:
            self.say_failure(f"{phone.name} got a reminder {times(len(pushes))} although the fast had ended.")
        else:
            self.say(f"{phone.name} shows nothing: his fast ended before its reminder was due.", "good")


_MESSAGE_TIMEOUT = 30.0  # seconds
_PUSH_TIMEOUT = PRESENCE_TRUSTED.total_seconds() + 2  # by then a push to a connected phone would have come
_TEXT = "Shall we break our fast together?"


class MessageStory(Story):
    """Alice writes to bob, who has the app open on one phone; the other phone is asleep."""

    async def play(self) -> None:
        """Play it; raises httpx.HTTPError."""
        simulated = [provider for provider in Provider if provider in self.stage.simulated]
        online = StagePhone("bob", simulated[0])
        asleep = StagePhone("bob", simulated[-1], "" if len(simulated) > 1 else "other ")
        await self.sign_in("bob", [asleep])
        conversation_id = uuid4()
        path, opens = f"/v1/conversations/{conversation_id}", f"conversations/{conversation_id}"
        await self.api("backend", "PUT", path, {"member_ids": ["alice", "bob"]}, "service")
        stream = self._stream(online)
        try:
            async with asyncio.timeout(_MESSAGE_TIMEOUT):
                await anext(stream)
                self.say(f"{online.name} has the app open and connected. {asleep.name} is asleep.")
                began = time.monotonic()
                await self.api("alice", "PUT", f"{path}/messages/{uuid4()}", {"body": _TEXT})
                took = 1000 * (time.monotonic() - began)
                self.say(f"alice writes to bob. The API accepts the message after {took:.0f} ms.")
                seq = await self._await_item(stream, online, opens)
                await self._sync(online, seq)
                await self.await_push(asleep, opens)
                self.say(f"{PROVIDER_NAMES[asleep.provider]} received the push for {asleep.name}.")
        except TimeoutError:
            self.say_failure(f"the message did not reach both phones within {_MESSAGE_TIMEOUT:.0f} s.")
            return
        finally:
            await stream.aclose()
        await self.say_screen(asleep, opens)
        await asyncio.sleep(_PUSH_TIMEOUT)
        _, pushes = await self.look(online, opens)
        if pushes:
            self.say_failure(f"{online.name} got a push {times(len(pushes))} although it was connected.")
        else:
            self.say(f"{online.name} shows no notification: it already had the message.", "good")
        woken = await self._sync(asleep, seq - 1)
        self.say(f"{asleep.name} wakes, syncs, and gets “{woken['items'][0]['body']}”.", "good")

    async def _stream(self, phone: StagePhone) -> AsyncGenerator[Any]:
        """Open a phone's stream; yields None when it is open, then each item of its owner's log."""
        log = await self._sync(phone, 0)
        while log["has_more"]:
            log = await self._sync(phone, log["next_cursor"])
        query = f"installation_id={phone.installation_id}&after={log['next_cursor']}"
        headers = {"Authorization": f"Bearer {self.stage.bearer(phone.owner)}"}
        async with self.http.stream("GET", f"{self.stage.api_url}/v1/stream?{query}", headers=headers) as answer:
            answer.raise_for_status()
            yield None
            async for line in answer.aiter_lines():
                if line.startswith("data:"):
                    yield json.loads(line.removeprefix("data:"))

    async def _await_item(self, stream: AsyncGenerator[Any], phone: StagePhone, opens: str) -> int:
        async for item in stream:
            if opens in item["url"]:
                lag = (datetime.now(UTC) - datetime.fromisoformat(item["created_at"])) / timedelta(milliseconds=1)
                self.say(f"{phone.name} gets the message through its stream {lag:.0f} ms later.")
                return int(item["seq"])
        raise TimeoutError

    async def _sync(self, phone: StagePhone, after: int) -> Any:  # noqa: ANN401 -- JSON
        return await self.api(
            phone.owner, "GET", f"/v1/sync?installation_id={phone.installation_id}&after={after}&limit=500"
        )


async def demonstrate(stage: Stage) -> UUID | None:
    """Play both stories; gives alice's session, if it was started. A failure is printed, not raised."""
    async with httpx.AsyncClient(timeout=10, trust_env=False) as http:
        fast, message = FastStory(stage, http), MessageStory(stage, http)
        for story in (fast, message):
            if not await _play(story):
                break
        return fast.session_id


async def _play(story: FastStory | MessageStory) -> bool:
    try:
        await story.play()
    except httpx.HTTPStatusError as error:
        request = error.request
        story.say_failure(f"{request.method} {request.url} answered {error.response.status_code}.")
    except httpx.HTTPError as error:
        story.say_failure(f"{error.request.url} did not answer ({type(error).__name__}).")
    else:
        return True
    return False
