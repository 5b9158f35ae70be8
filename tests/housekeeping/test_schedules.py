"""The schedules: made once, by whichever worker is first, and each run goes on from the one before."""

import asyncio
from datetime import timedelta

from temporalio.client import Client, ScheduleActionExecutionStartWorkflow, ScheduleOverlapPolicy

from domain.housekeeping import Swept
from domain.naming import ORPHAN_SWEEP, RETENTION
from tests.house import House, User, eventually
from tests.housekeeping.sweeps import sweep, without_workflow
from tests.servers import TemporalServer, free_port
from workflows.schedules import make_schedules, make_schedules_sometime


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
        for name in (ORPHAN_SWEEP, RETENTION):
            assert not (await client.get_schedule_handle(name).describe()).schedule.state.paused
    finally:
        server.kill()


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
