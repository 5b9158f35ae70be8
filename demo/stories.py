"""The demonstration: fasts, then messages, told line by line; public addresses only."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx

from demo.stage import SPOKEN, Stage, StagePhone, Story, times, until
from domain.messages import PRESENCE_TRUSTED
from domain.push import Provider

_ALICE_DUE = timedelta(seconds=8)

_BOB_DUE, _BOB_ENDS = timedelta(seconds=6), timedelta(seconds=3)

_NO_REMINDER_WITHIN = timedelta(seconds=2)  # what has not come so long after it was due does not come
_REMINDER_WITHIN = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class _Fast:
    owner: str
    path: str
    url: str  # what a phone is told to open
    session_id: UUID
    due_at: datetime


class FastStory(Story):
    """Alice is reminded on all her phones; bob, who ends his fast early, is not."""

    session_id: UUID | None = None  # of the fast that is to remind

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
        self.tell("bob ends his fast early.")
        came = await asyncio.gather(*(self._await_reminder(phone, alices_fast) for phone in alices))
        await until(alices_fast.due_at + _NO_REMINDER_WITHIN)
        for phone in (phone for phone, has_come in zip(alices, came, strict=True) if has_come):
            await self.tell_screen(phone, alices_fast.url)
        await self._tell_silence(bobs, bobs_fast)

    async def _start(self, user: str, due_in: timedelta) -> _Fast:
        session_id = uuid4()
        path = f"/v1/fasting-sessions/{session_id}"
        ends_at = datetime.now(UTC) + timedelta(minutes=1) + due_in
        answer = await self.api(user, "PUT", path, {"ends_at": ends_at.isoformat(), "reminder_minutes": [1]})
        due_at = datetime.fromisoformat(answer["reminders"][0]["due_at"])
        self.tell(f"{user} starts a fast; its reminder is due in {due_in.seconds} s, at {due_at:%H:%M:%S} UTC.")
        return _Fast(user, path, f"fastbell://fasting-sessions/{session_id}", session_id, due_at)

    async def _await_reminder(self, phone: StagePhone, fast: _Fast) -> bool:
        """Wait until the reminder comes for one phone, and tell how late it was."""
        try:
            async with asyncio.timeout((fast.due_at + _REMINDER_WITHIN - datetime.now(UTC)).total_seconds()):
                push = await self.await_push(phone, fast.url)
        except TimeoutError:
            state = (await self.api(fast.owner, "GET", fast.path))["reminders"][0]["state"]
            waited = f"nothing for {phone.name} within {_REMINDER_WITHIN.seconds} s of the due instant"
            self.tell_trouble(f"{waited}; the API calls the reminder {state}.")
            return False
        late = (datetime.fromisoformat(push["received_at"]) - fast.due_at) / timedelta(milliseconds=1)
        self.tell(f"{SPOKEN[phone.provider]} has received {fast.owner}'s reminder, {late:.0f} ms after it was due.")
        return True

    async def _tell_silence(self, phone: StagePhone, fast: _Fast) -> None:
        _, pushes = await self.look(phone, fast.url)
        if pushes:
            self.tell_trouble(f"a reminder came to {phone.name}, {times(len(pushes))}, though the fast was over.")
        else:
            self.tell(f"{phone.name} shows nothing: his fast was over before its reminder was due.", "good")


_MESSAGE_WITHIN = 30.0  # seconds
_NO_PUSH_WITHIN = PRESENCE_TRUSTED.total_seconds() + 2  # a connected phone that was to be pushed to has been by then
_TEXT = "Shall we break our fast together?"


class MessageStory(Story):
    """Alice writes to bob, who has one phone in his hand and one asleep."""

    async def play(self) -> None:
        """Play it; raises httpx.HTTPError."""
        simulated = [provider for provider in Provider if provider in self.stage.simulated]
        online = StagePhone("bob", simulated[0])
        asleep = StagePhone("bob", simulated[-1], "" if len(simulated) > 1 else "other ")
        await self.sign_in("bob", [asleep])
        conversation_id = uuid4()
        path, url = f"/v1/conversations/{conversation_id}", f"fastbell://conversations/{conversation_id}"
        await self.api("backend", "PUT", path, {"member_ids": ["alice", "bob"]}, "service")
        stream = self._stream(online)
        try:
            async with asyncio.timeout(_MESSAGE_WITHIN):
                await anext(stream)
                self.tell(f"{online.name} is in his hand, its stream open; {asleep.name} sleeps.")
                began = time.monotonic()
                await self.api("alice", "PUT", f"{path}/messages/{uuid4()}", {"body": _TEXT})
                self.tell(f"alice writes to bob; accepted after {1000 * (time.monotonic() - began):.0f} ms.")
                seq = await self._await_item(stream, online, url)
                await self._sync(online, seq)
                await self.await_push(asleep, url)
                self.tell(f"{SPOKEN[asleep.provider]} has received the push for {asleep.name}.")
        except TimeoutError:
            self.tell_trouble(f"the message was not on both phones within {_MESSAGE_WITHIN:.0f} s.")
            return
        finally:
            await stream.aclose()
        await self.tell_screen(asleep, url)
        await asyncio.sleep(_NO_PUSH_WITHIN)
        _, pushes = await self.look(online, url)
        if pushes:
            self.tell_trouble(f"a push came to {online.name}, {times(len(pushes))}, though it was connected.")
        else:
            self.tell(f"{online.name} shows no notification: it had the message.", "good")
        woken = await self._sync(asleep, seq - 1)
        self.tell(f"{asleep.name} wakes, syncs, and has “{woken['items'][0]['body']}”.", "good")

    async def _stream(self, phone: StagePhone) -> AsyncGenerator[Any]:
        """Open a phone's stream; gives None once it is open, then each item of its owner's log."""
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

    async def _await_item(self, stream: AsyncGenerator[Any], phone: StagePhone, url: str) -> int:
        async for item in stream:
            if item["url"] == url:
                lag = datetime.now(UTC) - datetime.fromisoformat(item["created_at"])
                self.tell(f"{phone.name} has it from its stream {lag / timedelta(milliseconds=1):.0f} ms later.")
                return int(item["seq"])
        raise TimeoutError

    async def _sync(self, phone: StagePhone, after: int) -> Any:  # noqa: ANN401 -- JSON
        return await self.api(
            phone.owner, "GET", f"/v1/sync?installation_id={phone.installation_id}&after={after}&limit=500"
        )


async def demonstrate(stage: Stage) -> UUID | None:
    """Play it; gives the session that was to remind, if it was started. Trouble is told, not raised."""
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
        asked = error.request
        story.tell_trouble(f"it stops: {asked.method} {asked.url} answered {error.response.status_code}.")
    except httpx.HTTPError as error:
        story.tell_trouble(f"it stops: {error.request.url} did not answer ({type(error).__name__}).")
    else:
        return True
    return False
