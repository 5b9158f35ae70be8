"""What the database refuses, whatever the code does."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import make_engine, make_sessions, will_pass

TOKEN = (
    "INSERT INTO device_tokens (user_id, installation_id, provider, environment, token, active, inactive_reason,"
    " registered_at, last_seen_at) VALUES (:user, :installation, :provider, 'production', :token, :active, :reason,"
    " now(), now())"
)
SESSION = (
    "INSERT INTO fasting_sessions (id, user_id, started_at, ends_at, status, ended_at, reminder_minutes, scheduled_at,"
    " started_with, rev) VALUES (gen_random_uuid(), 'alice', now(), now() + CAST(CAST(:length AS text) AS interval),"
    " :status, to_timestamp(:ended_at), CAST(CAST(:minutes AS text) AS int[]), now(), '{}', 1)"
)


@pytest.fixture(scope="module")
async def engine(new_database: Callable[[str], Awaitable[str]]) -> AsyncIterator[AsyncEngine]:
    """A database of this module's own."""
    engine = make_engine(await new_database("constraints"))
    yield engine
    await engine.dispose()


async def insert(engine: AsyncEngine, statement: str, **values: Any) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(statement), values)


def token(**other: Any) -> dict[str, Any]:
    row = {"user": "alice", "installation": uuid4(), "provider": "fcm", "token": secrets.token_hex(8)}
    return row | {"active": True, "reason": None} | other


def session(**other: Any) -> dict[str, Any]:
    return {"length": "16 hours", "status": "active", "ended_at": None, "minutes": "{30}"} | other


async def test_a_token_has_one_active_owner_even_past_the_code(engine: AsyncEngine) -> None:
    row = token()
    await insert(engine, TOKEN, **row)

    await insert(engine, TOKEN, **token(token=row["token"], user="bob", active=False, reason="transferred"))
    await insert(engine, TOKEN, **token(token=row["token"], user="bob", provider="apns"))
    with pytest.raises(IntegrityError, match="uq_device_tokens_active_token"):
        await insert(engine, TOKEN, **token(token=row["token"], user="bob"))


async def test_an_installation_has_one_active_token_even_past_the_code(engine: AsyncEngine) -> None:
    row = token()
    await insert(engine, TOKEN, **row)

    with pytest.raises(IntegrityError, match="uq_device_tokens_active_installation"):
        await insert(engine, TOKEN, **token(installation=row["installation"], user="bob"))


@pytest.mark.parametrize(
    ("row", "constraint"),
    [(token(reason="why"), "inactive_has_reason"), (token(active=False), "inactive_has_reason")],
    ids=["active with a reason", "inactive without"],
)
async def test_an_inactive_token_and_only_an_inactive_one_has_a_reason(
    engine: AsyncEngine, row: dict[str, Any], constraint: str
) -> None:
    with pytest.raises(IntegrityError, match=constraint):
        await insert(engine, TOKEN, **row)


@pytest.mark.parametrize(
    ("row", "constraint"),
    [
        (session(length="0"), "ends_after_start"),
        (session(status="completed"), "finished_has_end"),
        (session(ended_at=0.0), "finished_has_end"),
        (session(minutes="{1,2,3,4,5,6}"), "few_reminders"),
    ],
    ids=str,
)
async def test_a_session_against_the_rules_cannot_be_stored(
    engine: AsyncEngine, row: dict[str, Any], constraint: str
) -> None:
    with pytest.raises(IntegrityError, match=constraint):
        await insert(engine, SESSION, **row)


async def test_no_errors_text_holds_a_token(engine: AsyncEngine) -> None:
    row = token()
    await insert(engine, TOKEN, **row)

    with pytest.raises(IntegrityError) as raised:
        await insert(engine, TOKEN, **token(token=row["token"]))

    assert row["token"] not in str(raised.value)


@pytest.mark.parametrize(
    ("statement", "passes"),
    [
        ("SELECT pg_terminate_backend(pg_backend_pid())", True),
        ("DO $$ BEGIN RAISE deadlock_detected; END $$", True),
        ("DO $$ BEGIN RAISE too_many_connections; END $$", True),
        ("SELECT 1 / 0", False),
        ("SELECT * FROM nothing", False),
    ],
)
async def test_the_servers_trouble_is_told_from_our_own(engine: AsyncEngine, statement: str, passes: bool) -> None:
    with pytest.raises(DBAPIError) as raised:
        async with make_sessions(engine)() as db:
            await db.execute(text(statement))

    assert will_pass(raised.value) is passes
