"""Heartbeats hold nobody up: neither one that froze in its transaction, nor one that waits for the brakes."""

from uuid import uuid4

from sqlalchemy import text

from db import workers
from tests.gates.crew import crew
from tests.house import House, eventually


async def test_postgresql_ends_a_heartbeat_that_froze_before_the_others_lose_their_share(unmanned: House) -> None:
    async with unmanned.sessions.begin() as db:
        await workers.beat(db, uuid4(), {}, lives=10.0)
        shown = await db.scalar(text("SHOW idle_in_transaction_session_timeout"))
    async with unmanned.sessions.begin() as db:
        usual = await db.scalar(text("SHOW idle_in_transaction_session_timeout"))

    assert (shown, usual) == ("2s", "10s")


async def test_a_heartbeat_is_seen_while_the_brakes_cannot_be_read(unmanned: House) -> None:
    async with unmanned.sessions.begin() as db:
        await db.execute(text("LOCK TABLE brakes"))
        async with crew(unmanned):
            await eventually(lambda: _somebody_lives(unmanned))


async def _somebody_lives(house: House) -> bool:
    return bool(await house.rows("SELECT 1 FROM workers"))
