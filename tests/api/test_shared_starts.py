"""Starts that arrive together share a transaction. Each is answered for itself, and waits for nobody else's locks."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from api.writes import SharedStarts, Writes
from db.fasting_sessions import fasts_of
from dispatch.relay import Relay
from domain.problems import Quotas
from operations.fasts import Order, Start
from tests.stack import Stack, StackPlace, eventually, make_app, make_stack, uncommitted


@pytest.fixture(scope="module")
async def counted(detached: StackPlace) -> AsyncIterator[Stack]:
    """An API that counts users' fasts."""
    async with make_stack(detached, make_app(detached)) as stack:
        yield stack


async def test_each_of_many_at_once_gets_its_own_answer_and_they_share_transactions(counted: Stack) -> None:
    people, taken, gone = [counted.user() for _ in range(40)], counted.user(), counted.user()
    known = await taken.start_fast(due_in=3600)
    await counted.user(None, "service").call("DELETE", f"/v1/users/{gone.user_id}")
    body = {"ends_at": (datetime.now(UTC) + timedelta(hours=2)).isoformat()}
    ids = {person.user_id: uuid4() for person in people}

    calls = [person.call("PUT", f"/v1/fasting-sessions/{ids[person.user_id]}", body) for person in people]
    calls += [person.call("PUT", f"/v1/fasting-sessions/{known}", body) for person in (people[0], taken)]
    calls += [gone.call("PUT", f"/v1/fasting-sessions/{uuid4()}", body)]
    *accepted, of_another, of_its_owner, of_nobody = await asyncio.gather(*calls)

    assert Counter(answer.status_code for answer in accepted) == {201: 40}
    assert [answer.json()["id"] for answer in accepted] == [str(each) for each in ids.values()]
    refused = [answer.json()["type"].rpartition(":")[2] for answer in (of_another, of_its_owner, of_nobody)]
    assert refused == ["not-found", "session-exists", "being-erased"]
    rows = await counted.rows("SELECT xmin::text FROM fasting_sessions WHERE id = ANY(:ids)", ids=[*ids.values()])
    assert len({row.xmin for row in rows}) < len(rows) == 40


async def test_one_that_others_hold_up_waits_alone(counted: Stack) -> None:
    slow, quick = counted.user(), [counted.user() for _ in range(8)]

    held = "SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"
    async with uncommitted(counted, held, name=fasts_of(slow.user_id)):
        waiting = asyncio.create_task(slow.start_fast(due_in=3600))
        await eventually(counted.someone_waits_for_a_lock)
        await asyncio.gather(*(person.start_fast(due_in=3600) for person in quick))
        assert not waiting.done()
    await waiting


async def test_what_a_client_that_left_has_started_is_dispatched(counted: Stack) -> None:
    relay = Relay(counted.sessions, counted.temporal, 60.0)
    starts = SharedStarts(Writes(counted.sessions, 10, Quotas(20, 20, None)), relay)
    fast, ends_at = uuid4(), datetime.now(UTC) + timedelta(hours=2)
    order = Order(f"left-{fast}", fast, Start(ends_at, None, (30,), None, {}))

    async with counted.sessions.begin() as db:
        await db.connection()  # so that this loop has turns until the start waits for the database
        leaving = asyncio.create_task(starts.start(order))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        leaving.cancel()
    with suppress(asyncio.CancelledError):
        await leaving

    async def is_dispatched() -> bool:
        stored = await counted.rows("SELECT 1 FROM fasting_sessions WHERE id = :id", id=fast)
        return bool(stored) and not await counted.rows("SELECT 1 FROM outbox WHERE subject_id = :id", id=fast)

    await eventually(is_dispatched)
    await starts.close()
    await relay.close()
