"""`next_attempt_at` and `attempt_count` are true at every moment of a push task's life."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from temporalio.client import WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.sending import PushSending, SendPush
from db import push_tasks
from domain.kinds import Kind
from domain.push import Environment, Provider, TaskState
from sending.attempts import check_pushes
from sending.precheck import LINE_TAKEN, Claim, Deferred, Hindered, Hindrance, InFlight, Proceed
from settings.credentials import make_rotation
from simulator import Simulator
from tests.busy import in_time, lead
from tests.housekeeping.sweeps import aged, change, stray, sweep
from tests.stack import Phone, Stack, User, android, eventually, iphone, refuse_once, start_held
from tests.support.dead import redrive, task
from tests.talk import conversation_of, handed_off, posted, sync, tasks_of
from worker import make_send_dependencies

CLOSE_TO = 2.0  # seconds; what may pass between two readings of clocks


@pytest.fixture
async def sending(stack: Stack, simulator: Simulator) -> AsyncIterator[PushSending]:
    """The sends to Apple, started by hand."""
    environment = stack.place.environment(**simulator.environment)
    rotation = make_rotation(environment)
    dependencies = make_send_dependencies(stack.sessions, rotation.apps, environment)
    dependencies.limiters.share(1.0)
    yield PushSending(Provider.APNS, stack.sessions, dependencies)
    await rotation.close()


async def attempts_of(stack: Stack, task_id: UUID) -> int:
    """Read the count of attempts; it is that of the attempts on record."""
    row = await task(stack, task_id)
    attempts = await stack.rows("SELECT 1 FROM push_attempts WHERE task_id = :id", id=task_id)
    assert row.attempt_count == len(attempts)
    return int(row.attempt_count)


async def is_tried(stack: Stack, task_id: UUID, at: datetime) -> None:
    """See that the next attempt is at an instant, nearly."""
    row = await task(stack, task_id)
    assert row.state == "pending"
    assert in_time(abs(row.next_attempt_at - at).total_seconds(), CLOSE_TO)


async def tried_by_temporal(handle: WorkflowHandle[Any, Any]) -> datetime | None:
    """Ask when the one send of a workflow is tried again."""
    [pending] = (await handle.describe()).raw_description.pending_activities
    if not pending.HasField("next_attempt_schedule_time"):
        return None
    return pending.next_attempt_schedule_time.ToDatetime(UTC)


async def test_what_is_armed_is_tried_when_it_is_due(stack: Stack, alice: User) -> None:
    await alice.register(iphone())
    [session_id] = await start_held(alice, due_in=lead(4))

    [row] = await stack.tasks(session_id)

    assert (row.next_attempt_at, await attempts_of(stack, row.task_id)) == (row.due_at, 0)
    await alice.cancel(session_id)


async def test_what_is_planned_after_it_was_due_is_tried_at_once(stack: Stack, alice: User) -> None:
    [task_id] = await stray(alice, iphone())
    row = await task(stack, task_id)
    fields = ("message_id", "kind", "conversation_id", "reminder_minutes", "collapse_key", "due_at", "expires_at")
    message = push_tasks.DueMessage(**{name: getattr(row, name) for name in fields})
    [device] = await stack.rows("SELECT * FROM device_tokens WHERE id = :id", id=row.device_id)
    await change(stack, "DELETE FROM push_tasks WHERE task_id = :id", id=task_id)

    async with stack.sessions.begin() as db:
        await push_tasks.plan(db, message, [device])

    await is_tried(stack, task_id, datetime.now(UTC))


async def test_behind_a_shut_limiter_it_is_tried_when_it_looks_in_again(stack: Stack, alice: User) -> None:
    [task_id] = await stray(alice, iphone())

    [verdict] = await check_pushes(stack.sessions, [Hindered(task_id, Hindrance("paused", timedelta(seconds=9)))])

    assert isinstance(verdict, Deferred)
    await is_tried(stack, task_id, datetime.now(UTC) + timedelta(seconds=9))
    assert await attempts_of(stack, task_id) == 0


async def test_during_the_call_there_is_no_next_attempt_and_this_one_counts(stack: Stack, alice: User) -> None:
    [task_id] = await stray(alice, iphone())

    [begun] = await check_pushes(stack.sessions, [Claim(task_id)])
    [other] = await check_pushes(stack.sessions, [Claim(task_id)])

    assert isinstance(begun, Proceed)
    assert isinstance(other, InFlight)
    row = await task(stack, task_id)
    assert (row.state, row.next_attempt_at, await attempts_of(stack, task_id)) == ("pending", None, 1)


async def test_of_two_who_ask_in_one_batch_the_one_whose_attempt_begins_makes_the_call(
    stack: Stack, alice: User
) -> None:
    [task_id] = await stray(alice, iphone())
    claim, later = Claim(task_id), Claim(task_id)
    hindered = Hindered(task_id, Hindrance("paused", timedelta(seconds=9)))

    answers = await check_pushes(stack.sessions, [claim, hindered, later])

    [begun] = [each for each in answers if isinstance(each, Proceed)]
    assert [isinstance(each, InFlight) for each in answers] == [True, True, False]
    assert begun.push.attempt_id == later.attempt_id
    assert await attempts_of(stack, task_id) == 1


@pytest.mark.long
async def test_after_a_call_that_failed_late_it_is_tried_when_temporal_tries_it(
    stack: Stack, simulator: Simulator, alice: User
) -> None:
    phone = iphone()
    await alice.register(phone)
    simulator.faults.add(provider="apns", token=phone.token, fault="silent", processed=False, count=1)
    session_id = await alice.start_fast(due_in=0.5)
    await eventually(lambda: stack.failed_attempts(session_id, 1))  # once the answer is given up

    at = await eventually(lambda: tried_by_temporal(stack.workflow(session_id)))

    [row] = await stack.tasks(session_id)
    assert in_time(abs(row.next_attempt_at - at).total_seconds(), 1.0)
    assert await attempts_of(stack, row.task_id) == 1
    await alice.cancel(session_id)


async def test_a_push_whose_line_is_taken_is_tried_soon(stack: Stack, alice: User, bob: User) -> None:
    conversation_id = await conversation_of(alice, bob)
    message_ids = [await posted(alice, conversation_id) for _ in range(2)]
    for message_id in message_ids:
        await handed_off(stack, message_id)  # to nobody: bob has no phone yet
    await bob.register(android())
    older, newer = [await _planned(stack, bob, conversation_id, message_id) for message_id in message_ids]
    [begun] = await check_pushes(stack.sessions, [Claim(older)])
    assert isinstance(begun, Proceed)

    [verdict] = await check_pushes(stack.sessions, [Claim(newer)])

    assert isinstance(verdict, Deferred)
    assert verdict.hindrance == Hindrance("line_taken", LINE_TAKEN)
    await is_tried(stack, newer, datetime.now(UTC))
    assert await attempts_of(stack, newer) == 0


async def _planned(stack: Stack, user: User, conversation_id: UUID, message_id: UUID) -> UUID:
    """Plan a push of a message to somebody's one phone, which no workflow sends."""
    now = datetime.now(UTC)
    message = push_tasks.DueMessage(
        message_id=message_id,
        kind=Kind.MESSAGE,
        conversation_id=conversation_id,
        reminder_minutes=None,
        collapse_key=f"conversation/{conversation_id}",
        due_at=now,
        expires_at=now + timedelta(hours=1),
    )
    devices = await stack.rows("SELECT * FROM device_tokens WHERE user_id = :id", id=user.user_id)
    async with stack.sessions.begin() as db:
        await push_tasks.plan(db, message, devices)
    [row] = await tasks_of(stack, message_id)
    return UUID(str(row.task_id))


