"""The worker dies, by force or on request, while it holds armed sends and while a call is under way."""

import asyncio
import signal
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from simulator import Simulator
from tests.house import House, android, eventually, iphone
from tests.servers import part

WorkerSettings = Callable[[], dict[str, str]]


@pytest.mark.timeout(90)
async def test_sends_held_and_under_way_in_a_killed_worker_show_once_within_25_seconds(
    workerless: House, simulator: Simulator, worker_settings: WorkerSettings
) -> None:
    user = workerless.user()
    called, held = iphone(), android()
    simulator.faults.add(provider="apns", token=called.token, fault="slow", delay=8, count=1)
    async with part(worker_settings(), "worker.py") as worker:
        await worker.says("worker ready")
        await user.register(called)
        being_called = await user.start_fast(due_in=1.0)
        await eventually(lambda: workerless.holds_sends(being_called, 1), within=10)
        other = workerless.user()
        await other.register(held)
        being_held = await other.start_fast(due_in=4.0)
        await eventually(lambda: workerless.holds_sends(being_held, 1), within=10)
        await simulator.received(called.token)  # the provider has it; its answer is on the way
        await worker.end(signal.SIGKILL)

    async with part(worker_settings(), "worker.py"):
        await asyncio.gather(workerless.finished(being_called, within=40), workerless.finished(being_held, within=40))

    [task] = await workerless.tasks(being_held)
    [request] = simulator.requests.for_token(held.token)
    assert task.state == "accepted"
    assert (request.received_at - task.due_at).total_seconds() < 25
    [line] = simulator.phone(called.token).screen
    [task] = await workerless.tasks(being_called)
    attempts = "SELECT outcome, reason FROM push_attempts WHERE task_id = :id ORDER BY number"
    outcomes = [tuple(row) for row in await workerless.rows(attempts, id=task.task_id)]
    assert (task.state, line.times_received) == ("accepted", 2)
    assert outcomes == [("unknown", "worker_lost"), ("accepted", None)]
    assert (simulator.requests.for_token(called.token)[-1].received_at - task.due_at).total_seconds() < 25


@pytest.mark.timeout(60)
async def test_a_worker_that_is_told_to_stop_hands_its_held_sends_to_another_in_time(
    workerless: House, simulator: Simulator, worker_settings: WorkerSettings
) -> None:
    user, phones = workerless.user(), [iphone(), android()]
    await user.register(*phones)
    async with part(worker_settings(), "worker.py") as first:
        await first.says("worker ready")
        session_id = await user.start_fast(due_in=8.0)
        await eventually(lambda: workerless.holds_sends(session_id, 2), within=10)
        async with part(worker_settings(), "worker.py") as second:
            await second.says("worker ready")
            status = await first.end(signal.SIGTERM)
            stopped_at = datetime.now(UTC)
            await workerless.finished(session_id)

    tasks = await workerless.tasks(session_id)
    assert status == 0
    assert stopped_at < tasks[0].due_at
    for phone, task in zip(phones, tasks, strict=True):
        [request] = simulator.requests.for_token(phone.token)
        assert 0 <= (request.received_at - task.due_at).total_seconds() < 1
        assert task.attempt_count == 1
