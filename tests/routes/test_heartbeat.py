"""Heartbeats hold nobody up: neither one that froze in its transaction, nor one that waits for the cutoffs."""

import os
from uuid import uuid4

import pytest
from sqlalchemy.exc import DBAPIError

from db import workers
from fleet.heartbeat import HeartbeatTimings, Process
from tests.routes.worker_harness import worker_harness
from tests.stack import Stack, eventually, uncommitted

SOON = HeartbeatTimings(every=0.2)


async def test_postgresql_ends_a_heartbeat_that_froze_before_the_others_lose_their_share(without_worker: Stack) -> None:
    frozen = uuid4()
    async with without_worker.sessions() as db:
        await workers.beat(db, frozen, {}, lives=10.0)
        async with worker_harness(without_worker, heartbeat_timings=SOON):
            await eventually(without_worker.someone_waits_for_a_lock)
            await eventually(lambda: _lives(without_worker), within=SOON.lapses)
        with pytest.raises(DBAPIError):
            await db.commit()

    assert not await without_worker.rows("SELECT 1 FROM workers WHERE worker_id = :id", id=frozen)


async def test_a_heartbeat_is_seen_while_the_cutoffs_cannot_be_read(without_worker: Stack) -> None:
    assert not await _lives(without_worker)
    async with uncommitted(without_worker, "LOCK TABLE brakes"), worker_harness(without_worker):
        await eventually(lambda: _lives(without_worker))
        await eventually(without_worker.someone_waits_for_a_lock)


async def test_a_predecessor_on_this_host_whose_process_id_is_odd_keeps_no_worker_from_its_share(
    without_worker: Stack,
) -> None:
    odd, here = uuid4(), Process("a-host", os.getpid())
    report = {"host": here.host, "pid": 2**70}
    async with without_worker.sessions.begin() as db:
        await workers.beat(db, odd, report, lives=10.0)

    async with worker_harness(without_worker, process=here):
        await eventually(lambda: _lives(without_worker, "WHERE worker_id <> :odd", odd=odd))

    assert not await _lives(without_worker, "WHERE worker_id = :odd", odd=odd)


async def _lives(stack: Stack, where: str = "", **values: object) -> bool:
    return bool(await stack.rows(f"SELECT 1 FROM workers {where}", **values))
