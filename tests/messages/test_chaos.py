"""Messages at random, with API processes and listeners killed at random: every phone ends with the log, in order."""

import asyncio
import json
import os
import random
import secrets
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from simulator import Simulator
from tests.conftest import NewDatabase
from tests.servers import Part, free_port, part
from tests.stack import (
    UNLIMITED,
    Phone,
    Stack,
    StackPlace,
    User,
    android,
    eventually,
    iphone,
    make_app,
    make_stack,
    working,
)
from tests.talk import conversation_of, sync

pytestmark = pytest.mark.long

MESSAGES = int(os.environ.get("CHAOS_MESSAGES", "200"))  # `make chaos` says 2000
SEED = int(os.environ.get("CHAOS_SEED") or secrets.randbits(32))  # of all chance but the machine's own
KILLS = 1 + MESSAGES // 200
CONNECTED, ASLEEP, CONVERSATIONS, WRITERS = 50, 50, 60, 10
EACH = -(-MESSAGES // WRITERS)  # messages of one writer, at the least
PAUSE = 7.0 * KILLS / EACH  # seconds between them on average, while a cut and a kill take some 7 s
SILENT = 4.5  # seconds; whoever has not acknowledged a message by then may be pushed to

Item = tuple[int, str]  # sequence number and message id
Group = tuple[UUID, list[User]]  # a conversation and its members


@dataclass
class ApiProcesses:
    """Two API processes; one may be away."""

    stack: Stack
    leaving: AsyncExitStack
    http: httpx.AsyncClient
    processes: dict[int, Part] = field(default_factory=dict)  # by port
    spared: asyncio.Event = field(default_factory=asyncio.Event)  # nobody is killed any more
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def any(self, chance: random.Random) -> str:
        """Name one of them, dead or alive."""
        return f"http://127.0.0.1:{chance.choice(list(self.processes))}"

    async def start(self, port: int) -> None:
        """Start one, and wait until it serves."""
        settings = self.stack.place.environment(API_PORT=str(port), **UNLIMITED)
        self.processes[port] = await self.leaving.enter_async_context(part(settings, "-m", "api"))
        await self.processes[port].answers(f"http://127.0.0.1:{port}/readyz", within=60)

    async def kill_one(self, chance: random.Random) -> None:
        """Kill one of them, and start it again."""
        port = chance.choice(list(self.processes))
        await self.processes[port].end(signal.SIGKILL)
        await self.start(port)

    async def cut_a_listener(self, chance: random.Random) -> None:
        """End the connection on which one of them listens."""
        listeners = (
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE '%listener%' ORDER BY backend_start"
        )
        [pid] = chance.choice(await self.stack.rows(listeners))
        await self.stack.rows("SELECT pg_terminate_backend(:pid)", pid=pid)


@dataclass
class Listener:
    """A connected phone: follows its owner's log through any API process, and acknowledges what arrives."""

    user: User
    phone: Phone
    chance: random.Random
    items: list[Item] = field(default_factory=list)
    acknowledged_at: dict[str, float] = field(default_factory=dict)  # by message id
    away: list[tuple[float, float]] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def live(self, apis: ApiProcesses) -> None:
        """Stay connected until all is over."""
        lost_at = 0.0
        while not apis.over.is_set():
            with suppress(httpx.HTTPError):
                async with self._stream(apis) as lines:
                    self.away.append((lost_at, time.time()))
                    async for line in lines:
                        if line.startswith("data:"):
                            item = json.loads(line.removeprefix("data:"))
                            self.items.append((item["seq"], item["id"]))
                            self.arrived.set()
            lost_at = time.time()
            await asyncio.sleep(self.chance.uniform(0.05, 0.3))

    async def acknowledge(self, apis: ApiProcesses) -> None:
        """Say what has arrived, until all is over."""
        while await self.arrived.wait() and not apis.over.is_set():
            self.arrived.clear()
            new = [message_id for _, message_id in self.items if message_id not in self.acknowledged_at]
            query = f"installation_id={self.phone.installation_id}&after={self.items[-1][0]}&limit=1"
            try:
                answer = await apis.http.get(f"{apis.any(self.chance)}/v1/sync?{query}", headers=self.user.headers)
                answer.raise_for_status()
            except httpx.HTTPError:  # that API process is gone
                self.arrived.set()
            else:
                self.acknowledged_at |= dict.fromkeys(new, time.time())
            await asyncio.sleep(0.2)

    @asynccontextmanager
    async def _stream(self, apis: ApiProcesses) -> AsyncIterator[AsyncIterator[str]]:
        headers = {"Last-Event-ID": str(self.items[-1][0])} if self.items else {}
        url = f"{apis.any(self.chance)}/v1/stream?installation_id={self.phone.installation_id}"
        async with apis.http.stream("GET", url, headers=headers | self.user.headers) as answer:
            answer.raise_for_status()
            yield answer.aiter_lines()


@pytest.mark.timeout(600)
async def test_every_phone_ends_with_the_log_in_order_whatever_is_killed(
    new_database: NewDatabase, temporal: str, simulator: Simulator
) -> None:
    print(f"CHAOS_SEED={SEED} repeats what chance did")  # noqa: T201 (shown where it fails)
    chance = _chance_of("the test")
    place = StackPlace(await new_database("chaos"), temporal, "chaos", simulator)
    environment = place.environment(**UNLIMITED)
    app = make_app(place, **UNLIMITED)
    async with AsyncExitStack() as leaving, make_stack(place, app) as stack, working(stack, environment):
        http = await leaving.enter_async_context(
            httpx.AsyncClient(timeout=20, limits=httpx.Limits(max_connections=None))
        )
        apis = ApiProcesses(stack, leaving, http)
        await asyncio.gather(apis.start(free_port()), apis.start(free_port()))
        listeners, sleepers = _phones(stack, "listener", CONNECTED), _phones(stack, "sleeper", ASLEEP)
        people = [each.user for each in (*listeners, *sleepers)]
        for each in (*listeners, *sleepers):
            await each.user.register(each.phone)
        groups = [chance.sample(people, chance.choice((2, 2, 3, 4))) for _ in range(CONVERSATIONS)]
        conversations = [(await conversation_of(*members), members) for members in groups]

        living = [asyncio.create_task(each) for one in listeners for each in (one.live(apis), one.acknowledge(apis))]
        leaving.push_async_callback(_end, living)
        await eventually(lambda: _all_present(stack), within=60)
        writers = [_chance_of(f"writer {number}") for number in range(WRITERS)]
        writing = [asyncio.create_task(_write(apis, writer, conversations)) for writer in writers]
        leaving.push_async_callback(_end, writing)
        kills = []
        for _ in range(KILLS):
            await asyncio.sleep(chance.uniform(0.5, 3))
            await apis.cut_a_listener(chance)
            await asyncio.sleep(chance.uniform(0.5, 3))
            began = time.time()
            await apis.kill_one(chance)
            kills.append((began, time.time()))
        went_on = not any(each.done() for each in writing)
        apis.spared.set()
        accepted_at = [at for each in await asyncio.gather(*writing) for at in each]
        logs = await _logs(stack)
        await eventually(lambda: _have_all(listeners, logs), within=60)
        await eventually(lambda: _all_handed_off(stack), within=120)
        apis.over.set()
        for listener in listeners:
            listener.arrived.set()
        await asyncio.gather(*(process.end(signal.SIGTERM) for process in apis.processes.values()))
        await asyncio.gather(*living)

        assert went_on
        assert all(any(began < at < ended for at in accepted_at) for began, ended in kills)
        assert sum(len(log) for log in logs.values()) >= 2 * len(accepted_at) >= 2 * MESSAGES
        for listener in listeners:
            assert listener.items == logs.get(listener.user.user_id, [])
        for sleeper in sleepers:
            assert await _synced(sleeper) == logs.get(sleeper.user.user_id, [])
        await _check_screens(stack, simulator, sleepers)
        await _check_pushes(stack, listeners)


def _chance_of(whose: str) -> random.Random:
    """Give somebody a chance of their own, so that it does not depend on who is faster."""
    return random.Random(f"{SEED}/{whose}")


def _phones(stack: Stack, name: str, count: int) -> list[Listener]:
    return [
        Listener(stack.user(), iphone() if number % 2 else android(), _chance_of(f"{name} {number}"))
        for number in range(count)
    ]


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Leave nothing running behind a failure."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def _write(apis: ApiProcesses, chance: random.Random, conversations: Sequence[Group]) -> list[float]:
    """Post at leisure for as long as somebody is killed, and so many at the least; gives when each was accepted."""
    accepted_at: list[float] = []
    while len(accepted_at) < EACH or not apis.spared.is_set():
        conversation_id, members = chance.choice(conversations)
        await _post(apis, chance, conversation_id, chance.choice(members))
        accepted_at.append(time.time())
        with suppress(TimeoutError):
            await asyncio.wait_for(apis.spared.wait(), chance.uniform(0, 2 * PAUSE))
    return accepted_at


async def _post(apis: ApiProcesses, chance: random.Random, conversation_id: UUID, sender: User) -> None:
    """Post a message until it is accepted, through any API process."""
    path = f"/v1/conversations/{conversation_id}/messages/{uuid4()}"
    while True:
        address = apis.any(chance)
        try:
            answer = await apis.http.put(f"{address}{path}", json={"body": "Hello"}, headers=sender.headers)
        except httpx.TransportError:
            await asyncio.sleep(0.05)
            continue
        if answer.status_code in {200, 201}:
            break


async def _logs(stack: Stack) -> dict[str, list[Item]]:
    """Read what every log holds, in order."""
    logs: dict[str, list[Item]] = {}
    for row in await stack.rows("SELECT user_id, seq, message_id FROM log_items ORDER BY user_id, seq"):
        logs.setdefault(row.user_id, []).append((row.seq, str(row.message_id)))
    return logs


async def _all_present(stack: Stack) -> bool:
    return len(await stack.rows("SELECT 1 FROM presences WHERE expires_at > now()")) == CONNECTED


async def _have_all(listeners: Sequence[Listener], logs: dict[str, list[Item]]) -> bool:
    return all(len(each.items) >= len(logs.get(each.user.user_id, [])) for each in listeners)


async def _all_handed_off(stack: Stack) -> bool:
    owed = await stack.rows("SELECT 1 FROM outbox LIMIT 1")
    return not owed and not (await stack.temporal.count_workflows("ExecutionStatus = 'Running'")).count


async def _synced(sleeper: Listener) -> list[Item]:
    items: list[Item] = []
    has_more = True
    while has_more:
        page = await sync(sleeper.user, sleeper.phone.installation_id, after=len(items), limit=500)
        items += [(item["seq"], item["id"]) for item in page["items"]]
        has_more = page["has_more"]
    return items


async def _check_screens(stack: Stack, simulator: Simulator, sleepers: Sequence[Listener]) -> None:
    """Each sleeping phone shows one line for each conversation in which somebody else wrote."""
    others = (
        "SELECT DISTINCT conversation_id FROM messages m JOIN log_items i ON i.message_id = m.id"
        " WHERE i.user_id = :user AND m.sender_id <> :user"
    )
    for sleeper in sleepers:
        written = {str(row.conversation_id) for row in await stack.rows(others, user=sleeper.user.user_id)}
        token = sleeper.phone.token
        screen = simulator.phone(token).screen if simulator.requests.for_token(token) else ()
        lines = [line.notification.data["url"] for line in screen]
        assert sorted(lines) == sorted(f"fastbell://conversations/{each}" for each in written)


async def _check_pushes(stack: Stack, listeners: Sequence[Listener]) -> None:
    """A connected phone was pushed to only where it had stayed silent, or was away when the handoff was planned."""
    called = "SELECT * FROM push_tasks WHERE installation_id = :phone AND attempt_count > 0"
    for listener in listeners:
        for task in await stack.rows(called, phone=listener.phone.installation_id):
            heard = listener.acknowledged_at.get(str(task.message_id), time.time())
            silent = heard - task.due_at.timestamp() > SILENT
            planned_at = task.created_at.timestamp()
            assert silent or any(start - 1 < planned_at < end + 1 for start, end in listener.away)
