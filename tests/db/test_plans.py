"""Statements for many rows look each up by an index, also by a plan that was made while the table was small."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from db import device_tokens, fasting_sessions, holds, orphans, outbox, push_tasks, retention
from db.device_token_imports import DeviceRequest, register_all
from db.device_tokens import Registration
from db.engine import Sessions, make_engine, make_sessions
from db.fasting_sessions import Dispatched
from db.push_tasks import DueMessage, plan_and_list
from db.views import signals
from domain.housekeeping import AHEAD, DEFAULT_KEEP, RetentionTarget
from domain.kinds import Kind
from domain.push import Environment, Provider
from tests.stack import Stack

PLANNED_AFTER = 6  # executions, after which PostgreSQL may keep a plan for any values
READ_WHOLE = "SELECT seq_scan FROM pg_stat_xact_all_tables WHERE relid = CAST('pg_temp.' || :name AS regclass)"


async def empty(db: AsyncSession, table: str) -> None:
    """Put an empty table in front of the real one, until the transaction ends."""
    await db.execute(text(f"CREATE TEMP TABLE {table} (LIKE public.{table} INCLUDING ALL) ON COMMIT DROP"))


async def times_read_whole(db: AsyncSession, table: str) -> int:
    """Count how often this transaction has read all of such a table; making an index does that once."""
    return int(await db.scalar(text(READ_WHOLE), {"name": table}) or 0)


async def test_fasts_are_held_one_by_one(stack: Stack) -> None:
    async with stack.sessions.begin() as db:
        await empty(db, "fasting_sessions")
        before = await times_read_whole(db, "fasting_sessions")

        for _ in range(PLANNED_AFTER + 2):
            ids = [uuid4() for _ in range(125)]
            await fasting_sessions.free(db, ids, [])
            await fasting_sessions.hold(db, ids)
            await fasting_sessions.shared(db, ids)
            await fasting_sessions.read_all(db, ids)
            await fasting_sessions.read_with_phones(db, ids)
            await fasting_sessions.settle_all(db, [Dispatched(0, each, 1) for each in ids])

        assert await times_read_whole(db, "fasting_sessions") == before


@pytest.mark.parametrize("is_import", [False, True])
async def test_device_tokens_are_registered_one_by_one(stack: Stack, is_import: bool) -> None:
    def request() -> DeviceRequest:
        registration = Registration(Provider.APNS, secrets.token_hex(32), Environment.PRODUCTION)
        return DeviceRequest(f"user-{uuid4()}", uuid4(), registration, is_import)

    async with stack.sessions.begin() as db:
        for table in ("device_tokens", "device_token_events"):
            await empty(db, table)
        before = await times_read_whole(db, "device_tokens")

        for _ in range(PLANNED_AFTER + 2):
            requests = [request() for _ in range(20)]
            for _ in ("new", "known"):
                assert len(await register_all(db, requests, most=20)) == 20

        assert await times_read_whole(db, "device_tokens") == before


async def test_pushes_are_planned_one_by_one(stack: Stack) -> None:
    async with stack.sessions.begin() as db:
        for table in ("device_tokens", "device_token_events", "push_tasks"):
            await empty(db, table)
        registration = Registration(Provider.APNS, secrets.token_hex(32), Environment.PRODUCTION)
        await register_all(db, [DeviceRequest(f"user-{uuid4()}", uuid4(), registration, is_import=True)], most=20)
        [device] = (await db.execute(text("SELECT id, installation_id FROM device_tokens"))).all()
        before = [await times_read_whole(db, table) for table in ("device_tokens", "push_tasks")]

        for _ in range(PLANNED_AFTER + 2):
            due = datetime.now(UTC)
            plans = [(DueMessage(uuid4(), Kind.REMINDER, uuid4(), 1, "fast", due, due), [device]) for _ in range(20)]
            planned = await plan_and_list(db, plans)
            assert [len(sends) for sends in planned] == [1] * 20

        assert [await times_read_whole(db, table) for table in ("device_tokens", "push_tasks")] == before


WORKER = UUID(int=1)
LOST = holds.Lost([WORKER], list(Kind), list(Provider), unheld_for=3.0)
NOW = datetime.now(UTC)
# What runs again and again, or on each call of an app, whatever has been finished.
LOOKS: dict[str, Callable[[AsyncSession], Awaitable[object]]] = {
    "next due": lambda db: holds.next_due(db, LOST, 5.0),
    "take over": lambda db: holds.take(db, uuid4(), LOST, holds.Part(0, 1), 10),
    "overdue": push_tasks.overdue_longest,
    "strays": lambda db: orphans.strays(db, timedelta(seconds=90), None, 200),
    "unopened": lambda db: orphans.unopened(db, orphans.Window(NOW, NOW + AHEAD), 200),
    "fasts due": lambda db: orphans.sessions_due(db, [orphans.Window(NOW, NOW + AHEAD)], None, 200),
    "handoffs": lambda db: orphans.handoffs_not_done(db, timedelta(0), timedelta(days=1), None, 200),
    "in the outbox": lambda db: orphans.in_outbox(db, [uuid4() for _ in range(50)]),
    "hurried": lambda db: outbox.hurry(db, [uuid4() for _ in range(50)]),
    "signals": signals.present,
    "old tokens": lambda db: retention.purge(db, RetentionTarget.DEVICE_TOKENS, DEFAULT_KEEP),
    "an installation": lambda db: device_tokens.standing(db, "user-1", uuid4()),
}
LARGE = ("push_tasks", "push_attempts", "fasting_sessions", "device_tokens", "outbox")
COUNTED_BY = {"signals": "outbox"}  # of many, how long it is
FINISHED = """
    INSERT INTO fasting_sessions (id, user_id, started_at, ends_at, status, ended_at, reminder_minutes, scheduled_at,
                                  started_with, rev)
    SELECT gen_random_uuid(), 'user-' || n, at - interval '16 h', at, 'completed', at, '{30}', at, '{}', 2
      FROM (SELECT n, now() - n * interval '15 min' AS at FROM generate_series(1, :rows) AS n) AS each;
    INSERT INTO device_tokens (id, user_id, installation_id, provider, environment, token, active, inactive_reason,
                               registered_at, last_seen_at)
    SELECT gen_random_uuid(), user_id, id, 'apns', 'production', md5(user_id), false, 'signed_out', ends_at, ends_at
      FROM fasting_sessions;
    INSERT INTO push_tasks (task_id, kind, user_id, installation_id, device_id, provider, environment, conversation_id,
                            message_id, reminder_minutes, collapse_key, due_at, attempt_count, state, expires_at,
                            accepted_at, settled_at)
    SELECT gen_random_uuid(), 'reminder', d.user_id, d.installation_id, d.id, 'apns', 'production', d.installation_id,
           gen_random_uuid(), 30, '', last_seen_at, 1, 'accepted', last_seen_at, last_seen_at, last_seen_at
      FROM device_tokens AS d;
    INSERT INTO push_attempts (attempt_id, task_id, number, started_at, outcome)
    SELECT gen_random_uuid(), task_id, 1, due_at, 'accepted' FROM push_tasks;
    UPDATE push_tasks SET state = 'pending', accepted_at = NULL, settled_at = NULL, next_attempt_at = due_at,
                          expires_at = 'infinity', held_by = '00000000-0000-0000-0000-000000000001'
     WHERE task_id IN (SELECT task_id FROM push_tasks ORDER BY due_at DESC LIMIT 20);
    INSERT INTO messages (id, kind, conversation_id, number, sender_id, body)
    SELECT gen_random_uuid(), 'message', gen_random_uuid(), n, 'user-1', '' FROM generate_series(1, 20) AS n;
    INSERT INTO outbox (subject_kind, subject_id, next_attempt_at, needed_at)
    SELECT 'fasting_session', gen_random_uuid(), 'infinity', 'infinity' FROM generate_series(1, :rows)
