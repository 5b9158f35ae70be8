"""One message to a phone that is connected and to one that sleeps, told line by line."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from domain.handoff import PRESENCE_TRUSTED
from domain.push import Provider
from local_parts.stage import SPOKEN, Phone, Story, times

_PATIENCE = 30.0  # seconds
_SURELY_NOT = PRESENCE_TRUSTED.total_seconds() + 2  # a connected phone that was to be pushed to has been by then
_TEXT = "Shall we break our fast together?"


class MessageStory(Story):
    """Alice writes to bob, who has one phone in his hand and one asleep."""

    async def play(self) -> None:
        """Play it; raises httpx.HTTPError."""
        simulated = [provider for provider in Provider if provider in self.stage.simulated]
        online = Phone("bob", simulated[0])
        asleep = Phone("bob", simulated[-1], "" if len(simulated) > 1 else "other ")
        await self.sign_in("bob", [asleep])
        conversation_id = uuid4()
        path, url = f"/v1/conversations/{conversation_id}", f"fastbell://conversations/{conversation_id}"
        await self.api("backend", "PUT", path, {"member_ids": ["alice", "bob"]}, "service")
        stream = self._stream(online)
        try:
            async with asyncio.timeout(_PATIENCE):
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
            self.tell_trouble(f"the message was not on both phones within {_PATIENCE:.0f} s.")
            return
        finally:
            await stream.aclose()
        await self.tell_screen(asleep, url)
        await asyncio.sleep(_SURELY_NOT)
        _, pushes = await self.look(online, url)
        if pushes:
            self.tell_trouble(f"a push came to {online.name}, {times(len(pushes))}, though it was connected.")
        else:
            self.tell(f"{online.name} shows no notification: it had the message.", "good")
        woken = await self._sync(asleep, seq - 1)
        self.tell(f"{asleep.name} wakes, syncs, and has “{woken['items'][0]['body']}”.", "good")

    async def _stream(self, phone: Phone) -> AsyncGenerator[Any]:
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

    async def _await_item(self, stream: AsyncGenerator[Any], phone: Phone, url: str) -> int:
        async for item in stream:
            if item["url"] == url:
                lag = datetime.now(UTC) - datetime.fromisoformat(item["created_at"])
                self.tell(f"{phone.name} has it from its stream {lag / timedelta(milliseconds=1):.0f} ms later.")
                return int(item["seq"])
        raise TimeoutError

    async def _sync(self, phone: Phone, after: int) -> Any:  # noqa: ANN401 -- JSON
        return await self.api(
            phone.owner, "GET", f"/v1/sync?installation_id={phone.installation_id}&after={after}&limit=500"
        )
