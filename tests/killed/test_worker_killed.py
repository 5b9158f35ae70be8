"""The worker dies, by force or on request, while it holds armed sends and while a call is under way."""

import asyncio
import signal
from collections.abc import Callable
from typing import Literal
from uuid import UUID

import pytest

from simulator import Simulator
from tests.busy import in_time, lead
from tests.events.feed import feed_of
from tests.servers import part
from tests.stack import Stack, android, eventually, iphone, start_held

pytestmark = pytest.mark.long

WorkerSettings = Callable[[], dict[str, str]]
_STARTED: Literal["activity_task_started_event_attributes"] = "activity_task_started_event_attributes"


@pytest.mark.timeout(90)
async def test_sends_held_and_under_way_in_a_killed_worker_show_once_within_25_seconds(
    without_worker: Stack, simulator: Simulator, worker_settings: WorkerSettings
) -> None:
    user = without_worker.user()
    called, held = iphone(), android()
    simulator.faults.add(provider="apns", token=called.token, fault="slow", delay=8, count=1)
    async with part(worker_settings(), "worker.py") as worker:
        await worker.says("worker ready")
        await user.register(called)
        being_called = await user.start_fast(due_in=1.0)
        await eventually(lambda: without_worker.holds_sends(being_called, 1), within=10)
        other = without_worker.user()
        await other.register(held)
        [being_held] = await start_held(other, due_in=4.0)
        await simulator.phones.received(called.token)  # the provider has it; its answer is on the way
        await worker.end(signal.SIGKILL)

    async with part(worker_settings(), "worker.py"):
        await asyncio.gather(
            without_worker.finished(being_called, within=40), without_worker.finished(being_held, within=40)
        )

    [task] = await without_worker.tasks(being_held)
    [request] = simulator.requests.for_token(held.token)
    assert task.state == "accepted"
    assert in_time((request.received_at - task.due_at).total_seconds(), 25.0)
    [line] = simulator.phone(called.token).screen
    for each in (user, other):
        assert [event["type"] for event in await feed_of(each)] == ["device_token.registered", "push.accepted"]
    [task] = await without_worker.tasks(being_called)
    attempts = "SELECT outcome, reason FROM push_attempts WHERE task_id = :id ORDER BY number"
    outcomes = [tuple(row) for row in await without_worker.rows(attempts, id=task.task_id)]
    assert (task.state, line.times_received) == ("accepted", 2)
    assert outcomes == [("unknown", "worker_lost"), ("accepted", None)]
    again = simulator.requests.for_token(called.token)[-1]
    assert in_time((again.received_at - task.due_at).total_seconds(), 25.0)


@pytest.mark.timeout(60)
async def test_a_worker_that_is_told_to_stop_hands_its_held_sends_to_another_in_time(
    without_worker: Stack, simulator: Simulator, worker_settings: WorkerSettings
) -> None:
    user, phones = without_worker.user(), [iphone(), android(), iphone(), android()]
    await user.register(*phones)
    async with part(worker_settings(), "worker.py") as one, part(worker_settings(), "worker.py") as other:
        for worker in (one, other):
            await worker.says("worker ready")
        session_id = await user.start_fast(due_in=10.0 + lead(12.0))
        # Told before they are due. A task given to a poller of a worker that was just killed comes again after 10 s.
        await eventually(lambda: without_worker.holds_sends(session_id, 4), within=18)
        holders = await _holders(without_worker, session_id)
        leaves, stays = (one, other) if one.process.pid in holders else (other, one)
        status = await leaves.end(signal.SIGTERM)
        await without_worker.finished(session_id)

    assert status == 0
    assert await _senders(without_worker, session_id) == {stays.process.pid}
    tasks = {task.installation_id: task for task in await without_worker.tasks(session_id)}
    for phone in phones:
        [request] = simulator.requests.for_token(phone.token)
        task = tasks[phone.installation_id]
        late = (request.received_at - task.due_at).total_seconds()
        assert late >= 0
        assert in_time(late, 2.0)
        assert task.attempt_count == 1


@pytest.mark.timeout(60)
async def test_a_worker_that_is_told_to_stop_while_it_calls_waits_for_the_answers(
    without_worker: Stack, simulator: Simulator, worker_settings: WorkerSettings
) -> None:
    user, phones = without_worker.user(), [iphone(), android()]
    await user.register(*phones)
    for phone in phones:
        simulator.faults.add(provider=phone.provider, token=phone.token, fault="slow", delay=2, count=1)
    async with part(worker_settings(), "worker.py") as worker:
        await worker.says("worker ready")
        session_id = await user.start_fast(due_in=1.0)
        for phone in phones:
            await simulator.phones.received(phone.token)  # the provider has it; its answer is on the way
        status = await worker.end(signal.SIGTERM)

    said = "".join(worker.lines)
    assert (status, "worker stopped" in said, "did not stop in time" in said) == (0, True, False)
    tasks = await without_worker.tasks(session_id)
    assert [(task.state, task.attempt_count) for task in tasks] == [("accepted", 1)] * 2
    async with part(worker_settings(), "worker.py"):
        assert await without_worker.finished(session_id) == "accepted"
    for phone in phones:
        [line] = simulator.phone(phone.token).screen
        assert (line.times_received, len(simulator.requests.for_token(phone.token))) == (1, 1)


async def _holders(stack: Stack, session_id: UUID) -> set[int]:
    """Find the processes that hold sends of a session."""
    pending = (await stack.workflow(session_id).describe()).raw_description.pending_activities
    return {int(each.last_worker_identity.split("@")[0]) for each in pending}


async def _senders(stack: Stack, session_id: UUID) -> set[int]:
    """Find the processes that made the sends of a session."""
    events = (await stack.workflow(session_id).fetch_history()).events
    started = (e.activity_task_started_event_attributes for e in events if e.HasField(_STARTED))
    return {int(each.identity.split("@")[0]) for each in started}
