"""One fast that reminds, one that is over before, told line by line."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from domain.push import Provider
from local_parts.stage import SPOKEN, Phone, Story, times, until

_ALICE_DUE = timedelta(seconds=8)
_BOB_DUE, _BOB_ENDS = timedelta(seconds=6), timedelta(seconds=3)
_SURELY_NOT = timedelta(seconds=2)  # what has not come so long after it was due does not come
_PATIENCE = timedelta(seconds=30)


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
        alices = [Phone("alice", provider) for provider in Provider if provider in self.stage.simulated]
        bobs = Phone("bob", alices[0].provider)
        await self.sign_in("alice", alices)
        await self.sign_in("bob", [bobs])
        alices_fast = await self._start("alice", _ALICE_DUE)
        self.session_id = alices_fast.session_id
        bobs_fast = await self._start("bob", _BOB_DUE)
        await until(bobs_fast.due_at - _BOB_DUE + _BOB_ENDS)
        await self.api("bob", "POST", f"{bobs_fast.path}/end")
        self.tell("bob ends his fast early.")
        came = await asyncio.gather(*(self._await_reminder(phone, alices_fast) for phone in alices))
        await until(alices_fast.due_at + _SURELY_NOT)
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

    async def _await_reminder(self, phone: Phone, fast: _Fast) -> bool:
        """Wait until the reminder comes for one phone, and tell how late it was."""
        try:
            async with asyncio.timeout((fast.due_at + _PATIENCE - datetime.now(UTC)).total_seconds()):
                push = await self.await_push(phone, fast.url)
        except TimeoutError:
            state = (await self.api(fast.owner, "GET", fast.path))["reminders"][0]["state"]
            waited = f"nothing for {phone.name} within {_PATIENCE.seconds} s of the due instant"
            self.tell_trouble(f"{waited}; the API calls the reminder {state}.")
            return False
        late = (datetime.fromisoformat(push["received_at"]) - fast.due_at) / timedelta(milliseconds=1)
        self.tell(f"{SPOKEN[phone.provider]} has received {fast.owner}'s reminder, {late:.0f} ms after it was due.")
        return True

    async def _tell_silence(self, phone: Phone, fast: _Fast) -> None:
        _, pushes = await self.look(phone, fast.url)
        if pushes:
            self.tell_trouble(f"a reminder came to {phone.name}, {times(len(pushes))}, though the fast was over.")
        else:
            self.tell(f"{phone.name} shows nothing: his fast was over before its reminder was due.", "good")
