"""A worker process stands still as its reminders come due, for longer than Temporal waits, and goes on."""

import asyncio
import signal
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from simulator import Simulator
from tests.servers import part
from tests.stack import Stack, android, iphone, start_held

pytestmark = pytest.mark.long

FROZEN = 26  # seconds after the due instant: Temporal waits for 20, the worker itself for 5 more


@pytest.mark.timeout(120)
async def test_a_worker_that_stood_still_leaves_no_open_attempt_and_nothing_dead(
    without_worker: Stack, simulator: Simulator, worker_settings: Callable[[], dict[str, str]]
) -> None:
    people = [without_worker.user() for _ in range(8)]
    phones = [iphone() if n % 2 else android() for n in range(8)]
    for user, phone in zip(people, phones, strict=True):
        await user.register(phone)
    async with part(worker_settings(), "worker.py") as worker:
        await worker.says("worker ready")
        fasts = await start_held(*people, due_in=4.0)

        worker.process.send_signal(signal.SIGSTOP)
        due = "SELECT max(due_at) AS last FROM push_tasks WHERE conversation_id = ANY(:ids)"
        [due_at] = await without_worker.rows(due, ids=fasts)
        await asyncio.sleep((due_at.last - datetime.now(UTC)).total_seconds() + FROZEN)
        worker.process.send_signal(signal.SIGCONT)

        outcomes = await asyncio.gather(*(without_worker.finished(fast, within=40) for fast in fasts))
    rows = await without_worker.rows(
        "SELECT outcome, number FROM push_attempts JOIN push_tasks USING (task_id) WHERE conversation_id = ANY(:ids)",
        ids=fasts,
    )
    assert outcomes == ["accepted"] * 8
    assert [(row.outcome, row.number) for row in rows] == [("accepted", 1)] * 8
    for phone in phones:
        assert len(simulator.requests.for_token(phone.token)) == 1
