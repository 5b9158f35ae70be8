"""A push task that no running workflow owns becomes dead, so that a person can redrive it."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from temporalio.client import Client
from temporalio.testing import ActivityEnvironment

from activities.housekeeping import PAGE, Sweeping
from db import orphans
from domain.housekeeping import Walk
from simulator import Simulator
from tests.housekeeping.sweeps import AGO, aged, change, stray, sweep
from tests.servers import TemporalServer, free_port
from tests.stack import Stack, User, android, eventually, iphone, refuse_once, uncommitted
from tests.support.dead import redrive, redriven, task
from tests.talk import conversation_of, handoff, posted, tasks_of


async def how_it_is(stack: Stack, task_id: UUID) -> tuple[str, str | None, Any]:
    row = await task(stack, task_id)
    return row.state, row.last_reason, row.next_attempt_at


async def test_a_push_whose_workflow_was_terminated_is_dead_and_can_be_redriven(
    stack: Stack, simulator: Simulator, alice: User, carol: User
) -> None:
    phone = android()
    await alice.register(phone)
    refuse_once(simulator, phone)
    session_id = await alice.start_fast(due_in=0.5)
    await eventually(lambda: stack.failed_attempts(session_id, 1))
    [planned] = await stack.tasks(session_id)
    await stack.workflow(session_id).terminate()
    await aged(stack, planned.task_id)

    await sweep(stack, untouched=0)

    assert await how_it_is(stack, planned.task_id) == ("dead", "UNAVAILABLE", None)
    assert (await redrive(carol, planned.task_id)).status_code == 202
    assert await redriven(stack, planned.task_id) == ("accepted", None)
    assert [line.times_received for line in simulator.phone(phone.token).screen] == [1]


async def test_a_test_push_is_left_to_its_workflow_and_dead_without_it(
    stack: Stack, simulator: Simulator, alice: User, carol: User
) -> None:
    phone = android()
    await alice.register(phone)
    refuse_once(simulator, phone)
    sent = (await carol.call("POST", f"/v1/support/users/{alice.user_id}/test-push", {})).json()
    task_id = UUID(sent["items"][0]["task_id"])

    async def refused() -> bool:
        return (await how_it_is(stack, task_id))[1] is not None

    await eventually(refused)
    await aged(stack, task_id)
    await sweep(stack, untouched=0)
    assert (await how_it_is(stack, task_id))[:2] == ("pending", "UNAVAILABLE")

    await stack.temporal.get_workflow_handle(f"test-push/{sent['test_push_id']}").terminate()
    await sweep(stack, untouched=0)

    assert await how_it_is(stack, task_id) == ("dead", "UNAVAILABLE", None)


async def test_what_was_read_before_its_workflow_was_lost_is_withdrawn(stack: Stack, alice: User) -> None:
    [task_id] = await stray(alice, iphone())
    await change(stack, "UPDATE push_tasks SET synced_at = now() WHERE task_id = :id", id=task_id)

    await sweep(stack)

    assert await how_it_is(stack, task_id) == ("withdrawn", "synced", None)


async def test_a_message_whose_handoff_was_terminated_is_dead_and_can_be_redriven(
    stack: Stack, simulator: Simulator, alice: User, bob: User, carol: User
) -> None:
    phone = android()
    await bob.register(phone)
    refuse_once(simulator, phone)
    message_id = await posted(alice, await conversation_of(alice, bob))

    async def refused() -> bool:
        return any(row.last_reason for row in await tasks_of(stack, message_id))

    await eventually(refused)
    [planned] = await tasks_of(stack, message_id)
    await handoff(stack, message_id).terminate()
    await change(stack, f"UPDATE push_tasks SET due_at = {AGO} WHERE task_id = :id", id=planned.task_id)
    await aged(stack, planned.task_id)

    await sweep(stack)

    assert await how_it_is(stack, planned.task_id) == ("dead", "UNAVAILABLE", None)
    assert (await redrive(carol, planned.task_id)).status_code == 202
    assert await redriven(stack, planned.task_id) == ("accepted", None)
    assert [line.times_received for line in simulator.phone(phone.token).screen] == [1]


async def test_a_push_that_was_never_tried_says_that_it_was_orphaned(stack: Stack, alice: User) -> None:
    [task_id] = await stray(alice, iphone())

    await sweep(stack)

    assert await how_it_is(stack, task_id) == ("dead", "orphaned", None)


async def test_an_orphan_that_somebody_holds_up_costs_no_other_its_end(stack: Stack, alice: User, bob: User) -> None:
    [held], [free] = await stray(alice, iphone()), await stray(bob, iphone())
    for each in (held, free):
        call = "INSERT INTO push_attempts (attempt_id, task_id, number, started_at)"
        await change(stack, f"{call} VALUES (gen_random_uuid(), :id, 1, {AGO})", id=each)

    async with uncommitted(stack, "SELECT 1 FROM push_attempts WHERE task_id = :id FOR UPDATE", id=held):
        await sweep(stack)
        states = [(await task(stack, each)).state for each in (held, free)]
    await sweep(stack)

    assert states == ["pending", "dead"]
    assert (await task(stack, held)).state == "dead"


async def test_a_call_that_was_lost_with_its_worker_is_over(stack: Stack, alice: User) -> None:
    [task_id] = await stray(alice, iphone())
    await change(
        stack, "UPDATE push_tasks SET attempt_count = 1, next_attempt_at = NULL WHERE task_id = :id", id=task_id
    )
    lost = "INSERT INTO push_attempts (attempt_id, task_id, number, started_at) VALUES (gen_random_uuid(), :id, 1, {})"
    await change(stack, lost.format("now()"), id=task_id)

    await sweep(stack)
    assert (await task(stack, task_id)).state == "pending"  # somebody may be calling

    await change(stack, f"UPDATE push_attempts SET started_at = {AGO} WHERE task_id = :id", id=task_id)
    await sweep(stack)
    assert (await task(stack, task_id)).state == "dead"
    [attempt] = await stack.rows("SELECT * FROM push_attempts WHERE task_id = :id", id=task_id)
    assert (attempt.outcome, attempt.reason) == ("unknown", "worker_lost")


async def test_a_push_that_a_running_workflow_owns_is_left_alone_however_long_it_waits(
    stack: Stack, simulator: Simulator, alice: User, carol: User
) -> None:
    of_a_fast, of_a_redrive = android(), android()
    await alice.register(of_a_fast)
    for phone in (of_a_fast, of_a_redrive):
        refuse_once(simulator, phone)
    session_id = await alice.start_fast(due_in=0.5)
    await eventually(lambda: stack.failed_attempts(session_id, 1))
    [planned] = await stack.tasks(session_id)
    dave = stack.user()
    [redone] = await stray(dave, of_a_redrive)
    await change(stack, "UPDATE push_tasks SET state = 'dead', next_attempt_at = NULL WHERE task_id = :id", id=redone)
    assert (await redrive(carol, redone)).status_code == 202

    async def tried() -> bool:
        return (await task(stack, redone)).last_reason is not None

    await eventually(tried)
    for task_id in (planned.task_id, redone):
        await aged(stack, task_id)

    await sweep(stack, untouched=0)

    assert {(await task(stack, each)).state for each in (planned.task_id, redone)} == {"pending"}
    await alice.cancel(session_id)


@pytest.mark.parametrize("subject", ["task_id", "conversation_id", "message_id"])
async def test_a_push_that_the_outbox_still_owes_is_left_alone(stack: Stack, alice: User, subject: str) -> None:
    [task_id] = await stray(alice, iphone())
    owed = f"SELECT 'later', {subject}, now() + interval '1 minute' FROM push_tasks WHERE task_id = :id"
    await change(stack, f"INSERT INTO outbox (subject_kind, subject_id, next_attempt_at) {owed}", id=task_id)

    await sweep(stack)

    assert (await task(stack, task_id)).state == "pending"
    await change(stack, "DELETE FROM outbox WHERE subject_kind = 'later'")
    await sweep(stack)
    assert (await task(stack, task_id)).state == "dead"


MEANWHILE = {
    "claimed": "UPDATE push_tasks SET attempt_count = attempt_count + 1, next_attempt_at = NULL WHERE task_id = :id",
    "tried again": "UPDATE push_tasks SET next_attempt_at = now() + interval '1 second' WHERE task_id = :id",
    "withdrawn": "UPDATE push_tasks SET state = 'withdrawn', next_attempt_at = NULL WHERE task_id = :id",
    "fast changed": "UPDATE fasting_sessions SET rev = rev + 1 WHERE id IN "
    "(SELECT conversation_id FROM push_tasks WHERE task_id = :id)",
    "dispatched": "INSERT INTO outbox (subject_kind, subject_id, next_attempt_at) "
    "SELECT 'later', conversation_id, now() + interval '1 minute' FROM push_tasks WHERE task_id = :id",
}


@pytest.mark.parametrize("meanwhile", MEANWHILE)
async def test_a_push_that_something_happened_to_while_temporal_was_asked_is_left_alone(
    stack: Stack, alice: User, meanwhile: str
) -> None:
    [task_id] = await stray(alice, iphone())
    async with stack.sessions() as db:
        seen = [each for each in await orphans.strays(db, timedelta(0), None, 1000) if each.task_id == task_id]
    assert seen
    await change(stack, MEANWHILE[meanwhile], id=task_id)

    async with stack.sessions.begin() as db:
        assert await orphans.bury(db, seen) == 0

    assert (await task(stack, task_id)).state != "dead"
    await change(stack, "DELETE FROM outbox WHERE subject_kind = 'later'")


async def test_while_temporal_cannot_tell_nothing_is_an_orphan(stack: Stack, alice: User) -> None:
    [task_id] = await stray(alice, iphone())
    async with TemporalServer.start(free_port(), namespaces=("default",)) as server:
        away = await Client.connect(server.address)

    walked = await ActivityEnvironment().run(Sweeping(stack.sessions, away).bury_orphans, Walk(untouched=10))

    assert walked.changed == 0
    assert (await task(stack, task_id)).state == "pending"


async def test_a_sweep_goes_through_all_pages(stack: Stack, alice: User) -> None:
    [task_id] = await stray(alice, iphone())
    columns = (
        "kind, user_id, device_id, provider, environment, conversation_id, reminder_minutes, collapse_key, due_at,"
        " attempt_count, next_attempt_at, state, expires_at"
    )
    more = (
        f"INSERT INTO push_tasks (task_id, installation_id, message_id, {columns})"
        f" SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), {columns}"
        "   FROM push_tasks, generate_series(1, :count) WHERE task_id = :id"
    )
    await change(stack, more, id=task_id, count=PAGE + 10)

    swept = await sweep(stack)

    assert swept.orphans > PAGE
    assert swept.after is None
    assert not await stack.rows("SELECT 1 FROM push_tasks WHERE state = 'pending' AND user_id = :id", id=alice.user_id)
