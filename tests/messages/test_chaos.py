"""Messages at random, with API processes and listeners killed at random: every phone ends with the log, in order."""

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import httpx
import pytest

from api.app import create_app
from config import auth_settings, service_settings
from simulator import Simulator
from tests.conftest import NewDatabase
from tests.house import House, Phone, Place, User, android, eventually, iphone, make_house, working
from tests.servers import Part, free_port, part
from tests.talk import conversation_of, sync

MESSAGES = int(os.environ.get("CHAOS_MESSAGES", "200"))  # `make chaos` says 2000
KILLS = 1 + MESSAGES // 200
CONNECTED, ASLEEP, CONVERSATIONS, WRITERS = 50, 50, 60, 10
SILENT = 4.5  # seconds; whoever has not acknowledged a message by then may be pushed to

Item = tuple[int, str]  # sequence number and message id


@dataclass
class Doors:
    """Two API processes; one may be away."""

    house: House
    chance: random.Random
    leaving: AsyncExitStack
    http: httpx.AsyncClient
    processes: dict[int, Part] = field(default_factory=dict)  # by port
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def any(self) -> str:
        """Name one of them, dead or alive."""
        return f"http://127.0.0.1:{self.chance.choice(list(self.processes))}"

    async def start(self, port: int) -> None:
        """Start one, and wait until it serves."""
        settings = self.house.place.environment(API_PORT=str(port))
        self.processes[port] = await self.leaving.enter_async_context(part(settings, "-m", "api"))
        await self.processes[port].answers(f"http://127.0.0.1:{port}/readyz", within=60)

    async def kill_one(self) -> None:
        """Kill one of them, and start it again."""
        port = self.chance.choice(list(self.processes))
        await self.processes[port].end(signal.SIGKILL)
        await self.start(port)

    async def cut_a_listener(self) -> None:
        """End the connection on which one of them listens."""
        listeners = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE '%listener%' ORDER BY random() LIMIT 1"
        )
        assert await self.house.rows(listeners)


@dataclass
class Listener:
    """A connected phone: follows its owner's log through any door, and acknowledges what arrives."""

    user: User
    phone: Phone
    items: list[Item] = field(default_factory=list)
    acknowledged_at: dict[str, float] = field(default_factory=dict)  # by message id
    away: list[tuple[float, float]] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def live(self, doors: Doors) -> None:
        """Stay connected until all is over."""
        lost_at = 0.0
        while not doors.over.is_set():
            with suppress(httpx.HTTPError):
                async with self._stream(doors) as lines:
                    self.away.append((lost_at, time.time()))
                    async for line in lines:
                        if line.startswith("data:"):
                            item = json.loads(line.removeprefix("data:"))
                            self.items.append((item["seq"], item["id"]))
                            self.arrived.set()
            lost_at = time.time()
            await asyncio.sleep(doors.chance.uniform(0.05, 0.3))

    async def acknowledge(self, doors: Doors) -> None:
        """Say what has arrived, until all is over."""
        while await self.arrived.wait() and not doors.over.is_set():
            self.arrived.clear()
            new = [message_id for _, message_id in self.items if message_id not in self.acknowledged_at]
            query = f"installation_id={self.phone.installation_id}&after={self.items[-1][0]}&limit=1"
            try:
                answer = await doors.http.get(f"{doors.any()}/v1/sync?{query}", headers=self.user.headers)
                answer.raise_for_status()
            except httpx.HTTPError:  # that door is closed
                self.arrived.set()
            else:
                self.acknowledged_at |= dict.fromkeys(new, time.time())
            await asyncio.sleep(0.2)

    @asynccontextmanager
    async def _stream(self, doors: Doors) -> AsyncIterator[AsyncIterator[str]]:
        headers = {"Last-Event-ID": str(self.items[-1][0])} if self.items else {}
        url = f"{doors.any()}/v1/stream?installation_id={self.phone.installation_id}"
        async with doors.http.stream("GET", url, headers=headers | self.user.headers) as answer:
            answer.raise_for_status()
            yield answer.aiter_lines()


