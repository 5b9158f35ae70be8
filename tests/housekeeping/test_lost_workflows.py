"""A fast or a message that lost its workflow gets it back in time for its reminder, or late rather than never."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError
from temporalio.testing import ActivityEnvironment

from activities.housekeeping import Sweeping, Walk
from db import device_tokens, fasting_sessions, push_tasks
from db.engine import present_instant
from domain.fasts import message_id
from domain.housekeeping import AHEAD
from domain.kinds import Kind
from domain.push import TaskState
from simulator import Simulator
from tests.busy import in_time, lead
from tests.housekeeping.sweeps import change, sweep, without_workflow
from tests.stack import Stack, User, eventually, iphone, start_held
from tests.talk import connected, conversation_of, handed_off, handoff, posted, tasks_of

SET_LONG_AGO = "UPDATE fasting_sessions SET scheduled_at = now() - interval '1 hour' WHERE id = :id"


def sooner() -> str:
    """Let what is due in two minutes be due in three seconds, as a busy machine counts."""
    return f"UPDATE fasting_sessions SET ends_at = ends_at - interval '{120 - lead(3):.0f} s' WHERE id = :id"


async def status_of(stack: Stack, session_id: UUID) -> WorkflowExecutionStatus | None:
    return (await stack.workflow(session_id).describe()).status


async def started_again(stack: Stack, session_id: UUID) -> bool:
    return await status_of(stack, session_id) is not WorkflowExecutionStatus.TERMINATED


async def accepted(stack: Stack, session_id: UUID) -> bool:
    return [row.state for row in await stack.tasks(session_id)] == ["accepted"]


async def owed(stack: Stack, subject_id: UUID) -> list[Any]:
    return await stack.rows("SELECT 1 FROM outbox WHERE subject_id = :id", id=subject_id)


async def test_a_fast_whose_workflow_was_terminated_is_reminded_on_time(
    stack: Stack, simulator: Simulator, alice: User
) -> None:
    phone = iphone()
    await alice.register(phone)
    session_id = await without_workflow(alice)
    await change(stack, sooner(), id=session_id)

    await sweep(stack)

    await eventually(lambda: started_again(stack, session_id))
    assert await stack.finished(session_id) == "accepted"
    [sent] = await stack.tasks(session_id)
    assert in_time((sent.accepted_at - sent.due_at).total_seconds(), 2.0)
    assert [line.times_received for line in simulator.phone(phone.token).screen] == [1]


async def test_a_send_that_is_held_goes_out_though_its_workflow_is_terminated(
    stack: Stack, simulator: Simulator, alice: User
) -> None:
    phone = iphone()
    await alice.register(phone)
    [session_id] = await start_held(alice, due_in=lead(2))

    await stack.workflow(session_id).terminate()

    await eventually(lambda: accepted(stack, session_id))
    assert len(simulator.requests.for_token(phone.token)) == 1


async def test_a_fast_started_again_sends_nothing_of_what_is_dead_and_all_that_comes_later(
    stack: Stack, simulator: Simulator, alice: User
) -> None:
    phone = iphone()
    await alice.register(phone)
    session_id = await without_workflow(alice, minutes=(1, 0))
    await change(stack, sooner(), id=session_id)  # one reminder is due in 3 s, the other was a minute before
    await change(stack, SET_LONG_AGO, id=session_id)
    async with stack.sessions.begin() as db:
        session = (await fasting_sessions.by_id(db, [session_id]))[session_id]
        due_at = session.ends_at - timedelta(minutes=1)
        earlier = push_tasks.DueMessage(
            message_id=message_id(session_id, 1, due_at),
            kind=Kind.REMINDER,
            conversation_id=session_id,
            reminder_minutes=1,
            collapse_key=f"fasting-session/{session_id}",
            due_at=due_at,
            expires_at=session.ends_at,
        )
        await push_tasks.plan(db, earlier, await device_tokens.active_for_user(db, alice.user_id))
        [planned] = await push_tasks.pending_of(db, earlier.message_id)
        await push_tasks.close(db, [planned.task_id], TaskState.DEAD, "orphaned")

    await sweep(stack)

    await eventually(lambda: started_again(stack, session_id))
    assert await stack.finished(session_id) == "accepted"
    states = {row.reminder_minutes: (row.state, row.last_reason) for row in await stack.tasks(session_id)}
    assert states == {1: ("dead", "orphaned"), 0: ("accepted", None)}
    assert len(simulator.requests.for_token(phone.token)) == 1


async def test_a_reminder_that_nobody_opened_comes_late_rather_than_never(
    stack: Stack, simulator: Simulator, alice: User
) -> None:
    phone, hour = iphone(), datetime.now(UTC).hour
    quiet = {"starts": f"{(hour - 2) % 24:02}:00", "ends": f"{(hour + 3) % 24:02}:00", "mode": "withhold"}
    await alice.call("PATCH", "/v1/notification-preferences", {"quiet_hours": quiet | {"time_zone": None}})
    await alice.register(iphone(), time_zone="UTC")  # where it is night, as for a phone that tells no zone
    await alice.register(phone, time_zone="Etc/GMT-12")
    session_id = await without_workflow(alice)
    await change(
        stack, "UPDATE fasting_sessions SET ends_at = ends_at - interval '2 min' WHERE id = :id", id=session_id
    )
    await change(stack, SET_LONG_AGO, id=session_id)

    await sweep(stack, untouched=0)

    await eventually(lambda: accepted(stack, session_id))
    assert len(simulator.requests.for_token(phone.token)) == 1
    query = "SELECT reason FROM withheld_pushes WHERE conversation_id = :id"
    assert await stack.rows(query, id=session_id) == [("quiet_hours",)]
    before = (await stack.workflow(session_id).describe()).run_id

    await sweep(stack, untouched=0)

    assert not await owed(stack, session_id)
    assert (await stack.workflow(session_id).describe()).run_id == before


@pytest.mark.parametrize("why", ["unwanted", "ended", "sent"])
async def test_a_fast_that_has_nothing_to_be_reminded_of_is_left_alone(stack: Stack, alice: User, why: str) -> None:
    match why:
        case "unwanted":
            await alice.call("PUT", "/v1/notification-preferences", {"reminders": False})
        case "sent":
            await alice.register(iphone())
        case _:
            pass
    session_id = await alice.start_fast(due_in=1)
    await stack.started(session_id)
    if why == "ended":
        await alice.end(session_id)
    await stack.finished(session_id)

    await sweep(stack, untouched=0)

    assert not await owed(stack, session_id)
    assert await status_of(stack, session_id) is WorkflowExecutionStatus.COMPLETED


async def test_each_fast_is_looked_at_once_as_its_reminder_comes_near(stack: Stack, alice: User) -> None:
    async with stack.sessions() as db:
        now = await present_instant(db)
    sweeping = Sweeping(stack.sessions, stack.temporal)
    session_id = await without_workflow(alice, due_in=AHEAD.total_seconds() + 60)

    async def looked(since: timedelta, upto: timedelta) -> bool:
        walk = Walk(untouched=0, since=now + since, upto=now + upto)
        await ActivityEnvironment().run(sweeping.restart_sessions, walk)
        is_owed = bool(await owed(stack, session_id))
        return is_owed or await status_of(stack, session_id) is WorkflowExecutionStatus.RUNNING

    minutes = [timedelta(minutes=minute) for minute in range(3)]
    assert not await looked(minutes[0], minutes[1])
    assert await looked(minutes[1], minutes[2])


async def test_a_message_whose_handoff_was_lost_before_its_plan_is_handed_off(
    stack: Stack, simulator: Simulator, alice: User, bob: User
) -> None:
    phone = iphone()
    await bob.register(phone)
    await connected(stack, bob, phone)  # so that the handoff waits for the phone to say something
    message_id = await posted(alice, await conversation_of(alice, bob))
    await eventually(lambda: _waits_for_streams(stack, message_id))
    await handoff(stack, message_id).terminate()
    await change(stack, "DELETE FROM presences WHERE user_id = :id", id=bob.user_id)

    await sweep(stack, untouched=0)

    async def is_accepted() -> bool:
        return [row.state for row in await tasks_of(stack, message_id)] == ["accepted"]

    await eventually(is_accepted)
    assert await handed_off(stack, message_id) == "accepted"
    assert len(simulator.requests.for_token(phone.token)) == 1


async def test_a_message_that_was_handed_off_is_left_alone(stack: Stack, alice: User, bob: User) -> None:
    message_id = await posted(alice, await conversation_of(alice, bob))
    assert await handed_off(stack, message_id) == "no_push"
    before = (await handoff(stack, message_id).describe()).run_id

    await sweep(stack, untouched=0)

    assert not await owed(stack, message_id)
    assert (await handoff(stack, message_id).describe()).run_id == before


async def _waits_for_streams(stack: Stack, message_id: UUID) -> bool:
    try:
        events = (await handoff(stack, message_id).fetch_history()).events
    except RPCError:  # not started yet
        return False
    return any(event.HasField("timer_started_event_attributes") for event in events)