async def test_a_worker_that_shuts_down_leaves_it_to_be_tried_when_it_is_due(
    stack: Stack, sending: PushSending, alice: User
) -> None:
    [task_id] = await stray(alice, iphone())
    later = "due_at = now() + interval '1 hour', next_attempt_at = now() + interval '1 hour'"
    await change(stack, f"UPDATE push_tasks SET {later} WHERE task_id = :id", id=task_id)
    worker = ActivityEnvironment()
    holding = asyncio.create_task(
        worker.run(sending.send_push, SendPush(task_id, Environment.PRODUCTION, hold_seconds=3600))
    )
    await asyncio.sleep(0)

    worker.worker_shutdown()

    with pytest.raises(ApplicationError, match="worker_shutdown"):
        await holding
    row = await task(stack, task_id)
    assert (row.state, row.next_attempt_at, await attempts_of(stack, task_id)) == ("pending", row.due_at, 0)


async def test_a_send_whose_push_goes_to_another_address_now_calls_nobody(
    stack: Stack, simulator: Simulator, sending: PushSending, alice: User
) -> None:
    phone = iphone()
    [task_id] = await stray(alice, phone)
    for table in ("push_tasks", "device_tokens"):
        await change(stack, f"UPDATE {table} SET environment = 'sandbox' WHERE user_id = :id", id=alice.user_id)

    with pytest.raises(ApplicationError, match="readdressed"):
        await ActivityEnvironment().run(sending.send_push, SendPush(task_id, Environment.PRODUCTION, hold_seconds=0))

    assert not simulator.requests.for_token(phone.token)
    await is_tried(stack, task_id, datetime.now(UTC))
    assert await attempts_of(stack, task_id) == 1


