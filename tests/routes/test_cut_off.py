"""A send whose activity is cancelled, as after its worker stood still: nothing begun stays open, no outcome is lost."""

import asyncio
import dataclasses
import time
from uuid import UUID, uuid4

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.sending import SendPush, _Progress
from domain.push import Provider, SentPush, TaskState
from fleet.takeover import Hold
from simulator import Simulator
from tests.routes.worker_harness import Due, WorkerHarness, claim_is_held, due_now, held_claim, worker_harness
from tests.stack import Stack, eventually, iphone, uncommitted


@dataclasses.dataclass(frozen=True)
class Activity:
    """A send under way, which Temporal may cancel."""

    environment: ActivityEnvironment
    running: asyncio.Future[SentPush]

    @classmethod
    def start(cls, worker: WorkerHarness, due: Due) -> "Activity":
        """Start one as Temporal does."""
        environment = ActivityEnvironment()
        ask = SendPush(due.task_id, due.environment, 0.0, due.app_id, due.kind, due.user_digest)
        running = environment.run(worker.sendings[Provider.APNS].send_push, ask)
        return cls(environment, asyncio.ensure_future(running))


async def test_a_claim_that_is_cancelled_leaves_no_attempt_and_the_next_worker_calls_at_once(
    without_worker: Stack, simulator: Simulator
) -> None:
    phone = iphone()
    [due] = await due_now(without_worker, [phone])
    async with worker_harness(without_worker) as frozen, worker_harness(without_worker) as other:
        async with held_claim(without_worker, phone):
            activity = Activity.start(frozen, due)
            await eventually(lambda: claim_is_held(without_worker))
            activity.environment.cancel()
            activity.environment.cancel()  # once more, as at the end of a worker's grace
        with pytest.raises(asyncio.CancelledError):
            await activity.running

        assert await _attempts(without_worker, due.task_id) == []
        [task] = await without_worker.rows("SELECT * FROM push_tasks WHERE task_id = :id", id=due.task_id)
        assert (task.state, task.attempt_count) == ("pending", 0)
        assert not simulator.requests.for_token(phone.token)
        sent = await other.send_once(due, attempt=2)

    assert sent.state is TaskState.ACCEPTED
    assert await _attempts(without_worker, due.task_id) == [(1, "accepted", None)]
    assert len(simulator.requests.for_token(phone.token)) == 1


async def test_a_call_that_is_cancelled_is_seen_through_and_its_outcome_is_on_record(
    without_worker: Stack, simulator: Simulator
) -> None:
    phone = iphone()
    [due] = await due_now(without_worker, [phone])
    simulator.faults.add(provider="apns", token=phone.token, fault="slow", delay=0.5)
    async with worker_harness(without_worker) as worker:
        activity = Activity.start(worker, due)
        await simulator.phones.received(phone.token)
        activity.environment.cancel()
        sent = await activity.running

    assert sent.state is TaskState.ACCEPTED
    assert await _attempts(without_worker, due.task_id) == [(1, "accepted", None)]
    assert len(simulator.requests.for_token(phone.token)) == 1


async def test_an_outcome_whose_activity_is_cancelled_while_its_row_is_stuck_is_stored(
    without_worker: Stack, simulator: Simulator
) -> None:
    phone = iphone()
    [due] = await due_now(without_worker, [phone])
    simulator.faults.add(provider="apns", token=phone.token, fault="slow", delay=0.3)
    async with worker_harness(without_worker) as worker:
        activity = Activity.start(worker, due)
        await simulator.phones.received(phone.token)
        async with uncommitted(
            without_worker, "SELECT 1 FROM push_tasks WHERE task_id = :id FOR UPDATE", id=due.task_id
        ):
            await eventually(lambda: _is_noted(without_worker, due.task_id))
            activity.environment.cancel()
        sent = await activity.running

    assert sent.state is TaskState.ACCEPTED
    assert await _attempts(without_worker, due.task_id) == [(1, "accepted", None)]
    assert len(simulator.requests.for_token(phone.token)) == 1


async def test_who_is_cancelled_in_line_asks_for_no_attempt(without_worker: Stack, simulator: Simulator) -> None:
    phone = iphone()
    [due] = await due_now(without_worker, [phone])
    async with worker_harness(without_worker, {"APNS_CONCURRENCY": "1"}) as worker:
        first, other = iphone(), await due_now(without_worker, [iphone()])
        [ahead] = await due_now(without_worker, [first])
        async with held_claim(without_worker, first):
            calling = Activity.start(worker, ahead)
            await eventually(lambda: claim_is_held(without_worker))
            activity = Activity.start(worker, due)
            await eventually(lambda: _in_line(worker, 1))
            activity.environment.cancel()
            with pytest.raises(asyncio.CancelledError):
                await activity.running
        assert (await calling.running).state is TaskState.ACCEPTED
        assert (await worker.send_once(other[0])).state is TaskState.ACCEPTED  # its place in line is free again

    assert await _attempts(without_worker, due.task_id) == []
    assert not simulator.requests.for_token(phone.token)


def test_a_worker_that_stood_still_for_longer_than_temporal_waits_asks_for_no_attempt() -> None:
    fresh, stale = [_Progress(Hold(uuid4(), ends_at=time.monotonic() + left), attempt=1) for left in (5.0, 0.0)]

    fresh.claim()
    with pytest.raises(ApplicationError, match="worker_stood_still"):
        stale.claim()

    assert (fresh.is_claimed, stale.is_claimed) == (True, False)


async def _attempts(stack: Stack, task_id: UUID) -> list[tuple[int, str | None, str | None]]:
    rows = await stack.rows(
        "SELECT number, outcome, reason FROM push_attempts WHERE task_id = :id ORDER BY number", id=task_id
    )
    return [tuple(row) for row in rows]


async def _in_line(worker: WorkerHarness, count: int) -> bool:
    return [limiter["waiting"] for limiter in worker.dependencies.limiters.report()["gates"]] == [count]


async def _is_noted(stack: Stack, task_id: UUID) -> bool:
    return await _attempts(stack, task_id) == [(1, "accepted", None)]
