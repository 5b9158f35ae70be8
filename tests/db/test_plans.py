"""Statements for many rows look each up by an index, also by a plan that was made while the table was small."""

import secrets
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from db import fasting_sessions
from db.device_token_imports import DeviceRequest, register_all
from db.device_tokens import Registration
from db.fasting_sessions import Dispatched
from db.push_tasks import DueMessage, plan_and_list
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
