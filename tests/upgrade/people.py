"""People who fast and write while releases change, and what their phones have to show for it."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from tests.stack import Phone, Stack, User, android, iphone, refuse_once
from tests.talk import connected, conversation_of, give_phones, posted

CROWD = 52  # people; their handoff takes two pages
BROUGHT = 150  # people of one batch
_BROUGHT_DUE = 20.0  # seconds until their reminders are due
_SOONEST, _LATEST = 3.0, 30.0  # seconds until a reminder is due
_SETTLED = 10.0  # seconds before it is due, after which a fast is left alone


@dataclass
class Awaited:
    """A phone, and when what it is to be told is due."""

    token: str
    due: list[float] = field(default_factory=list)  # instants; of a message: its post
    is_reminder: bool = True


@dataclass
class Fast:
    """Somebody's fast."""

    user: User
    session_id: UUID
    awaited: Awaited


@dataclass
class People:
    """All of them, and the phones that wait."""

    chance: random.Random
    awaited: list[Awaited] = field(default_factory=list)
    fasts: list[Fast] = field(default_factory=list)
    changed: int = 0

    async def live(self, seconds: float, apis: Sequence[Stack], *, twice: bool = False) -> None:
        """Start fasts, change some, and post, through any of these APIs; `twice`: some for two reminders."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            stack = self.chance.choice(apis)
            await self._start(stack, again=twice and self.chance.random() < 0.3)
            if self.chance.random() < 0.3:
                await self._write(stack)
            if self.chance.random() < 0.3:
                await self._change(self.chance.choice(apis))
            await asyncio.sleep(0.1)

    async def crowd(self, stack: Stack) -> None:
        """Let one of many write to all."""
        users = [stack.user() for _ in range(CROWD)]
        await give_phones(stack, users)
        conversation_id = await conversation_of(*users)
        await posted(users[0], conversation_id)
        reached = "SELECT token FROM device_tokens WHERE user_id = ANY(:users)"
        rows = await stack.rows(reached, users=[user.user_id for user in users[1:]])
        self.awaited += [Awaited(row.token, [time.time()], is_reminder=False) for row in rows]

    async def bring(self, stack: Stack) -> None:
        """Let a backend bring many in two batches, the reminders of which are due soon."""
        backend, phones = stack.user("backend", "service"), [self._phone() for _ in range(BROUGHT)]
        rows = [(str(uuid4()), phone) for phone in phones]
        registered = [
            {"user_id": name, "op": "register", "provider": phone.provider, "token": phone.token}
            | {"installation_id": str(phone.installation_id)}
            for name, phone in rows
        ]
        ends_at = datetime.now(UTC) + timedelta(seconds=60 + _BROUGHT_DUE)
        started = [
            {"user_id": name, "op": "start", "session_id": str(uuid4()), "reminder_minutes": [1]}
            | {"ends_at": ends_at.isoformat()}
            for name, _ in rows
        ]
        for path, items in (("/v1/device-tokens/batch", registered), ("/v1/fasting-sessions/batch", started)):
            answer = (await backend.call("POST", path, {"items": items})).json()
            if not all(each["status"] in {200, 201} for each in answer["items"]):
                raise AssertionError(answer["items"])
        self.awaited += [Awaited(phone.token, [ends_at.timestamp() - 60]) for phone in phones]

    async def _start(self, stack: Stack, *, again: bool) -> None:
        user, phone = stack.user(), self._phone()
        await user.register(phone)
        if self.chance.random() < 0.15:
            refuse_once(stack.place.simulator, phone)
        due_in = self.chance.uniform(_SOONEST, _LATEST)
        minutes, later = ((2, 1), 60.0) if again else ((1,), 0.0)
        session_id = await user.start_fast(due_in=due_in + later, minutes=minutes)
        shown = (await user.call("GET", f"/v1/fasting-sessions/{session_id}")).json()
        asked_in_time = [each for each in shown["reminders"] if each["state"] != "skipped"]
        awaited = Awaited(phone.token, [_instant(each["due_at"]) for each in asked_in_time])
        self.awaited.append(awaited)
        self.fasts.append(Fast(user, session_id, awaited))

    async def _change(self, stack: Stack) -> None:
        """End, cancel or move a fast that is not due soon, perhaps through another release than it started with."""
        settled = time.time() + _SETTLED
        far = [fast for fast in self.fasts if len(fast.awaited.due) == 1 and fast.awaited.due[0] > settled]
        if not far:
            return
        fast, self.changed = self.chance.choice(far), self.changed + 1
        user = replace(fast.user, stack=stack)
        match self.chance.randrange(3):
            case 0:
                await user.end(fast.session_id)
                fast.awaited.due = []
            case 1:
                await user.cancel(fast.session_id)
                fast.awaited.due = []
            case _:
                await user.move_goal(fast.session_id, due_in=self.chance.uniform(_SOONEST, _LATEST))
                shown = (await user.call("GET", f"/v1/fasting-sessions/{fast.session_id}")).json()
                fast.awaited.due = [_instant(shown["ends_at"]) - 60]

    async def _write(self, stack: Stack) -> None:
        """Let somebody write to one whose stream seems open, so that the handoff first waits."""
        author, reader, phone = stack.user(), stack.user(), self._phone()
        await reader.register(phone)
        await connected(stack, reader, phone)
        await posted(author, await conversation_of(author, reader))
        self.awaited.append(Awaited(phone.token, [time.time()], is_reminder=False))

    def _phone(self) -> Phone:
        return self.chance.choice((iphone, android))()


def _instant(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
