"""The worker is killed between the steps of a send: in and after the check, before an outcome is stored or told."""

import asyncio
import signal
from collections.abc import Callable
from functools import partial
from uuid import UUID

import pytest
from sqlalchemy import make_url

from simulator import Simulator
from tests.killed.wire import wire
from tests.servers import part
from tests.stack import Phone, Stack, android, eventually, iphone, start_held, uncommitted

pytestmark = pytest.mark.long

_STORING = """
    SELECT 1 FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND query ILIKE '%UPDATE push_tasks%'
"""


@pytest.mark.timeout(120)
async def test_a_worker_killed_at_each_step_of_a_send_loses_nothing_and_shows_nothing_twice(
    without_worker: Stack, simulator: Simulator, worker_settings: Callable[[], dict[str, str]]
) -> None:
    checked, answered, recorded = iphone(), android(), android()  # Apple takes one push at a time at first
    for phone in (answered, recorded):
        simulator.faults.add(provider="fcm", token=phone.token, fault="slow", delay=8, count=1)
    host, _, port = without_worker.place.temporal_address.partition(":")
    async with (
        wire(partial(asyncio.open_connection, host, int(port))) as way,
        part(worker_settings() | {"TEMPORAL_ADDRESS": f"127.0.0.1:{way.port}"}, "worker.py") as worker,
    ):
        await worker.says("worker ready")
        fasts = await _armed(without_worker, checked, answered, recorded)
        async with uncommitted(
            without_worker, "SELECT 1 FROM fasting_sessions WHERE id = :id FOR UPDATE", id=fasts[checked]
        ):
            await simulator.phones.received(answered.token, within=30)
            await simulator.phones.received(recorded.token, within=30)
            way.cut()
            # The attempt, too: where only the task is stuck, its outcome is noted on the attempt after a moment.
            both = "SELECT 1 FROM push_tasks JOIN push_attempts USING (task_id) WHERE conversation_id = :id FOR UPDATE"
            async with uncommitted(without_worker, both, id=fasts[answered]):
                simulator.faults.clear()  # the answers come now
                await eventually(lambda: _has_state(without_worker, fasts[recorded], "accepted"))
                await eventually(lambda: without_worker.rows(_STORING))
                await worker.end(signal.SIGKILL)
    async with part(worker_settings(), "worker.py"):
        outcomes = await asyncio.gather(*(without_worker.finished(fast, within=60) for fast in fasts.values()))

    assert outcomes == ["accepted"] * 3
    attempts = {phone: await _attempts(without_worker, fast) for phone, fast in fasts.items()}
    assert attempts[checked] == attempts[recorded] == [("accepted", None)]
    assert attempts[answered] == [("unknown", "worker_lost"), ("accepted", None)]
    for phone in fasts:
        calls = len(simulator.requests.for_token(phone.token))
        assert calls == len(attempts[phone])
        assert [line.times_received for line in simulator.phone(phone.token).screen] == [calls]


@pytest.mark.timeout(90)
async def test_a_worker_killed_between_its_check_and_its_call_has_called_nobody_and_another_calls_once(
    without_worker: Stack, simulator: Simulator, worker_settings: Callable[[], dict[str, str]]
) -> None:
    phone, database = iphone(), make_url(without_worker.place.database_url)
    connect = partial(asyncio.open_unix_connection, f"{database.query['host']}/.s.PGSQL.{database.port or 5432}")
    async with wire(connect, last_words=(b"INSERT INTO push_attempts", b"COMMIT")) as way:
        through = database.set(host="127.0.0.1", port=way.port, query={}).render_as_string(hide_password=False)
        async with part(worker_settings() | {"DATABASE_URL": through}, "worker.py") as worker:
            await worker.says("worker ready")
            fast = (await _armed(without_worker, phone))[phone]
            await eventually(lambda: _attempts(without_worker, fast))  # committed, and the worker does not hear of it
            await worker.end(signal.SIGKILL)
    assert await _attempts(without_worker, fast) == [(None, None)]
    assert not simulator.requests.for_token(phone.token)

    async with part(worker_settings(), "worker.py"):
        assert await without_worker.finished(fast, within=60) == "accepted"

    assert await _attempts(without_worker, fast) == [("unknown", "worker_lost"), ("accepted", None)]
    assert len(simulator.requests.for_token(phone.token)) == 1
    assert [line.times_received for line in simulator.phone(phone.token).screen] == [1]


async def _armed(stack: Stack, *phones: Phone) -> dict[Phone, UUID]:
    users = [stack.user() for _ in phones]
    for user, phone in zip(users, phones, strict=True):
        await user.register(phone)
    return dict(zip(phones, await start_held(*users, due_in=4.0), strict=True))


async def _has_state(stack: Stack, session_id: UUID, state: str) -> bool:
    return [task.state for task in await stack.tasks(session_id)] == [state]


async def _attempts(stack: Stack, session_id: UUID) -> list[tuple[str | None, str | None]]:
    rows = await stack.rows(
        "SELECT a.outcome, a.reason FROM push_attempts a JOIN push_tasks USING (task_id)"
        " WHERE conversation_id = :id ORDER BY number",
        id=session_id,
    )
    return [(row.outcome, row.reason) for row in rows]
