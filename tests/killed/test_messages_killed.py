"""Messages, with a part of the system killed at the worst moment: accepted once, pushed, one line."""

import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from uuid import uuid4

import httpx
import pytest

from simulator import Simulator
from tests.busy import ANSWERED_WITHIN
from tests.conftest import NewDatabase
from tests.servers import TemporalServer, free_port, part
from tests.stack import Stack, StackPlace, eventually, iphone, make_app, make_stack, temporal_client, working
from tests.talk import conversation_of, handed_off, posted, tasks_of

pytestmark = pytest.mark.long

WorkerSettings = Callable[[], dict[str, str]]


async def test_a_message_accepted_by_an_api_process_that_died_before_dispatch_is_pushed_all_the_same(
    without_worker: Stack, simulator: Simulator, worker_settings: WorkerSettings
) -> None:
    alice, bob, phone, message_id, port = without_worker.user(), without_worker.user(), iphone(), uuid4(), free_port()
    await bob.register(phone)
    conversation_id = await conversation_of(alice, bob)
    silent = socket.create_server(("127.0.0.1", 0))  # the kernel takes connections, and that is all
    silent_address = f"127.0.0.1:{silent.getsockname()[1]}"
    settings = without_worker.place.environment(API_PORT=str(port), TEMPORAL_ADDRESS=silent_address)
    async with (
        part(settings, "-m", "api") as api,
        httpx.AsyncClient(headers=alice.headers, timeout=ANSWERED_WITHIN) as http,
    ):
        await api.answers(f"http://127.0.0.1:{port}/readyz")
        path = f"/v1/conversations/{conversation_id}/messages/{message_id}"
        answer = await http.put(f"http://127.0.0.1:{port}{path}", json={"body": "Hello"})
        await api.end(signal.SIGKILL)
    silent.close()

    assert answer.status_code == 201
    assert await without_worker.rows("SELECT 1 FROM outbox WHERE subject_id = :id", id=message_id)
    async with part(worker_settings(), "worker.py"):
        assert await handed_off(without_worker, message_id) == "accepted"
    assert len(simulator.requests.for_token(phone.token)) == 1


@pytest.mark.timeout(90)
async def test_a_push_under_way_in_a_killed_worker_shows_as_one_line(
    without_worker: Stack, simulator: Simulator, worker_settings: WorkerSettings
) -> None:
    alice, bob, phone = without_worker.user(), without_worker.user(), iphone()
    await bob.register(phone)
    conversation_id = await conversation_of(alice, bob)
    simulator.faults.add(provider="apns", token=phone.token, fault="slow", delay=8, count=1)
    async with part(worker_settings(), "worker.py") as worker:
        await worker.says("worker ready")
        message_id = await posted(alice, conversation_id)
        await simulator.phones.received(phone.token)  # the provider has it; its answer is on the way
        await worker.end(signal.SIGKILL)

    async with part(worker_settings(), "worker.py"):
        assert await handed_off(without_worker, message_id, within=60) == "accepted"

    [task] = await tasks_of(without_worker, message_id)
    attempts = "SELECT outcome, reason FROM push_attempts WHERE task_id = :id ORDER BY number"
    outcomes = [tuple(row) for row in await without_worker.rows(attempts, id=task.task_id)]
    [line] = simulator.phone(phone.token).screen
    assert (task.state, task.attempt_count, line.times_received) == ("accepted", 2, 2)
    assert outcomes == [("unknown", "worker_lost"), ("accepted", None)]


@pytest.mark.timeout(90)
async def test_messages_are_accepted_and_synced_without_temporal_and_pushed_once_it_is_back(
    new_database: NewDatabase, simulator: Simulator, server: TemporalServer
) -> None:
    place = StackPlace(await new_database("messages_away"), server.address, "default", simulator)
    environment = place.environment()
    app = make_app(place)
    async with make_stack(place, app, lazy=True) as api_stack:
        alice, bob = api_stack.user(), api_stack.user()
        synced, asleep = iphone(), iphone()
        await bob.register(synced, asleep)
        conversation_id = await conversation_of(alice, bob)
        message_ids = [await posted(alice, conversation_id, f"number {n}") for n in range(3)]
        read = await bob.call("GET", f"/v1/sync?installation_id={synced.installation_id}")
        await bob.call("GET", f"/v1/sync?installation_id={synced.installation_id}&after={read.json()['next_cursor']}")

        await server.run()
        stack = replace(api_stack, temporal=await temporal_client(place))
        async with working(stack, environment):
            for message_id in message_ids:
                await handed_off(stack, message_id)
            await eventually(lambda: _nothing_owed(stack))

    assert [item["body"] for item in read.json()["items"]] == ["number 0", "number 1", "number 2"]
    assert not simulator.requests.for_token(synced.token)
    assert len(simulator.phone(asleep.token).screen) == 1


async def _nothing_owed(stack: Stack) -> bool:
    return not await stack.rows("SELECT 1 FROM outbox")
