"""Outbox rows: each is one sweeper's at a time, and a dispatch that failed is noted and tried later and later."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from temporalio.client import Client

from db import outbox
from db.engine import Sessions, make_engine, make_sessions
from dispatch.relay import Relay
from operations import redrive as redrives
from tests.busy import soon
from tests.conftest import NewDatabase
from tests.servers import free_port
from tests.stack import eventually

UNKNOWN = "unknown"  # a kind of subject that no relay can dispatch


@pytest.fixture(scope="module")
async def sessions(new_database: NewDatabase) -> AsyncIterator[Sessions]:
    """A database of this module's own, which no sweeper looks at."""
    engine = make_engine(await new_database("outbox"))
    yield make_sessions(engine)
    await engine.dispose()


@pytest.fixture(autouse=True)
async def _none_left(sessions: Sessions) -> AsyncIterator[None]:
    """Leave no row to the next test."""
    yield
    await _change(sessions, "DELETE FROM outbox")


@pytest.fixture
async def relay(sessions: Sessions) -> Relay:
    """A relay, whose Temporal is away."""
    return Relay(sessions, await Client.connect(f"127.0.0.1:{free_port()}", lazy=True), arm_window=0)


async def test_a_dispatch_that_failed_is_noted_and_tried_later_and_later_each_row_at_its_own_time(
    sessions: Sessions, relay: Relay
) -> None:
    await _owe(sessions, 50)

    for attempts, longest in ((3, 8), (4, 16), (5, 32), (30, 60)):
        await _change(sessions, f"UPDATE outbox SET next_attempt_at = now(), attempts = {attempts - 1}")
        before = time.monotonic()
        assert await relay.sweep() == 50

        rows, read_at = await _rows(sessions), time.monotonic()
        waits = [row.wait.total_seconds() for row in rows]
        assert {(row.attempts, row.last_error) for row in rows} == {(attempts, "LookupError")}  # no word of its text
        assert before - read_at < min(waits) < longest / 2 < max(waits) <= longest
        assert await relay.sweep() <= sum(wait <= time.monotonic() - read_at for wait in waits)


async def test_sweepers_take_different_rows_and_wait_for_nobody(sessions: Sessions) -> None:
    await _owe(sessions, 6)

    async with sessions.begin() as db:
        mine = await outbox.lease_due(db, 2)
        async with soon(1), sessions.begin() as other:
            theirs = await outbox.lease_due(other, 10)
    async with sessions.begin() as db:
        later = await outbox.lease_due(db, 10)

    assert (len(mine), len(theirs), len(later)) == (2, 4, 0)
    assert len({owed.id for owed in (*mine, *theirs)}) == 6
    assert {row.attempts for row in await _rows(sessions)} == {1}


async def test_many_sweepers_at_once_take_each_row_once(sessions: Sessions) -> None:
    await _owe(sessions, 200)

    async def sweep() -> Sequence[outbox.OutboxEntry]:
        async with sessions.begin() as db:
            return await outbox.lease_due(db, 30)

    taken = [owed.id for leased in await asyncio.gather(*(sweep() for _ in range(10))) for owed in leased]

    assert len(taken) == len(set(taken)) == 200
    assert {row.attempts for row in await _rows(sessions)} == {1}


async def test_the_rows_of_a_sweeper_that_died_are_taken_by_another_when_its_lease_is_over(sessions: Sessions) -> None:
    await _owe(sessions, 1)
    async with sessions.begin() as db:
        [taken] = await outbox.lease_due(db, 1)
    [row] = await _rows(sessions)
    assert timedelta(0) < row.wait <= outbox.LEASE

    await _change(sessions, f"UPDATE outbox SET next_attempt_at = next_attempt_at - interval '{outbox.LEASE}'")

    async with sessions.begin() as db:
        [again] = await outbox.lease_due(db, 1)
    assert (again.id, taken.attempts, again.attempts) == (taken.id, 1, 2)


