"""The order of the outbox: nearest need first, whatever waits before; no kind of subject starves another."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from temporalio.client import Client, Interceptor, OutboundInterceptor, StartWorkflowInput

from db import fasting_sessions, messages, outbox
from db.engine import Sessions, make_engine, make_sessions
from dispatch.client import data_converter
from dispatch.relay import Relay
from domain.fasts import FastingSession, SessionStatus
from tests import fasts
from tests.busy import in_time
from tests.conftest import NewDatabase
from tests.servers import free_port
from tests.stack import eventually

IMPORTED = 50_000


class Temporal(Interceptor):
    """A Temporal that notes which fasts it is told of, and answers when it is let."""

    def __init__(self) -> None:
        self.told: list[UUID] = []
        self.answers = asyncio.Event()
        self.answers.set()

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:  # noqa: A002 -- the SDK's name
        """Stand before the network."""
        temporal = self

        class Noting(OutboundInterceptor):
            async def start_workflow(self, input: StartWorkflowInput) -> Any:  # noqa: A002 -- the SDK's name
                temporal.told.append(UUID(input.id.removeprefix("fasting-reminder/")))
                await temporal.answers.wait()

        return Noting(next)


@pytest.fixture(scope="module")
async def sessions(new_database: NewDatabase) -> AsyncIterator[Sessions]:
    """A database of this module's own, which no other sweeper looks at."""
    engine = make_engine(await new_database("outbox_order"))
    yield make_sessions(engine)
    await engine.dispose()


@pytest.fixture(autouse=True)
async def _none_left(sessions: Sessions) -> AsyncIterator[None]:
    """Leave no row to the next test."""
    yield
    async with sessions.begin() as db:
        await db.execute(text("TRUNCATE outbox, fasting_sessions"))


@pytest.fixture
def temporal() -> Temporal:
    """What the relay talks to."""
    return Temporal()


@pytest.fixture
async def relay(sessions: Sessions, temporal: Temporal) -> Relay:
    """A relay, whose Temporal notes what it is told."""
    address = f"127.0.0.1:{free_port()}"
    client = await Client.connect(address, lazy=True, interceptors=[temporal], data_converter=data_converter)
    return Relay(sessions, client, arm_window=60)


@pytest.mark.parametrize("kind", [fasting_sessions.OUTBOX_KIND, messages.OUTBOX_KIND])
async def test_a_reminder_due_in_a_minute_is_dispatched_by_the_next_sweep_though_50_000_rows_wait(
    sessions: Sessions, relay: Relay, temporal: Temporal, kind: str
) -> None:
    await _owe_many(sessions, kind, timedelta(hours=1 if kind == fasting_sessions.OUTBOX_KIND else -1))
    honest = await _start(sessions, due_in=timedelta(minutes=1))
    await _grace_is_over(sessions)

    began = asyncio.get_running_loop().time()
    await relay.sweep()

    assert temporal.told == [honest]
    assert in_time(asyncio.get_running_loop().time() - began, 5.0)


async def test_an_import_is_dispatched_at_a_steady_pace_and_what_is_needed_soon_at_once(
    sessions: Sessions, relay: Relay, temporal: Temporal
) -> None:
    count = 1000
    await _owe_many(sessions, fasting_sessions.OUTBOX_KIND, timedelta(hours=1), count=count)
    loop = asyncio.get_running_loop()
    began = loop.time()

    sweeping = asyncio.create_task(relay.sweep_forever())
    await eventually(lambda: _are_left(sessions, fewer_than=count))
    honest = await _start(sessions, due_in=timedelta(minutes=1))
    await _grace_is_over(sessions)
    await eventually(lambda: _is_told(temporal, honest))
    sweeping.cancel()
    await asyncio.gather(sweeping, return_exceptions=True)
    seconds = loop.time() - began

    assert await _are_left(sessions, fewer_than=count)
    assert not await _are_left(sessions, fewer_than=int(count - 20 * (seconds + 1)))


async def test_a_cancel_and_a_goal_moved_away_are_as_urgent_as_the_reminder_they_call_off(sessions: Sessions) -> None:
    soon, moved, cancelled = [await _start(sessions, due_in=timedelta(minutes=each)) for each in (3, 2, 1)]
    [later] = [await _start(sessions, due_in=timedelta(hours=1))]
    async with sessions.begin() as db:
        await db.execute(text("DELETE FROM outbox WHERE subject_id = ANY(:ids)"), {"ids": [moved, cancelled]})
    await _change(sessions, moved, ends_in=timedelta(hours=2))
    await _change(sessions, cancelled, status=SessionStatus.CANCELLED)
    await _grace_is_over(sessions)

    async with sessions.begin() as db:
        order = [owed.subject_id for owed in await outbox.lease_due(db, 10)]

    assert order == [cancelled, moved, soon, later]


