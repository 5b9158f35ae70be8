"""Lives people's lives over HTTP, and notes what they asked and what they were answered."""

import asyncio
import json
import math
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx

from tests.chaos.judge import Fast, Handset, Log, Post, Run, Said, Told
from tests.chaos.plan import Act, Life, Plan, PlannedPhone, Step
from tests.stack import bearer

MINUTES = 10  # before the end of a fast: how long its reminder is useful
_BATCH = 500
_LATER = frozenset({429, 503})  # the API asks to try again
_PATIENCE = 60.0  # seconds for one answer; longer than anything is frozen, so no request is given up while it waits
_AT_ONCE = 100  # requests to one API process; the client's own queue takes the longer, the longer it is
_CUT_OFF = (httpx.TransportError, AttributeError)  # anyio raises the latter for a connection that dies as it is made

Item = tuple[int, UUID]


@dataclass
class People:
    """Everybody, and what can be seen of them."""

    plan: Plan
    apis: Sequence[str]
    http: httpx.AsyncClient
    run: Run
    chance: random.Random
    over: asyncio.Event = field(default_factory=asyncio.Event)
    origin: float = 0.0  # UNIX seconds: when the run starts
    streamed: dict[str, list[Item]] = field(default_factory=dict)  # by user
    _bearers: dict[str, str] = field(default_factory=dict)
    _turns: dict[str, asyncio.Semaphore] = field(
        default_factory=lambda: defaultdict(lambda: asyncio.Semaphore(_AT_ONCE))
    )

    async def sign_in(self) -> None:
        """Register every phone and make the conversations, before the run starts."""
        everybody = [(life.user_id, phone) for life in self.plan.lives for phone in life.phones]
        noted = []
        for user_id, phone in everybody:
            handset = self.run.handsets[phone.token] = Handset(phone.token)
            noted.append(_note(handset.holders, user_id))
        rows = [
            {"user_id": user_id, "op": "register"} | _registration(phone, with_id=True) for user_id, phone in everybody
        ]
        await self._batch("/v1/device-tokens/batch", rows, noted)
        for conversation_id, members in self.plan.conversations.items():
            self.run.members[conversation_id] = frozenset(members)
            body = {"member_ids": list(members)}
            await self._ask("backend", "PUT", f"/v1/conversations/{conversation_id}", body)

    async def live(self, origin: float) -> None:
        """Live everybody's life from that instant on."""
        self.origin = origin
        early = [life for life in self.plan.lives if life.starts and not life.starts.at]
        rows, noted = [], []
        for life in early:
            if life.starts:
                fast = self.run.fasts[life.session_id] = Fast(life.user_id)
                noted.append(_note(fast.goals, self.origin + life.starts.due))
                named = {"user_id": life.user_id, "session_id": str(life.session_id), "op": "start"}
                rows.append(named | self._goal(life.starts) | {"reminder_minutes": [MINUTES]})
        async with asyncio.TaskGroup() as group:
            group.create_task(self._batch("/v1/fasting-sessions/batch", rows, noted))
            for life in self.plan.lives:
                group.create_task(self._live(life))

    async def follow(self, life: Life) -> None:
        """Follow somebody's log on a connected phone until all is over, and acknowledge what arrives."""
        items, arrived = self.streamed.setdefault(life.user_id, []), asyncio.Event()
        acknowledging = asyncio.create_task(self._acknowledge(life, items, arrived))
        try:
            while not self.over.is_set():
                with suppress(httpx.HTTPError, *_CUT_OFF):
                    async with self._stream(life, items) as lines:
                        async for line in lines:
                            if line.startswith("data:"):
                                item = json.loads(line.removeprefix("data:"))
                                items.append((item["seq"], UUID(item["id"])))
                                arrived.set()
                await asyncio.sleep(self.chance.uniform(0.05, 0.3))
        finally:
            acknowledging.cancel()
            await asyncio.gather(acknowledging, return_exceptions=True)

    async def logs(self) -> list[Log]:
        """Read the whole log of everybody who is in a conversation and has kept the first phone."""
        talkers = {member for members in self.plan.conversations.values() for member in members}
        found = []
        for life in self.plan.lives:
            if life.user_id in talkers and not {step.act for step in life.steps} & {Act.SIGN_OUT, Act.SWITCH}:
                items, _ = await self._read_log(life, 0)
                found.append(Log(life.user_id, tuple(items)))
        return found

    async def ask_what_is_so(self) -> Told:
        """Ask what the API holds: the fast of everybody, and who is signed in on each phone."""
        fasts: dict[UUID, float | None] = {}
        holders: dict[str, set[str]] = {phone.token: set() for life in self.plan.lives for phone in life.phones}
        tokens = {str(phone.installation_id): phone.token for life in self.plan.lives for phone in life.phones}

        async def ask(life: Life) -> None:
            async with places:
                if life.session_id in self.run.fasts:
                    answer = await self._ask(life.user_id, "GET", f"/v1/fasting-sessions/{life.session_id}")
                    if answer.is_success:
                        fasts[life.session_id] = _due(answer.json())
                for row in (await self._ask(life.user_id, "GET", "/v1/device-tokens")).json()["items"]:
                    if row["active"]:
                        holders[tokens[row["installation_id"]]].add(life.user_id)

        places = asyncio.Semaphore(20)
        async with asyncio.TaskGroup() as group:
            for life in self.plan.lives:
                group.create_task(ask(life))
        return Told(fasts, {token: frozenset(users) for token, users in holders.items()})

    async def _live(self, life: Life) -> None:
        cursor = 0
        for step in life.steps:
            await asyncio.sleep(self.origin + step.at - time.time())
            match step.act:
                case Act.START | Act.MOVE | Act.END | Act.CANCEL:
                    await self._fast(life, step)
                case Act.SIGN_OUT:
                    await self._hold(life.phones[step.phone], None, life.user_id)
                case Act.SIGN_IN:
                    await self._hold(life.phones[step.phone], life.user_id, life.user_id)
                case Act.SWITCH:
                    await self._hold(life.phones[step.phone], life.partner_id, life.partner_id)
                case Act.WRITE:
                    await self._write(life, step)
                case Act.READ:
                    cursor = await self._read(life, cursor)

    async def _fast(self, life: Life, step: Step) -> None:
        """Start a fast, move its goal, end or cancel it."""
        if step.act is Act.START and not step.at:  # in the batch; whatever follows waits for that
            while self.run.fasts[life.session_id].goals[0].answered_at == math.inf:
                await asyncio.sleep(0.05)
            return
        fast = self.run.fasts.setdefault(life.session_id, Fast(life.user_id))
        is_over = step.act in {Act.END, Act.CANCEL}
        done = _note(fast.goals, None if is_over else self.origin + step.due)
        path = f"/v1/fasting-sessions/{life.session_id}"
        match step.act:
            case Act.START:
                await self._ask(life.user_id, "PUT", path, self._goal(step) | {"reminder_minutes": [MINUTES]})
            case Act.MOVE:
                await self._ask(life.user_id, "PATCH", path, self._goal(step))
            case _:
                await self._ask(life.user_id, "POST", f"{path}/{step.act}")
        done()

    async def _write(self, life: Life, step: Step) -> None:
        assert step.id is not None
        assert step.message_id is not None
        done = _note(self.run.posts, Post(step.message_id, step.id, life.user_id))
        path = f"/v1/conversations/{step.id}/messages/{step.message_id}"
        await self._ask(life.user_id, "PUT", path, {"body": "Hello"})
        done()

    async def _hold(self, phone: PlannedPhone, holder: str | None, caller: str) -> None:
        """Sign in on a phone, or out of it."""
        done = _note(self.run.handsets[phone.token].holders, holder)
        path = f"/v1/device-tokens/{phone.installation_id}"
        if holder is None:
            await self._ask(caller, "DELETE", path)
        else:
            await self._ask(caller, "PUT", path, _registration(phone))
        done()

    async def _read(self, life: Life, cursor: int) -> int:
        """Sync, and acknowledge what was read."""
        items, cursor = await self._read_log(life, cursor)
        if items:
            phone = life.phones[0]
            done = _note(self.run.handsets[phone.token].reads, frozenset(message_id for _, message_id in items))
            query = f"installation_id={phone.installation_id}&after={cursor}&limit=1"
            await self._ask(life.user_id, "GET", f"/v1/sync?{query}")
            done()
        return cursor

    async def _read_log(self, life: Life, cursor: int) -> tuple[list[Item], int]:
        """Read a log; each page acknowledges the one before."""
        items: list[Item] = []
        while True:
            query = f"installation_id={life.phones[0].installation_id}&after={cursor}&limit=500"
            page = (await self._ask(life.user_id, "GET", f"/v1/sync?{query}")).json()
            items += [(item["seq"], UUID(item["id"])) for item in page["items"]]
            cursor = page["next_cursor"]
            if not page["has_more"]:
                return items, cursor

    @asynccontextmanager
    async def _stream(self, life: Life, items: Sequence[Item]) -> AsyncIterator[AsyncIterator[str]]:
        headers = self._headers(life.user_id) | ({"Last-Event-ID": str(items[-1][0])} if items else {})
        url = f"{self.chance.choice(self.apis)}/v1/stream?installation_id={life.phones[0].installation_id}"
        async with self.http.stream("GET", url, headers=headers) as answer:
            answer.raise_for_status()
            yield answer.aiter_lines()

    async def _acknowledge(self, life: Life, items: Sequence[Item], arrived: asyncio.Event) -> None:
        while await arrived.wait():
            arrived.clear()
            seen = list(items)
            phone = life.phones[0]
            done = _note(self.run.handsets[phone.token].reads, frozenset(message_id for _, message_id in seen))
            query = f"installation_id={phone.installation_id}&after={seen[-1][0]}&limit=1"
            await self._ask(life.user_id, "GET", f"/v1/sync?{query}")
            done()
            await asyncio.sleep(0.2)

    async def _batch(self, path: str, rows: Sequence[object], noted: Sequence[Callable[[], None]]) -> None:
        """Do it all in batches, each item until it is done."""
        for first in range(0, len(rows), _BATCH):
            left = list(range(first, min(first + _BATCH, len(rows))))
            while left:
                answer = await self._ask("backend", "POST", path, {"items": [rows[place] for place in left]})
                results = dict(zip(left, answer.json()["items"], strict=True))
                for place, result in results.items():
                    if result["status"] in {200, 201}:
                        noted[place]()
                    elif result["status"] not in _LATER:
                        self.run.odd_answers.append(f"{path}: {result}")
                left = [place for place, result in results.items() if result["status"] in _LATER]

    async def _ask(self, user_id: str, method: str, path: str, body: object = None) -> httpx.Response:
        """Ask any API process until there is an answer."""
        while True:
            with suppress(*_CUT_OFF):
                api = self.chance.choice(self.apis)
                async with self._turns[api]:
                    answer = await self.http.request(method, api + path, json=body, headers=self._headers(user_id))
                if answer.is_success:
                    return answer
                if answer.status_code not in _LATER:
                    self.run.odd_answers.append(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
                if answer.is_client_error and answer.status_code not in _LATER:
                    return answer
            await asyncio.sleep(self.chance.uniform(0.1, 0.5))

    def _headers(self, user_id: str) -> dict[str, str]:
        if user_id not in self._bearers:
            scopes = ("service",) if user_id == "backend" else ()
            self._bearers[user_id] = f"Bearer {bearer(user_id, *scopes, expires_in=timedelta(hours=4))}"
        return {"Authorization": self._bearers[user_id]}

    def _goal(self, step: Step) -> dict[str, object]:
        ends_at = datetime.fromtimestamp(self.origin + step.due, UTC) + timedelta(minutes=MINUTES)
        return {"ends_at": ends_at.isoformat()}


@asynccontextmanager
async def clients() -> AsyncIterator[httpx.AsyncClient]:
    """Open what everybody asks through."""
    limits = httpx.Limits(max_connections=300, max_keepalive_connections=100)
    async with httpx.AsyncClient(timeout=_PATIENCE, limits=limits, trust_env=False) as http:
        yield http


def _registration(phone: PlannedPhone, *, with_id: bool = False) -> dict[str, str]:
    body = {"provider": phone.provider, "token": phone.token}
    return {**body, "installation_id": str(phone.installation_id)} if with_id else body


def _due(fast: Mapping[str, Any]) -> float | None:
    if fast["status"] != "active":
        return None
    return (datetime.fromisoformat(fast["ends_at"]) - timedelta(minutes=MINUTES)).timestamp()


def _note(history: list[Said[Any]], what: object) -> Callable[[], None]:
    """Note that somebody asks for something; gives what notes that it was answered."""
    place, asked_at = len(history), time.time()
    history.append(Said(asked_at, math.inf, what))

    def answered() -> None:
        history[place] = Said(asked_at, time.time(), what)

    return answered