"""
READ = "SELECT seq_scan, idx_tup_fetch FROM pg_stat_all_tables WHERE relid = CAST('pg_temp.' || :name AS regclass)"
ROWS = 3_000


@pytest.mark.parametrize("asked", LOOKS)
async def test_what_runs_again_and_again_reads_no_table_whole_and_little_of_what_is_finished(
    full: Sessions, asked: str
) -> None:
    before = await _read(full)

    for _ in range(PLANNED_AFTER + 2):
        async with full() as db:
            await LOOKS[asked](db)

    now = await _read(full)
    names = set(LARGE) - {COUNTED_BY.get(asked)}
    assert {name: now[name][0] - before[name][0] for name in names} == dict.fromkeys(names, 0)
    assert max(now[name][1] - before[name][1] for name in names) < ROWS


@pytest.fixture(scope="module")
async def full(stack: Stack) -> AsyncIterator[Sessions]:
    """One connection, with tables of its own that are large enough for the planner to choose."""
    engine = make_engine(stack.place.database_url, pool_size=1)
    sessions = make_sessions(engine)
    async with sessions.begin() as db:
        for table in (*LARGE, "messages"):
            await db.execute(text(f"CREATE TEMP TABLE {table} (LIKE public.{table} INCLUDING ALL)"))
        for statement in FINISHED.split(";"):
            await db.execute(text(statement), {"rows": ROWS} if ":rows" in statement else {})
        for table in LARGE:
            await db.execute(text(f"ANALYZE {table}"))
    yield sessions
    await engine.dispose()


async def _read(sessions: Sessions) -> dict[str, tuple[int, int]]:
    """Count how often each table was read whole, and the rows that were read by an index."""
    async with sessions.begin() as db:
        await db.execute(text("SELECT pg_stat_force_next_flush()"))
    async with sessions.begin() as db:
        return {name: tuple((await db.execute(text(READ), {"name": name})).one()) for name in LARGE}