async def test_what_is_redriven_is_tried_at_once_and_goes_on_counting(
    stack: Stack, simulator: Simulator, alice: User, carol: User
) -> None:
    phone = android()
    [task_id] = await stray(alice, phone)
    await check_pushes(stack.sessions, [Claim(task_id)])
    await aged(stack, task_id)
    await sweep(stack)
    refuse_once(simulator, phone)

    shown = (await redrive(carol, task_id)).json()["task"]

    assert in_time(abs(datetime.fromisoformat(shown["next_attempt_at"]) - datetime.now(UTC)).total_seconds(), CLOSE_TO)

    async def refused() -> bool:
        return bool((await task(stack, task_id)).last_reason == "UNAVAILABLE")

    await eventually(refused)
    assert await attempts_of(stack, task_id) == 2
    at = await eventually(lambda: tried_by_temporal(stack.temporal.get_workflow_handle(f"redrive/{task_id}")))
    await is_tried(stack, task_id, at)


ANSWERS: dict[str, dict[str, Any] | None] = {
    "accepted": None,
    "unregistered": {"status": 410, "reason": "Unregistered"},
    "rejected": {"status": 400, "reason": "PayloadEmpty"},
}


@pytest.mark.parametrize("state", ANSWERS)
async def test_what_the_provider_has_settled_is_tried_no_more(
    stack: Stack, simulator: Simulator, sending: PushSending, alice: User, state: str
) -> None:
    phone = iphone()
    [task_id] = await stray(alice, phone)
    if answer := ANSWERS[state]:
        simulator.faults.add(provider="apns", token=phone.token, fault="answer", **answer)

    sent = await ActivityEnvironment().run(sending.send_push, SendPush(task_id, Environment.PRODUCTION, hold_seconds=0))

    row = await task(stack, task_id)
    assert (sent.state, row.state, row.next_attempt_at) == (TaskState(state), state, None)
    assert await attempts_of(stack, task_id) == 1


@pytest.mark.parametrize("state", ["withdrawn", "expired", "dead"])
async def test_what_is_of_no_use_any_more_is_tried_no_more(stack: Stack, alice: User, state: str) -> None:
    [task_id] = await stray(alice, iphone())
    match state:
        case "withdrawn":
            await alice.end((await task(stack, task_id)).conversation_id)
            await check_pushes(stack.sessions, [Claim(task_id)])
        case "expired":
            await change(stack, "UPDATE push_tasks SET expires_at = now() WHERE task_id = :id", id=task_id)
            await check_pushes(stack.sessions, [Claim(task_id)])
        case _:
            async with stack.sessions.begin() as db:
                await push_tasks.close(db, [task_id], TaskState.DEAD, "time_ran_out")

    row = await task(stack, task_id)

    assert (row.state, row.next_attempt_at, await attempts_of(stack, task_id)) == (state, None, 0)


async def test_what_was_read_meanwhile_is_tried_no_more(
    stack: Stack, simulator: Simulator, alice: User, bob: User
) -> None:
    phone: Phone = android()
    await bob.register(phone)
    refuse_once(simulator, phone)
    message_id = await posted(alice, await conversation_of(alice, bob))

    async def refused() -> bool:
        return [row.last_reason for row in await tasks_of(stack, message_id)] == ["UNAVAILABLE"]

    await eventually(refused)
    page = await sync(bob, phone.installation_id)

    await sync(bob, phone.installation_id, after=page["next_cursor"])

    [row] = await tasks_of(stack, message_id)
    assert (row.state, row.last_reason, row.next_attempt_at) == ("withdrawn", "synced", None)
    assert await attempts_of(stack, row.task_id) == 1
