"""A page of a large message that somebody terminates is started again: its pushes need not wait for the others."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import CancelledError
from temporalio.testing import TimeSkipper, TimeSkippingConfig

from activities.handoff import PAGE
from dispatch.relay import Relay
from simulator import Simulator
from tests.busy import soon
from tests.conftest import NewDatabase
from tests.housekeeping.sweeps import AGO, aged, change, sweep
from tests.stack import Stack, StackPlace, eventually, make_app, make_stack, open_stack
from tests.talk import conversation_of, give_phones, handed_off, handoff, posted, tasks_of
from workflows.message_handoff import PAGE_STARTS

READERS = 51  # with two phones each: a page of 100 pushes, all those to iPhones among them, and one of 2


@pytest.fixture(scope="module")
async def stack(new_database: NewDatabase, temporal: str, simulator: Simulator) -> AsyncIterator[Stack]:
    """A stack for these tests alone: a sweep starts again whatever other tests have left without a workflow."""
    place = StackPlace(await new_database("pages"), temporal, "pages", simulator)
    async with open_stack(place, MESSAGE_RATE="0") as stack:
        yield stack


@pytest.fixture
async def skipper(stack: Stack) -> AsyncIterator[tuple[Stack, TimeSkipper]]:
    """Another API process of the stack, whose workflows start with a clock of their own."""
    skipper = TimeSkipper(stack.temporal, config=TimeSkippingConfig(enabled=False))
    app = make_app(stack.place)
    async with make_stack(stack.place, app) as api_stack:
        app.state.services = replace(app.state.services, relay=Relay(stack.sessions, skipper.client, arm_window=0))
        yield api_stack, skipper


async def test_a_page_that_was_terminated_is_started_again_and_sends_each_push_once(
    stack: Stack, simulator: Simulator, skipper: tuple[Stack, TimeSkipper]
) -> None:
    api_stack, clock = skipper
    message_id, tokens = await _waiting(api_stack, simulator, READERS)

    await _page(stack, message_id).terminate()
    simulator.faults.clear()
    await clock.fast_forward(handoff(stack, message_id))

    assert await handed_off(stack, message_id) == "accepted"
    assert [task.state for task in await tasks_of(stack, message_id)] == ["accepted"] * 2 * READERS
    assert {len(simulator.phone(token).log) for token in tokens} == {1}


async def test_whoever_terminates_a_page_again_and_again_is_left_alone_and_the_orphan_sweep_has_its_pushes(
    stack: Stack, simulator: Simulator, skipper: tuple[Stack, TimeSkipper]
) -> None:
    api_stack, clock = skipper
    message_id, _ = await _waiting(api_stack, simulator, 1)
    page = _page(stack, message_id)

    async def runs() -> bool:
        return (await page.describe()).status is WorkflowExecutionStatus.RUNNING

    skipping = asyncio.create_task(clock.fast_forward(handoff(stack, message_id)))
    for _ in range(PAGE_STARTS):
        await eventually(runs)
        await page.terminate()
    assert await handed_off(stack, message_id) == "accepted"  # the result of the others
    await skipping

    assert await _swept(stack, message_id) == ("dead", "TooManyRequests")


async def test_a_handoff_that_is_cancelled_starts_no_page_again(stack: Stack, simulator: Simulator) -> None:
    message_id, _ = await _waiting(stack, simulator, 1)

    await handoff(stack, message_id).cancel()
    with pytest.raises(WorkflowFailureError) as failed:
        async with soon(15):
            await handoff(stack, message_id).result()

    assert isinstance(failed.value.cause, CancelledError)
    assert (await _page(stack, message_id).describe()).status is WorkflowExecutionStatus.CANCELED
    assert await _swept(stack, message_id) == ("dead", "TooManyRequests")


def _page(stack: Stack, message_id: UUID) -> WorkflowHandle[Any, Any]:
    return stack.temporal.get_workflow_handle(f"message-handoff/{message_id}/1")


async def _waiting(stack: Stack, simulator: Simulator, count: int) -> tuple[UUID, list[str]]:
    """Post to a crowd of which so many iPhones are refused, until only those wait; gives the message and all tokens."""
    crowd = [stack.user() for _ in range(1 + READERS)]
    await give_phones(stack, crowd)
    theirs = "SELECT provider, token FROM device_tokens WHERE user_id = ANY(:ids) ORDER BY provider"
    phones = await stack.rows(theirs, ids=[user.user_id for user in crowd[1:]])
    for _, token in phones[:count]:
        simulator.faults.add(provider="apns", token=token, fault="answer", status=429, reason="TooManyRequests")
    message_id = await posted(crowd[0], await conversation_of(*crowd))

    async def only_those_wait() -> bool:
        tasks = await tasks_of(stack, message_id)
        states = Counter((task.state, task.last_reason) for task in tasks)
        return states == {("accepted", None): 2 * READERS - count, ("pending", "TooManyRequests"): count}

    await eventually(only_those_wait)
    assert len(phones) > PAGE
    return message_id, [token for _, token in phones]


async def _swept(stack: Stack, message_id: UUID) -> tuple[str, str]:
    """Sweep until nobody waits for a call that was under way; gives what became of the one push that waited."""
    [waiting] = [task for task in await tasks_of(stack, message_id) if task.state == "pending"]
    await change(stack, f"UPDATE push_tasks SET due_at = {AGO} WHERE task_id = :id", id=waiting.task_id)

    async def swept() -> tuple[str, str] | None:
        await aged(stack, waiting.task_id)
        await sweep(stack)
        [row] = await stack.rows("SELECT state, last_reason FROM push_tasks WHERE task_id = :id", id=waiting.task_id)
        return None if row.state == "pending" else (row.state, row.last_reason)

    found: tuple[str, str] = await eventually(swept)
    return found
