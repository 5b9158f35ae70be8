"""What is registered in Temporal: made by whichever worker is first, and again where Temporal was emptied."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from uuid import uuid4

import pytest
from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionExecutionStartWorkflow,
    ScheduleActionStartWorkflow,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    ScheduleSpec,
)
from temporalio.service import RPCError

from activities.housekeeping import SweepOrphans
from db.engine import make_engine, make_sessions
from db.views import signals
from dispatch.schedules import findings, keep_registered, latest_runs, make_schedules, register_attributes
from domain.naming import ORPHAN_SWEEP, RETENTION, SEARCH_ATTRIBUTES, WORKFLOW_QUEUE
from simulator import Simulator
from tests.busy import soon
from tests.conftest import NewDatabase
from tests.servers import TemporalServer, free_port, part
from tests.stack import Stack, StackPlace, eventually, temporal_client
from workflows.housekeeping import OrphanSweep


@pytest.fixture(autouse=True)
async def _none_left(stack: Stack) -> AsyncIterator[None]:
    """Leave no schedule, whose runs would disturb other tests."""
    yield
    for name in (ORPHAN_SWEEP, RETENTION):
        with suppress(RPCError):
            await stack.temporal.get_schedule_handle(name).delete()


async def test_workers_that_start_at_once_make_each_schedule_once(stack: Stack) -> None:
    await asyncio.gather(*(make_schedules(stack.temporal) for _ in range(3)))

    async def listed() -> bool:  # a moment after they were made
        found = {each.id: each.schedule async for each in await stack.temporal.list_schedules()}
        every = {name: [interval.every for interval in each.spec.intervals] for name, each in found.items() if each}
        return every == {RETENTION: [timedelta(hours=1)]}

    await eventually(listed)
    described = (await stack.temporal.get_schedule_handle(RETENTION).describe()).schedule
    assert described.policy.overlap is ScheduleOverlapPolicy.SKIP


async def test_a_schedule_that_a_person_paused_stays_paused(stack: Stack) -> None:
    await make_schedules(stack.temporal)
    handle = stack.temporal.get_schedule_handle(RETENTION)
    await handle.pause(note="not today")

    await make_schedules(stack.temporal)

    assert (await handle.describe()).schedule.state.paused
    await handle.unpause()


async def test_the_schedule_of_sweeps_that_an_earlier_release_made_is_taken_away(stack: Stack) -> None:
    sweeps = ScheduleActionStartWorkflow(OrphanSweep.run, SweepOrphans(), id=ORPHAN_SWEEP, task_queue=WORKFLOW_QUEUE)
    spec = ScheduleSpec(intervals=[ScheduleIntervalSpec(every=timedelta(minutes=1))])
    await stack.temporal.create_schedule(ORPHAN_SWEEP, Schedule(action=sweeps, spec=spec))

    for _ in range(2):
        await make_schedules(stack.temporal)

    with pytest.raises(RPCError, match="not found"):
        await stack.temporal.get_schedule_handle(ORPHAN_SWEEP).describe()


async def test_an_operator_sees_when_it_last_ran_and_what_it_found(stack: Stack) -> None:
    missing = await latest_runs(stack.temporal)
    await make_schedules(stack.temporal)
    handle = stack.temporal.get_schedule_handle(RETENTION)
    await handle.pause()
    waiting = await latest_runs(stack.temporal)
    gone = await _run(stack)

    [retention] = await latest_runs(stack.temporal)

    assert [(each.name, each.state) for each in missing] == [(RETENTION, "missing")]
    assert [(each.started_at, each.found, each.next_at) for each in waiting] == [(None, None, None)]
    assert (retention.state, retention.found) == ("completed", findings(RETENTION, gone))
    assert retention.started_at is not None


def test_what_a_run_found_is_reported_in_words() -> None:
    assert findings(ORPHAN_SWEEP, {"orphans": 2, "sessions": 0, "handoffs": 1, "upto": "x"}) == (
        "2 push tasks made dead, 1 messages started again"
    )
    assert findings(RETENTION, {"push_tasks": 12, "token_events": 3}) == "12 push tasks deleted, 3 token events deleted"
    assert findings(RETENTION, {"push_tasks": 0}) == "nothing"


async def test_what_is_registered_comes_back_after_temporal_was_emptied() -> None:
    server = TemporalServer(free_port(), namespaces=("default",))
    client = await Client.connect(server.address, lazy=True)
    keeping = asyncio.create_task(keep_registered(client, every=0.3))
    try:
        await server.run()
        await eventually(lambda: _are_made(client), within=30)
        server.kill()
        await server.run()  # it kept nothing
        assert not keeping.done()
        await eventually(lambda: _are_made(client), within=30)
    finally:
        keeping.cancel()
        server.kill()


async def test_search_attributes_that_are_missing_are_registered(stack: Stack) -> None:
    bare = f"bare-{uuid4()}"
    request = RegisterNamespaceRequest(
        namespace=bare, workflow_execution_retention_period=Duration(seconds=3 * 24 * 3600)
    )
    await stack.temporal.workflow_service.register_namespace(request)
    client = await Client.connect(stack.place.temporal_address, namespace=bare)

    async def registered() -> bool:
        with suppress(RPCError):  # the whole server knows of a new namespace only after some seconds
            await register_attributes(client)
            return True
        return False

    await eventually(registered, within=30)

    asked = ListSearchAttributesRequest(namespace=bare)
    listed = await client.operator_service.list_search_attributes(asked)
    keyword = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
    assert set(SEARCH_ATTRIBUTES) <= {name for name, kind in listed.custom_attributes.items() if kind == keyword}


async def test_a_worker_process_registers_and_sweeps_by_itself(new_database: NewDatabase, simulator: Simulator) -> None:
    async with TemporalServer.start(free_port(), namespaces=("default",)) as server:
        place = StackPlace(await new_database("scheduling"), server.address, "default", simulator)
        client, engine = await temporal_client(place), make_engine(place.database_url, pool_size=2)
        async with part(place.environment(METRICS_PORT=str(free_port()), RETENTION_DAYS="7"), "worker.py") as worker:
            await worker.says("worker ready")
            await eventually(lambda: _are_made(client))
            await client.get_schedule_handle(RETENTION).trigger()

            async def are_through() -> bool:
                async with make_sessions(engine)() as db:
                    has_swept = (await signals.present(db)).swept_at is not None
                done = {each.workflow_type async for each in client.list_workflows("ExecutionStatus = 'Completed'")}
                return has_swept and done == {"Retention"}  # twice, where an hour begins meanwhile

            await eventually(are_through)
        await engine.dispose()


async def test_a_worker_does_not_start_with_a_retention_that_cannot_be(simulator: Simulator) -> None:
    place = StackPlace("postgresql://nowhere.invalid/none", "127.0.0.1:1", "default", simulator)
    async with part(place.environment(RETENTION_DAYS="0"), "worker.py") as worker, soon(20):
        assert await worker.process.wait() == 1
    assert "RETENTION_DAYS: " in "".join(worker.lines)


async def _are_made(client: Client) -> bool:
    with suppress(RPCError):
        return not (await client.get_schedule_handle(RETENTION).describe()).schedule.state.paused
    return False


async def _run(stack: Stack) -> dict[str, int]:
    """Let the schedule start a run; gives its result."""
    handle = stack.temporal.get_schedule_handle(RETENTION)
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
    gone: dict[str, int] = await stack.temporal.get_workflow_handle(workflow_id).result()
    return gone