@pytest.mark.timeout(600)
async def test_every_phone_ends_with_the_log_in_order_whatever_is_killed(
    new_database: NewDatabase, temporal: str, simulator: Simulator
) -> None:
    chance = random.Random()
    place = Place(await new_database("chaos"), temporal, "chaos", simulator)
    environment = place.environment()
    app = create_app(service_settings(environment), auth_settings(environment))
    async with AsyncExitStack() as leaving, make_house(place, app) as house, working(house, environment):
        http = await leaving.enter_async_context(
            httpx.AsyncClient(timeout=20, limits=httpx.Limits(max_connections=None))
        )
        doors = Doors(house, chance, leaving, http)
        await asyncio.gather(doors.start(free_port()), doors.start(free_port()))
        listeners = [Listener(house.user(), _phone(number)) for number in range(CONNECTED)]
        sleepers = [Listener(house.user(), _phone(number)) for number in range(ASLEEP)]
        people = [each.user for each in (*listeners, *sleepers)]
        for each in (*listeners, *sleepers):
            await each.user.register(each.phone)
        groups = [chance.sample(people, chance.choice((2, 2, 3, 4))) for _ in range(CONVERSATIONS)]
        conversations = {await conversation_of(*members): members for members in groups}

        living = [asyncio.create_task(each) for one in listeners for each in (one.live(doors), one.acknowledge(doors))]
        await eventually(lambda: _all_present(house), within=60)
        turns = iter([chance.choice(list(conversations.items())) for _ in range(MESSAGES)])
        writing = [asyncio.create_task(_write(doors, turns)) for _ in range(WRITERS)]
        for _ in range(KILLS):
            await asyncio.sleep(chance.uniform(1, 4))
            await doors.cut_a_listener()
            await asyncio.sleep(chance.uniform(1, 4))
            await doors.kill_one()
        await asyncio.gather(*writing)
        logs = await _logs(house)
        await eventually(lambda: _have_all(listeners, logs), within=60)
        await eventually(lambda: _all_handed_off(house), within=120)
        doors.over.set()
        for listener in listeners:
            listener.arrived.set()
        await asyncio.gather(*(process.end(signal.SIGTERM) for process in doors.processes.values()))
        await asyncio.gather(*living)

        assert sum(len(log) for log in logs.values()) >= 2 * MESSAGES
        for listener in listeners:
            assert listener.items == logs.get(listener.user.user_id, [])
        for sleeper in sleepers:
            assert await _synced(sleeper) == logs.get(sleeper.user.user_id, [])
        await _check_screens(house, simulator, sleepers)
        await _check_pushes(house, listeners)


def _phone(number: int) -> Phone:
    return iphone() if number % 2 else android()


async def _write(doors: Doors, turns: Iterator[tuple[UUID, list[User]]]) -> None:
    """Post, each message until it is accepted, through any door."""
    for conversation_id, members in turns:
        sender, path = doors.chance.choice(members), f"/v1/conversations/{conversation_id}/messages/{uuid4()}"
        while True:
            try:
                answer = await doors.http.put(f"{doors.any()}{path}", json={"body": "Hello"}, headers=sender.headers)
            except httpx.TransportError:
                await asyncio.sleep(0.05)
                continue
            if answer.status_code in {200, 201}:
                break


async def _logs(house: House) -> dict[str, list[Item]]:
    """Read what every log holds, in order."""
    logs: dict[str, list[Item]] = {}
    for row in await house.rows("SELECT user_id, seq, message_id FROM log_items ORDER BY user_id, seq"):
        logs.setdefault(row.user_id, []).append((row.seq, str(row.message_id)))
    return logs


async def _all_present(house: House) -> bool:
    return len(await house.rows("SELECT 1 FROM presences WHERE expires_at > now()")) == CONNECTED


async def _have_all(listeners: Sequence[Listener], logs: dict[str, list[Item]]) -> bool:
    return all(len(each.items) >= len(logs.get(each.user.user_id, [])) for each in listeners)


async def _all_handed_off(house: House) -> bool:
    owed = await house.rows("SELECT 1 FROM outbox LIMIT 1")
    return not owed and not (await house.temporal.count_workflows("ExecutionStatus = 'Running'")).count


async def _synced(sleeper: Listener) -> list[Item]:
    items: list[Item] = []
    has_more = True
    while has_more:
        page = await sync(sleeper.user, sleeper.phone.installation_id, after=len(items), limit=500)
        items += [(item["seq"], item["id"]) for item in page["items"]]
        has_more = page["has_more"]
    return items


async def _check_screens(house: House, simulator: Simulator, sleepers: Sequence[Listener]) -> None:
    """Each sleeping phone shows one line for each conversation in which somebody else wrote."""
    others = (
        "SELECT DISTINCT conversation_id FROM messages m JOIN log_items i ON i.message_id = m.id"
        " WHERE i.user_id = :user AND m.sender_id <> :user"
    )
    for sleeper in sleepers:
        written = {str(row.conversation_id) for row in await house.rows(others, user=sleeper.user.user_id)}
        token = sleeper.phone.token
        screen = simulator.phone(token).screen if simulator.requests.for_token(token) else ()
        lines = [line.notification.data["url"] for line in screen]
        assert sorted(lines) == sorted(f"fastbell://conversations/{each}" for each in written)


async def _check_pushes(house: House, listeners: Sequence[Listener]) -> None:
    """A connected phone was pushed to only where it had stayed silent, or was away when the handoff was planned."""
    called = "SELECT * FROM push_tasks WHERE installation_id = :phone AND attempt_count > 0"
    for listener in listeners:
        for task in await house.rows(called, phone=listener.phone.installation_id):
            heard = listener.acknowledged_at.get(str(task.message_id), time.time())
            silent = heard - task.due_at.timestamp() > SILENT
            planned_at = task.created_at.timestamp()
            assert silent or any(start - 1 < planned_at < end + 1 for start, end in listener.away)