async def test_fasts_leave_a_quarter_of_a_sweep_to_messages_and_redrives_and_take_what_these_leave(
    sessions: Sessions,
) -> None:
    await _owe_many(sessions, fasting_sessions.OUTBOX_KIND, timedelta(minutes=-1), count=300)
    await _owe_many(sessions, messages.OUTBOX_KIND, timedelta(0), count=60)

    async with sessions.begin() as db:
        first = [owed.subject_kind for owed in await outbox.lease_due(db, 200)]
    async with sessions.begin() as db:
        second = [owed.subject_kind for owed in await outbox.lease_due(db, 200)]

    assert (first.count("fasting_session"), first.count("message")) == (150, 50)
    assert (second.count("fasting_session"), second.count("message")) == (150, 10)


async def test_an_api_process_dispatches_what_is_needed_first_before_the_thousand_that_came_first(
    sessions: Sessions, relay: Relay, temporal: Temporal
) -> None:
    temporal.answers.clear()
    for _ in range(30):
        await _start(sessions, due_in=timedelta(hours=1))
    async with sessions() as db:
        rows = await db.execute(text("SELECT id, subject_kind, subject_id, 1, NULL, needed_at FROM outbox ORDER BY id"))
        owed = [outbox.OutboxEntry(*row) for row in rows]
    for each in owed * 50:  # 1 500: more than a process keeps
        relay.dispatch_soon(each)
    await eventually(lambda: _reached(temporal, 20))
    honest = await _start(sessions, due_in=timedelta(seconds=10))
    async with sessions() as db:
        row = await db.execute(
            text("SELECT id, subject_kind, subject_id, 1, NULL, needed_at FROM outbox WHERE subject_id = :id"),
            {"id": honest},
        )
        relay.dispatch_soon(outbox.OutboxEntry(*row.one()))

    temporal.answers.set()
    await eventually(lambda: _is_told(temporal, honest))

    assert temporal.told.index(honest) < 50  # after those under way, and with those that are let go together
    await relay.close()


async def _is_told(temporal: Temporal, session_id: UUID) -> bool:
    return session_id in temporal.told


async def _are_left(sessions: Sessions, *, fewer_than: int) -> bool:
    async with sessions() as db:
        return bool((await db.execute(text("SELECT count(*) FROM outbox"))).scalar_one() < fewer_than)


async def _reached(temporal: Temporal, count: int) -> bool:
    return len(temporal.told) >= count


async def _owe_many(sessions: Sessions, kind: str, needed_in: timedelta, *, count: int = IMPORTED) -> None:
    """Owe what nobody has written: its dispatch finds nothing to tell."""
    statement = """
        INSERT INTO outbox (subject_kind, subject_id, next_attempt_at, needed_at)
        SELECT :kind, gen_random_uuid(), now() - interval '1 minute', now() + :needed_in
          FROM generate_series(1, :count)
    """
    async with sessions.begin() as db:
        await db.execute(text(statement), {"kind": kind, "needed_in": needed_in, "count": count})


async def _start(sessions: Sessions, *, due_in: timedelta) -> UUID:
    now = datetime.now(UTC)
    session = FastingSession(
        session_id=uuid4(),
        user_id="alice",
        started_at=now,
        ends_at=now + due_in + timedelta(minutes=1),
        status=SessionStatus.ACTIVE,
        ended_at=None,
        reminder_minutes=(1,),
        scheduled_at=now,
        rev=1,
    )
    async with sessions.begin() as db:
        await fasts.start(db, session)
    return session.session_id


async def _change(sessions: Sessions, session_id: UUID, *, ends_in: timedelta | None = None, **values: Any) -> None:
    now = datetime.now(UTC)
    async with sessions.begin() as db:
        session = await fasting_sessions.read(db, session_id)
        assert session is not None
        if ends_in is not None:
            values |= {"ends_at": now + ends_in, "scheduled_at": now}
        if "status" in values:
            values |= {"ended_at": now}
        await fasts.change(db, replace(session, rev=2, **values), now)


async def _grace_is_over(sessions: Sessions) -> None:
    async with sessions.begin() as db:
        await db.execute(text("UPDATE outbox SET next_attempt_at = now() - interval '1 second'"))


async def test_no_more_rows_are_leased_than_asked_for_whatever_the_planner_does(sessions: Sessions) -> None:
    """As a subquery of `IN`, the rows to lease were looked for again for each row, beyond their limit."""
    rows = (
        "INSERT INTO outbox (subject_kind, subject_id, next_attempt_at, needed_at) SELECT 'fasting_session',"
        " gen_random_uuid(), now() - interval '1 s', now() + interval '15 h' FROM generate_series(1, 60)"
    )
    async with sessions.begin() as db:
        await db.execute(text(rows))
        for way in ("hashagg", "hashjoin", "mergejoin", "material", "sort"):
            await db.execute(text(f"SET LOCAL enable_{way} = off"))

        leased = await outbox.lease_due(db, 200, 20)

    assert len(leased) == 20
