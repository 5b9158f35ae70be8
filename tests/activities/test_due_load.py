"""Sends that are due at one instant: what counts as load, and what waits for it."""

import asyncio

import pytest

from fleet import due_load
from fleet.due_load import DueLoad
from simulator import Simulator
from tests.routes.worker_harness import due_now, worker_harness
from tests.stack import Stack, eventually, iphone


async def test_a_send_that_waits_for_its_instant_is_no_load() -> None:
    load = DueLoad()

    with load.taking_part():
        with load.not_yet():
            await load.over()
            assert not load.is_near()
        assert load.is_near()


async def test_an_acceptance_is_on_record_while_others_are_due_and_reported_after_them(
    stack: Stack, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due_load, "MAX_DELAY", 60.0)
    phone = iphone()
    [due] = await due_now(stack, [phone])
    accepted = "SELECT 1 FROM push_tasks WHERE task_id = :id AND state = 'accepted'"

    async with worker_harness(stack) as worker:
        with worker.dependencies.due_load.taking_part():
            sending = asyncio.ensure_future(worker.send_once(due))
            await eventually(lambda: stack.rows(accepted, id=due.task_id))
            assert not sending.done()
        await sending

    assert len(simulator.requests.for_token(phone.token)) == 1
