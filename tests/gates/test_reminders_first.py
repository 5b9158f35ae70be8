"""Reminders go first: in a worker's room, and in what Temporal is told of each workflow and send."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from temporalio.client import WorkflowHandle
from temporalio.exceptions import ApplicationError

from activities.handoff import HandoffPlanning
from activities.sending import PushSending
from domain.messages import PresencePolicy
from domain.push import Provider
from domain.wire import PlanHandoff
from simulator import Simulator
from tests.gates.worker_harness import due_now, worker_harness
from tests.stack import Stack, eventually, iphone, uncommitted
from tests.talk import conversation_of, handed_off, handoff, posted


async def test_sends_of_messages_that_wait_leave_room_in_the_worker_for_reminders(
    without_worker: Stack, simulator: Simulator
) -> None:
    alice, bob, reminded = without_worker.user(), without_worker.user(), iphone()
    await bob.register(iphone(), iphone())
    message_id = await posted(alice, await conversation_of(alice, bob))
    planning = HandoffPlanning(without_worker.sessions)
    waiting, crowded_out = (
        await planning.plan_handoff(PlanHandoff(message_id, PresencePolicy.NOTHING, paged=True))
    ).sends
    [reminder] = await due_now(without_worker, [reminded])

    async with worker_harness(without_worker) as all_room:
        sending = PushSending(Provider.APNS, without_worker.sessions, all_room.dependencies, max_others=1)
        worker = replace(all_room, sendings={Provider.APNS: sending})
        held = "SELECT 1 FROM push_tasks WHERE task_id = :id FOR UPDATE"
        async with uncommitted(without_worker, held, id=waiting.task_id), _running(worker.send_once(waiting)):
            await eventually(without_worker.someone_waits_for_a_lock)
            with pytest.raises(ApplicationError, match="crowded"):
                await worker.send_once(crowded_out)
            sent = await worker.send_once(reminder)
        assert (await worker.send(crowded_out)).state == "accepted"

    assert sent.state == "accepted"
    assert len(simulator.requests.for_token(reminded.token)) == 1


async def test_temporal_is_told_that_reminders_go_first(without_worker: Stack) -> None:
    alice, bob = without_worker.user(), without_worker.user()
    await bob.register(iphone())

    async with worker_harness(without_worker) as worker, worker.employed():
        session_id = await bob.start_fast(due_in=0.5)
        message_id = await posted(alice, await conversation_of(alice, bob))
        await without_worker.finished(session_id)
        await handed_off(without_worker, message_id)

    assert await _priorities(without_worker.workflow(session_id)) == [1, 1]
    assert await _priorities(handoff(without_worker, message_id)) == [4, 4]


@asynccontextmanager
async def _running(send: Coroutine[Any, Any, Any]) -> AsyncIterator[None]:
    """Have a send run meanwhile, whatever it comes to."""
    task = asyncio.create_task(send)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _priorities(handle: WorkflowHandle[Any, Any]) -> list[int]:
    """Read the priority keys of a workflow and of its one send."""
    events = (await handle.fetch_history()).events
    started = events[0].workflow_execution_started_event_attributes
    scheduled = [event.activity_task_scheduled_event_attributes for event in events]
    [send] = [each for each in scheduled if each.activity_id]
    return [started.priority.priority_key, send.priority.priority_key]
