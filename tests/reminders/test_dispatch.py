"""Dispatch is level-triggered: twice, late or out of order, Temporal ends up agreeing with the database."""

import asyncio
import random
from dataclasses import replace
from datetime import timedelta
from itertools import count, islice
from uuid import UUID

from temporalio.api.workflow.v1 import WorkflowExecutionInfo

from db import fasting_sessions
from db.outbox import OutboxEntry
from dispatch.relay import Relay
from domain.fasts import FastingSession, SessionStatus
from simulator import Simulator
from tests import fasts
from tests.busy import lead
from tests.stack import Stack, eventually, iphone
from workflows.fasting_reminder import FastingReminder


async def test_a_reminder_shows_once_however_often_its_session_is_dispatched(
    stack: Stack, simulator: Simulator
) -> None:
    user, phone = stack.user(), iphone()
    await user.register(phone)
    session_id = await user.start_fast(due_in=1.2)
    relay = Relay(stack.sessions, stack.temporal, arm_window=60)

    await asyncio.gather(*(relay.dispatch(_owed(session_id)) for _ in range(20)))
    await stack.finished(session_id)
    await relay.dispatch(_owed(session_id))  # starts a run that finds all done
    await stack.finished(session_id)

    assert len(simulator.requests.for_token(phone.token)) == 1
    assert [task.attempt_count for task in await stack.tasks(session_id)] == [1]


async def test_an_old_state_that_arrives_late_is_ignored(stack: Stack, simulator: Simulator) -> None:
    user, phone = stack.user(), iphone()
    await user.register(phone)
    session_id = await user.start_fast(due_in=3600)
    await user.move_goal(session_id, due_in=1800)
    await user.move_goal(session_id, due_in=lead(2.0))
    relay = Relay(stack.sessions, stack.temporal, arm_window=60)
    await relay.dispatch(_owed(session_id))
    current = await _session(stack, session_id)
    late = current.ends_at + timedelta(minutes=1)
    told = [relay.state_of(replace(current, rev=rev, ends_at=late)) for rev in (1, 2)]
    told += [relay.state_of(replace(current, rev=1, status=SessionStatus.CANCELLED))]
    random.Random(1).shuffle(told)

    for state in told:
        await stack.workflow(session_id).signal(FastingReminder.reschedule, state)

    assert await stack.finished(session_id) == "accepted"
    assert len(simulator.requests.for_token(phone.token)) == 1


async def test_a_goal_that_moves_hundreds_of_times_keeps_its_history_short(stack: Stack, simulator: Simulator) -> None:
    user, phone = stack.user(), iphone()
    await user.register(phone)
    session_id = await user.start_fast(due_in=3600)
    await stack.started(session_id)
    session, relay = await _session(stack, session_id), Relay(stack.sessions, stack.temporal, arm_window=60)
    revs, run = count(2), await _run_of(stack, session_id)
    while run.execution.run_id == run.first_run_id:  # a busy worker takes several at once, as one
        for rev in islice(revs, 10):
            moved = replace(session, rev=rev, ends_at=session.ends_at + timedelta(seconds=rev))
            await stack.workflow(session_id).signal(FastingReminder.reschedule, relay.state_of(moved))
        await stack.knows(session_id, rev=rev)
        run = await _run_of(stack, session_id)
    assert run.history_length < 200

    async with stack.sessions.begin() as db:
        await fasts.change(db, replace(session, rev=rev), session.scheduled_at)
    await user.move_goal(session_id, due_in=2.0)
    assert await stack.finished(session_id) == "accepted"
    assert len(simulator.requests.for_token(phone.token)) == 1


async def test_a_cancelled_fast_leaves_no_workflow_asleep(stack: Stack) -> None:
    user = stack.user()
    await user.register(iphone())
    session_id = await user.start_fast(due_in=3600)
    await eventually(lambda: _no_outbox(stack, session_id))

    await user.cancel(session_id)

    assert await stack.finished(session_id) == "session_cancelled"
    await eventually(lambda: _no_outbox(stack, session_id))


async def test_a_finished_session_that_temporal_never_heard_of_is_settled_quietly(stack: Stack) -> None:
    user = stack.user()
    session_id = await user.start_fast(due_in=3600)
    await user.cancel(session_id)
    await eventually(lambda: _no_outbox(stack, session_id))
    relay = Relay(stack.sessions, stack.temporal, arm_window=60)

    await relay.dispatch(_owed(session_id))

    assert await _no_outbox(stack, session_id)


async def _run_of(stack: Stack, session_id: UUID) -> WorkflowExecutionInfo:
    """Ask Temporal about the present run of a session's workflow."""
    return (await stack.workflow(session_id).describe()).raw_description.workflow_execution_info


async def _session(stack: Stack, session_id: UUID) -> FastingSession:
    async with stack.sessions() as db:
        session = await fasting_sessions.read(db, session_id)
    assert session is not None
    return session


async def _no_outbox(stack: Stack, session_id: UUID) -> bool:
    return not await stack.rows("SELECT 1 FROM outbox WHERE subject_id = :id", id=session_id)


def _owed(session_id: UUID) -> OutboxEntry:
    return OutboxEntry(-1, fasting_sessions.OUTBOX_KIND, session_id, attempts=1)
