"""An exception of ours whose text quotes tokens: neither logs nor histories hold that text."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text

from tests.kept import kept_of
from tests.stack import Stack, android, eventually, iphone

_FUNCTION = """
    CREATE FUNCTION quote_tokens_{table}() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF EXISTS (SELECT FROM push_tasks WHERE task_id = NEW.task_id AND user_id = TG_ARGV[0]) THEN
                RAISE EXCEPTION 'not for %',
                    (SELECT string_agg(token, ' and ') FROM device_tokens WHERE user_id = TG_ARGV[0]);
            END IF;
            RETURN NULL;
        END $$
"""
_TRIGGER = """
    CREATE TRIGGER quote_tokens AFTER INSERT ON {table}
        FOR EACH ROW EXECUTE FUNCTION quote_tokens_{table}('{user_id}')
"""


async def test_neither_logs_nor_histories_hold_the_text_of_an_unexpected_exception(
    stack: Stack, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    user, phones = stack.user(), [iphone(), android()]
    await user.register(*phones)

    async with _quoting_tokens(stack, "push_attempts", user.user_id):
        async with _quoting_tokens(stack, "push_tasks", user.user_id):
            session_id = await user.start_fast(due_in=2.0)
            handle = stack.workflow(session_id)

            async def is_not_opened() -> bool:
                events = (await handle.fetch_history()).events
                return any(event.HasField("marker_recorded_event_attributes") for event in events)

            await stack.started(session_id)
            await eventually(is_not_opened)
            opening = await kept_of(handle)

        async def are_not_sent() -> bool:
            pending = (await handle.describe()).raw_description.pending_activities
            return len(pending) == 2 and all(each.HasField("last_failure") for each in pending)

        await eventually(are_not_sent)
        sending = await kept_of(handle)
    assert await stack.finished(session_id) == "accepted"

    kept = [opening, sending, await kept_of(handle)]
    logs = "".join(capsys.readouterr()) + caplog.text
    assert not [phone.provider for phone in phones if any(phone.token in each for each in (logs, *kept))]
    assert all('"message": "unexpected error"' in each for each in kept)
    assert logs.count("activity failed") >= 3


@asynccontextmanager
async def _quoting_tokens(stack: Stack, table: str, user_id: str) -> AsyncIterator[None]:
    """Let PostgreSQL refuse rows about somebody's pushes with words that hold their tokens."""
    async with stack.sessions.begin() as db:
        await db.execute(text(_FUNCTION.format(table=table)))
        await db.execute(text(_TRIGGER.format(table=table, user_id=user_id)))
    try:
        yield
    finally:
        async with stack.sessions.begin() as db:
            await db.execute(text(f"DROP FUNCTION quote_tokens_{table} CASCADE"))
