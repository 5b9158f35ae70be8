"""An erasure goes on though Temporal is away and workers are killed; others' reminders are on time meanwhile."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from uuid import UUID

import pytest
from temporalio.client import Client

from domain.naming import reminder_workflow_id
from simulator import Simulator
from tests.busy import quick
from tests.conftest import NewDatabase
from tests.erasure.leaving import change, holding, leave, state_of
from tests.servers import TemporalServer, free_port, part
from tests.stack import Stack, StackPlace, User, eventually, iphone, make_app, make_stack, temporal_client

pytestmark = pytest.mark.long

WorkerSettings = Callable[[], dict[str, str]]
_MANY = 10_000
_PUSHES = """
    INSERT INTO push_tasks (task_id, kind, user_id, installation_id, device_id, provider, environment, conversation_id,
                            message_id, collapse_key, due_at, attempt_count, state, expires_at, settled_at)
    SELECT gen_random_uuid(), 'reminder', d.user_id, d.installation_id, d.id, d.provider, d.environment,
           gen_random_uuid(), gen_random_uuid(), 'a' || n, now() - interval '1 day', 0, 'expired', now(), now()
      FROM device_tokens d, generate_series(1, :many) AS n WHERE d.user_id = :id
"""


@pytest.mark.timeout(90)
async def test_while_temporal_is_away_the_rows_go_and_afterwards_the_histories(
    new_database: NewDatabase, simulator: Simulator, server: TemporalServer
) -> None:
    place = StackPlace(await new_database("erased"), server.address, "default", simulator)
    await server.run()
    settings = place.environment(METRICS_PORT=str(free_port()), ARM_WINDOW="0")
    async with make_stack(place, make_app(place)) as stack, part(settings, "worker.py") as worker:
        await worker.says("worker ready")
        user = stack.user()
        await user.register(iphone())
        session_id = await user.start_fast(due_in=600)
        await stack.started(session_id)
        server.kill()

        erasure_id = await leave(stack, user.user_id)

        async def rows_are_gone() -> bool:
            return await holding(stack, [user.user_id]) == {("erasures", user.user_id)}

        await eventually(rows_are_gone, within=20)
        assert await state_of(stack, erasure_id) == "running"
        await worker.says("erasure postponed")
        await server.run()
        await eventually(lambda: _is_done(stack, erasure_id), within=40)
        assert await holding(stack, [user.user_id, str(session_id)]) == set()
        client = await temporal_client(place)
        await eventually(lambda: _is_gone(client, session_id))
        assert user.user_id not in "".join(worker.lines)


@pytest.mark.timeout(120)
async def test_ten_thousand_rows_and_two_killed_workers_make_nobody_else_late(
    without_worker: Stack, simulator: Simulator, worker_settings: WorkerSettings
) -> None:
    async def longest() -> float:
        return await _longest_beside_an_erasure(without_worker, simulator, worker_settings)

    assert await quick(longest, 1.0)  # usually 0.1


async def _longest_beside_an_erasure(stack: Stack, simulator: Simulator, worker_settings: WorkerSettings) -> float:
    """Erase many rows; gives how late somebody else's reminder was, or how long their longest write took."""
    leaver, stayer, phone = stack.user(), stack.user(), iphone()
    await leaver.register(iphone())
    await stayer.register(phone)
    await change(stack, _PUSHES, id=leaver.user_id, many=_MANY)
    async with part(worker_settings(), "worker.py") as first:
        await first.says("worker ready")
        erasure_id = await leave(stack, leaver.user_id)
        await eventually(lambda: _has_begun(stack, leaver.user_id))
        await first.end(signal.SIGKILL)
    await change(
        stack, "UPDATE erasures SET next_attempt_at = now() WHERE id = :id", id=erasure_id
    )  # its lease is over

    async with part(worker_settings(), "worker.py") as second:
        await second.says("worker ready")
        session_id = await stayer.start_fast(due_in=2.0)
        took = await _longest_write(stayer, lambda: _is_done(stack, erasure_id))
        assert await stack.finished(session_id) == "accepted"

    [request] = simulator.requests.for_token(phone.token)
    [task] = await stack.tasks(session_id)
    assert await holding(stack, [leaver.user_id]) == set()
    late: float = (request.received_at - task.due_at).total_seconds()
    return max(late, took)


async def _longest_write(user: User, is_over: Callable[[], Awaitable[bool]]) -> float:
    """Write until something is over; gives the longest time of a write, in seconds."""
    longest = 0.0
    while not await is_over():
        began = datetime.now(UTC)
        await user.call("PUT", "/v1/notification-preferences", {"reminders": True})
        longest = max(longest, (datetime.now(UTC) - began).total_seconds())
        await asyncio.sleep(0.02)
    return longest


async def _is_done(stack: Stack, erasure_id: UUID) -> bool:
    return await state_of(stack, erasure_id) == "done"


async def _has_begun(stack: Stack, user_id: str) -> bool:
    [row] = await stack.rows("SELECT count(*) FROM push_tasks WHERE user_id = :id", id=user_id)
    return int(row[0]) < _MANY


async def _is_gone(client: Client, session_id: UUID) -> bool:
    query = f"WorkflowId = '{reminder_workflow_id(session_id)}'"
    return [run async for run in client.list_workflows(query)] == []
