"""The schedules: made once, by whichever worker is first, and each run goes on from the one before."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta

import pytest
from temporalio.client import Client, ScheduleActionExecutionStartWorkflow, ScheduleOverlapPolicy
from temporalio.service import RPCError

from domain.housekeeping import Swept, findings
from domain.naming import ORPHAN_SWEEP, RETENTION
from simulator import Simulator
from tests.conftest import NewDatabase
from tests.house import House, Place, User, eventually, temporal_client
from tests.housekeeping.sweeps import sweep, without_workflow
from tests.servers import TemporalServer, free_port, part
from workflows.schedules import latest_runs, make_schedules, make_schedules_sometime


@pytest.fixture(autouse=True)
async def _none_left(house: House) -> AsyncIterator[None]:
    """Leave no schedule, whose runs would disturb other tests."""
    yield
    for name in (ORPHAN_SWEEP, RETENTION):
        with suppress(RPCError):
            await house.temporal.get_schedule_handle(name).delete()


async def test_workers_that_start_at_once_make_each_schedule_once(house: House) -> None:
    await asyncio.gather(*(make_schedules(house.temporal) for _ in range(3)))

    found = {each.id: each.schedule async for each in await house.temporal.list_schedules()}
    every = {name: [interval.every for interval in listed.spec.intervals] for name, listed in found.items() if listed}
    described = (await house.temporal.get_schedule_handle(ORPHAN_SWEEP).describe()).schedule
    assert every == {ORPHAN_SWEEP: [timedelta(minutes=1)], RETENTION: [timedelta(hours=1)]}
    assert described.policy.overlap is ScheduleOverlapPolicy.SKIP


async def test_a_schedule_that_a_person_paused_stays_paused(house: House) -> None:
    await make_schedules(house.temporal)
    handle = house.temporal.get_schedule_handle(RETENTION)
    await handle.pause(note="not today")

    await make_schedules(house.temporal)

    assert (await handle.describe()).schedule.state.paused
    await handle.unpause()


async def test_a_sweep_looks_only_at_what_has_come_near_since_the_last_one(house: House, alice: User) -> None:
    await make_schedules(house.temporal)
    handle = house.temporal.get_schedule_handle(ORPHAN_SWEEP)
    await handle.pause()
    first = await _run(house)
    session_id = await without_workflow(alice, due_in=300)  # nearer than what a sweep looks at when it goes on

    second = await _run(house)

    assert first.upto
    assert second.upto
    assert second.upto > first.upto
    assert second.sessions == 0
    assert (await sweep(house)).sessions == 1  # which does not know of the sweeps before
    await house.knows(session_id, rev=1)


async def test_an_operator_sees_when_each_last_ran_and_what_it_found(house: House) -> None:
    missing = await latest_runs(house.temporal)
    await make_schedules(house.temporal)
    await house.temporal.get_schedule_handle(RETENTION).pause()
    waiting = await latest_runs(house.temporal)
    swept = await _run(house)

    sweep_run, retention = await latest_runs(house.temporal)

    assert [(each.name, each.state) for each in missing] == [(ORPHAN_SWEEP, "missing"), (RETENTION, "missing")]
    assert [each.next_at is None for each in waiting] == [False, True]
    assert (retention.name, retention.started_at, retention.found) == (RETENTION, None, None)
    assert sweep_run.state == "completed"
    assert sweep_run.found == findings(ORPHAN_SWEEP, asdict(swept))
    assert sweep_run.started_at is not None


def test_what_a_run_found_is_told_in_words() -> None:
    assert findings(ORPHAN_SWEEP, {"orphans": 2, "sessions": 0, "handoffs": 1, "upto": "x"}) == (
        "2 push tasks made dead, 1 messages started again"
    )
    assert findings(RETENTION, {"push_tasks": 12, "token_events": 3}) == "12 push tasks deleted, 3 token events deleted"
    assert findings(RETENTION, {"push_tasks": 0}) == "nothing"


async def test_a_worker_makes_its_schedules_once_temporal_lets_it() -> None:
    server = TemporalServer(free_port(), namespaces=("default",))
    client = await Client.connect(server.address, lazy=True)
    making = asyncio.create_task(make_schedules_sometime(client))
    await asyncio.sleep(0)
    assert not making.done()

    await server.run()
    try:
        async with asyncio.timeout(30):
            await making
        assert await _are_made(client)
    finally:
        server.kill()


async def test_a_worker_process_makes_them_and_its_sweeps_run(new_database: NewDatabase, simulator: Simulator) -> None:
    async with TemporalServer.start(free_port(), namespaces=("default",)) as server:
        place = Place(await new_database("scheduling"), server.address, "default", simulator)
        client = await temporal_client(place)
        async with part(place.environment(METRICS_PORT=str(free_port()), RETENTION_DAYS="7"), "worker.py") as worker:
            await worker.says("worker ready")
            await eventually(lambda: _are_made(client))
            for name in (ORPHAN_SWEEP, RETENTION):
                await client.get_schedule_handle(name).trigger()

            async def are_through() -> bool:
                done = [each async for each in client.list_workflows("ExecutionStatus = 'Completed'")]
                return {each.workflow_type for each in done} == {"OrphanSweep", "Retention"}

            await eventually(are_through)


async def test_a_worker_does_not_start_with_a_retention_that_cannot_be(simulator: Simulator) -> None:
    place = Place("postgresql://nowhere.invalid/none", "127.0.0.1:1", "default", simulator)
    async with part(place.environment(RETENTION_DAYS="0"), "worker.py") as worker:
        assert await asyncio.wait_for(worker.process.wait(), 20) == 1
    assert "RETENTION_DAYS: " in "".join(worker.lines)


async def _are_made(client: Client) -> bool:
    with suppress(RPCError):
        described = [await client.get_schedule_handle(name).describe() for name in (ORPHAN_SWEEP, RETENTION)]
        return not any(each.schedule.state.paused for each in described)
    return False


async def _run(house: House) -> Swept:
    """Let the schedule start a sweep; gives what it came to."""
    handle = house.temporal.get_schedule_handle(ORPHAN_SWEEP)
    before = (await handle.describe()).info.num_actions
    await handle.trigger()

    async def started() -> str | None:
        info = (await handle.describe()).info
        if info.num_actions == before:
            return None
        action = info.recent_actions[-1].action
        assert isinstance(action, ScheduleActionExecutionStartWorkflow)
        return action.workflow_id

    workflow_id = str(await eventually(started))
    swept: Swept = await house.temporal.get_workflow_handle(workflow_id, result_type=Swept).result()
    return swept