async def test_a_dispatch_that_takes_long_holds_up_no_row_that_comes_after_it(
    new_database: NewDatabase,
) -> None:
    engine = make_engine(await new_database("outbox_stuck"), lock_timeout=60)
    sessions = make_sessions(engine)
    relay = Relay(sessions, await Client.connect(f"127.0.0.1:{free_port()}", lazy=True), arm_window=0)
    async with sessions() as other:
        await other.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        await other.execute(text("LOCK TABLE push_tasks"))  # what a redrive reads
        async with sessions.begin() as db:
            await outbox.add_for_sweepers(db, redrives.OUTBOX_KIND, [uuid4() for _ in range(3)])
        sweeping = asyncio.create_task(relay.sweep_forever())
        await eventually(lambda: _waits(sessions, 3))

        async with sessions.begin() as db:  # of fasts that are not there any more: Temporal need not be told
            await outbox.add_for_sweepers(db, outbox.FAST, [uuid4() for _ in range(300)])

        await eventually(lambda: _is_left(sessions, 3), within=12)  # long before the others are given up
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)
    await engine.dispose()


async def _waits(sessions: Sessions, count: int) -> bool:
    async with sessions() as db:
        waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return len((await db.execute(text(waiting))).all()) == count


async def _is_left(sessions: Sessions, count: int) -> bool:
    return len(await _rows(sessions)) == count


ODD_INSTANTS = ("infinity", "294276-12-31 23:59:59", "2126-01-01", "now() + '66 s'", "-infinity", "4713-11-24 BC")


@pytest.mark.parametrize("at", ODD_INSTANTS)
async def test_a_row_that_is_put_off_for_longer_than_any_is_comes_at_once_and_counts_on(
    sessions: Sessions, relay: Relay, at: str
) -> None:
    at = at if at.startswith("now") else f"'{at}'"
    await _owe(sessions, 2)
    await _change(sessions, f"UPDATE outbox SET next_attempt_at = {at}, needed_at = {at}")

    assert await relay.sweep() == 2

    assert {row.attempts for row in await _rows(sessions)} == {1}
    assert await relay.sweep() == 0


@pytest.mark.parametrize("needed_at", ["'infinity'", "now() + '20 s'"])
async def test_what_is_found_missing_comes_next_but_for_what_its_own_process_has_yet_to_try(
    sessions: Sessions, needed_at: str
) -> None:
    await _owe(sessions, 3)
    put_off, fresh, held = [row.subject_id for row in await _rows(sessions)]
    later = f"UPDATE outbox SET next_attempt_at = now() + interval '55 s', needed_at = {needed_at} WHERE subject_id = "
    await _change(sessions, f"{later}'{put_off}'")
    await _change(sessions, f"{later}'{held}'")
    its_own = "UPDATE outbox SET next_attempt_at = clock_timestamp() + interval '4 s', needed_at = clock_timestamp()"

    async with sessions.begin() as other:
        await other.execute(text(f"SELECT 1 FROM outbox WHERE subject_id = '{held}' FOR UPDATE"))
        async with soon(2.5), sessions.begin() as db:
            await outbox.give_back(db, [row.id for row in await _rows(sessions) if row.subject_id == held])
            await db.execute(text(f"{its_own} WHERE subject_id = '{fresh}'"))  # only now: 4 s are soon over
            await outbox.hurry(db, [put_off, fresh, held])
            found = await outbox.lease_due(db, 10)

    assert [owed.subject_id for owed in found] == [put_off]


async def _owe(sessions: Sessions, count: int) -> None:
    async with sessions.begin() as db:
        await outbox.add_for_sweepers(db, UNKNOWN, [uuid4() for _ in range(count)])


async def _rows(sessions: Sessions) -> Sequence[Any]:
    query = "SELECT id, subject_id, attempts, last_error, next_attempt_at - clock_timestamp() AS wait FROM outbox"
    async with sessions() as db:
        return (await db.execute(text(query))).all()


async def _change(sessions: Sessions, statement: str) -> None:
    async with sessions.begin() as db:
        await db.execute(text(statement))
