"""Heartbeats hold nobody up: neither one that froze in its transaction, nor one that waits for the brakes."""

from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from db import workers
from fleet.heartbeat import Pulse
from tests.gates.worker_harness import crew
from tests.stack import House, eventually

SOON = Pulse(every=0.2)


async def test_postgresql_ends_a_heartbeat_that_froze_before_the_others_lose_their_share(unmanned: House) -> None:
    frozen = uuid4()
    async with unmanned.sessions() as db:
        await workers.beat(db, frozen, {}, lives=10.0)
        async with crew(unmanned, pulse=SOON):
            await eventually(unmanned.someone_waits_for_a_lock)
            await eventually(lambda: _lives(unmanned), within=SOON.lapses)
        with pytest.raises(DBAPIError):
            await db.commit()

    assert not await unmanned.rows("SELECT 1 FROM workers WHERE worker_id = :id", id=frozen)


async def test_a_heartbeat_is_seen_while_the_brakes_cannot_be_read(unmanned: House) -> None:
    assert not await _lives(unmanned)
    async with unmanned.sessions.begin() as db:
        await db.execute(text("LOCK TABLE brakes"))
        async with crew(unmanned):
            await eventually(lambda: _lives(unmanned))
            await eventually(unmanned.someone_waits_for_a_lock)


async def _lives(house: House) -> bool:
    return bool(await house.rows("SELECT 1 FROM workers"))
