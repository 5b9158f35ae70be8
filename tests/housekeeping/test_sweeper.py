"""What lost its workflow is found again: before it is due where there is time, and by one worker at a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from prometheus_client import Counter
from sqlalchemy import text

from activities.housekeeping import Sweeping
from db import workers
from db.views import signals
from dispatch.sweeper import Sweeper
from domain.housekeeping import SWEEP
from simulator import Simulator
from telemetry import metrics
from tests.busy import in_time, lead
from tests.conftest import NewDatabase
from tests.housekeeping.sweeps import aged, change, stray, without_workflow
from tests.servers import TemporalServer, free_port
from tests.stack import (
    Stack,
    StackPlace,
    User,
    android,
    eventually,
    iphone,
    make_app,
    make_stack,
    refuse_once,
    temporal_client,
    working,
)
from tests.support.dead import dead_task, redrive, task
from tests.support.timelines import pass_unopened, timeline
from tests.talk import conversation_of, posted, tasks_of

DUE_12_S_AGO = "UPDATE fasting_sessions SET ends_at = ends_at - interval '132 s' WHERE id = :id"
LONG_STARTED = "UPDATE fasting_sessions SET scheduled_at = now() - interval '16 hours' WHERE id = :id"


@asynccontextmanager
async def sweeping(stack: Stack, *, untouched: float = 120.0) -> AsyncIterator[Sweeper]:
    """Let a worker sweep in this process."""
    swept = Sweeping(stack.sessions, stack.temporal)
    sweeper = Sweeper(stack.sessions, swept, untouched=untouched, walks_every=1.0)
    running = asyncio.create_task(sweeper.sweep_forever())
    try:
        yield sweeper
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await sweeper.leave()


async def runs(stack: Stack, session_id: UUID) -> bool:
    status = (await stack.workflow(session_id).describe()).status
    return status is not None and status.name == "RUNNING"


@pytest.mark.parametrize("due_in", [500.0, 75.0])
async def test_a_fast_whose_workflow_a_person_terminated_gets_it_back_before_it_is_due(
    stack: Stack, alice: User, due_in: float
) -> None:
    await alice.register(iphone())
    session_id = await without_workflow(alice, due_in=due_in)
    await change(stack, LONG_STARTED, id=session_id)

    async with sweeping(stack):
        await eventually(lambda: runs(stack, session_id))

    await alice.cancel(session_id)


async def test_a_workflow_that_is_lost_after_it_was_asked_about_is_missed_at_the_next_question(
    unarmed: Stack, simulator: Simulator
) -> None:
    alice, phone = unarmed.user(), iphone()
    await alice.register(phone)
    session_id = await alice.start_fast(due_in=lead(7.0))
    await unarmed.started(session_id)
    await change(unarmed, LONG_STARTED, id=session_id)
    async with sweeping(unarmed) as sweeper:

        async def was_asked_about() -> bool:
            return session_id in {asked for asked, _ in sweeper._left}

        await eventually(was_asked_about, within=6)
        await unarmed.workflow(session_id).terminate()

        await eventually(lambda: runs(unarmed, session_id), within=7)
        assert await unarmed.finished(session_id) == "accepted"

    [sent] = await unarmed.tasks(session_id)
    assert in_time((sent.accepted_at - sent.due_at).total_seconds(), 2.0)
    assert len(simulator.requests.for_token(phone.token)) == 1


async def test_a_reminder_that_nobody_opened_is_reported_and_opened_late(
    stack: Stack, simulator: Simulator, alice: User
) -> None:
    phone = iphone()
    await alice.register(phone)
    session_id = await without_workflow(alice)
    await change(
        stack, "UPDATE fasting_sessions SET ends_at = ends_at - interval '132 s' WHERE id = :id", id=session_id
    )
    await change(stack, LONG_STARTED, id=session_id)

    async with sweeping(stack):

        async def is_told() -> bool:
            async with stack.sessions() as db:
                read = await signals.present(db)
            return bool(read.unopened.count and read.unopened.oldest_at and read.swept_at)

        await eventually(is_told)

        async def is_accepted() -> bool:
            return [row.state for row in await stack.tasks(session_id)] == ["accepted"]

        await eventually(is_accepted)

    assert len(simulator.requests.for_token(phone.token)) == 1


async def test_a_reminder_that_expired_while_temporal_was_away_is_dead_on_record_once(
    stack: Stack, alice: User, carol: User
) -> None:
    await alice.register(iphone(), android())
    session_id = await without_workflow(alice)
    await pass_unopened(stack, session_id, timedelta(seconds=190))
    nowhere = replace(stack.place, temporal_address=f"127.0.0.1:{free_port()}")
    counts = [metrics.pushes_settled.labels(each, "reminder", "dead", "opened_too_late") for each in ("apns", "fcm")]
    before = [_value(each) for each in counts]

    async with sweeping(replace(stack, temporal=await temporal_client(nowhere, lazy=True))):

        async def is_dead() -> bool:
            return {row.state for row in await stack.tasks(session_id)} == {"dead"}

        await eventually(is_dead)
        settled = [(row.last_reason, row.settled_at) for row in await stack.tasks(session_id)]
        await eventually(lambda: _none_unopened(stack))  # by another reading

    assert [reason for reason, _ in settled] == ["opened_too_late"] * 2
    assert [(row.last_reason, row.settled_at) for row in await stack.tasks(session_id)] == settled
    assert [_value(each) > was for each, was in zip(counts, before, strict=True)] == [True, True]
    whole = await timeline(carol, alice.user_id)
    assert [item["event"] for item in whole if item["event"] in {"dead", "unopened"}] == ["dead", "dead"]
    told = (await carol.call("GET", "/v1/support/analytics?days=2")).json()
    assert {fate["provider"] for fate in told["fates"] if fate["reason"] == "opened_too_late"} == {"apns", "fcm"}
    [reminder] = (await alice.call("GET", f"/v1/fasting-sessions/{session_id}")).json()["reminders"]
    assert reminder["state"] == "dead"


async def test_what_is_unwanted_or_has_no_phone_is_not_taken_for_unopened(stack: Stack, alice: User, bob: User) -> None:
    await alice.call("PUT", "/v1/notification-preferences", {"reminders": False})
    fasts = [await user.start_fast(due_in=1) for user in (alice, bob)]
    for session_id in fasts:
        await stack.finished(session_id)
        moved = "UPDATE fasting_sessions SET scheduled_at = now() - interval '1 hour' WHERE id = :id"
        await change(stack, moved, id=session_id)

    async with sweeping(stack):
        await eventually(lambda: _found(stack))

    assert not await stack.rows("SELECT 1 FROM outbox WHERE subject_id = ANY(:ids)", ids=fasts)


async def test_one_worker_sweeps_and_another_goes_on_where_it_left(stack: Stack) -> None:
    async with stack.sessions.begin() as db:
        first, second = uuid4(), uuid4()
        await db.execute(text("DELETE FROM leases"))
        assert await workers.take(db, "test", first, timedelta(seconds=15))
        assert await workers.take(db, "test", second, timedelta(seconds=15)) is None
        assert await workers.take(db, "test", first, timedelta(seconds=-1))
        assert await workers.take(db, "test", second, timedelta(seconds=15))
        await workers.report(db, "test", first, {"of": "nobody"})
        await workers.report(db, "test", second, {"of": "the second"})
        await workers.give_up(db, "test", second)
        assert await workers.take(db, "test", first, timedelta(seconds=15))
        assert await workers.reported(db, "test") == {"of": "the second"}


async def test_a_push_that_temporal_lost_is_sent_again_and_a_terminated_one_is_dead(
    stack: Stack, alice: User, bob: User
) -> None:
    lost_phone, phone = iphone(), iphone()
    [closed] = await stray(alice, phone)
    [lost] = await stray(bob, lost_phone)
    await change(stack, "UPDATE push_tasks SET conversation_id = gen_random_uuid() WHERE task_id = :id", id=lost)
    await change(stack, "UPDATE push_tasks SET kind = 'message' WHERE task_id = :id", id=lost)

    async with sweeping(stack, untouched=0.5):
        await eventually(lambda: _settled(stack, lost, closed))

    assert (await task(stack, closed)).state == "dead"
    assert (await task(stack, lost)).last_reason == "not_a_member"  # checked again, as ever


@dataclass(frozen=True)
class _Emptied:
    stack: Stack
    server: TemporalServer


@pytest.fixture
async def emptied(new_database: NewDatabase, simulator: Simulator) -> AsyncIterator[_Emptied]:
    """A stack whose Temporal keeps nothing when it is killed."""
    server = TemporalServer(free_port(), namespaces=("default",))
    await server.run()
    place = StackPlace(await new_database(f"emptied_{uuid4().hex[:6]}"), server.address, "default", simulator)
    environment = place.environment(ARM_WINDOW="0")
    try:
        app = make_app(place, ARM_WINDOW="0")
        async with (
            make_stack(place, app) as stack,
            working(stack, environment),
            sweeping(stack, untouched=1.0),
        ):
            yield _Emptied(stack, server)
    finally:
        server.kill()


async def test_fasts_messages_and_redrives_outlive_a_temporal_that_was_emptied(
    emptied: _Emptied, simulator: Simulator
) -> None:
    stack = emptied.stack
    people, phones = [stack.user() for _ in range(12)], [iphone() for _ in range(12)]
    for user, phone in zip(people, phones, strict=True):
        await user.register(phone)
    fasts = [await user.start_fast(due_in=lead(10.0)) for user in people]
    for session_id in fasts:
        await stack.started(session_id)
    carol, reader, waits = stack.user(None, "support"), stack.user(), [android(), android()]
    [redone] = await dead_task(stack.user(), waits[0])
    await reader.register(waits[1])
    for phone in waits:  # each push waits for its second attempt, in Temporal
        refuse_once(simulator, phone)
    assert (await redrive(carol, redone)).status_code == 202
    message_id = await posted(people[0], await conversation_of(people[0], reader))
    [planned] = await eventually(lambda: _hindered(stack, message_id))
    await eventually(lambda: _was_hindered(stack, redone))

    emptied.server.kill()
    await emptied.server.run()
    for task_id in (redone, planned):
        await aged(stack, task_id)

    outcomes = await asyncio.gather(*(stack.finished(session_id) for session_id in fasts))
    assert set(outcomes) == {"accepted"}
    for session_id, phone in zip(fasts, phones, strict=True):
        [sent] = await stack.tasks(session_id)
        assert in_time((sent.accepted_at - sent.due_at).total_seconds(), 2.0)
        assert len(simulator.requests.for_token(phone.token)) == 1
    await eventually(lambda: _settled(stack, redone, planned))
    assert [(await task(stack, each)).state for each in (redone, planned)] == ["accepted"] * 2
    assert [len(simulator.phone(phone.token).screen) for phone in waits] == [1, 1]


async def _hindered(stack: Stack, message_id: UUID) -> list[UUID]:
    return [row.task_id for row in await tasks_of(stack, message_id) if row.last_reason]


async def _was_hindered(stack: Stack, task_id: UUID) -> bool:
    row = await task(stack, task_id)
    return bool(row.state == "pending" and row.attempt_count > 0)


async def _none_unopened(stack: Stack) -> bool:
    async with stack.sessions() as db:
        return (await workers.reported(db, SWEEP)).get("unopened") == 0


def _value(counter: Counter) -> float:
    [family] = counter.collect()
    return float(family.samples[0].value)


async def _found(stack: Stack) -> bool:
    async with stack.sessions() as db:
        return bool(await workers.reported(db, SWEEP))


async def _settled(stack: Stack, *task_ids: UUID) -> bool:
    return all([(await task(stack, each)).state != "pending" for each in task_ids])
