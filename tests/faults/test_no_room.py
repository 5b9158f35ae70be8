"""Apple's limit drops to one between a push's last check and its call, while a slow call has the one place."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from sqlalchemy import text

from tests.faults.service import Service, in_time, undisturbed
from tests.stack import Phone, Stack, eventually, iphone, uncommitted

_FUNCTION = """
    CREATE FUNCTION hold_claim() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF EXISTS (SELECT FROM push_tasks WHERE task_id = NEW.task_id AND installation_id = TG_ARGV[0]::uuid) THEN
                WHILE NOT pg_try_advisory_xact_lock(42) LOOP
                    PERFORM pg_sleep(0.01);
                END LOOP;
            END IF;
            RETURN NEW;
        END $$
"""
_TRIGGER = """
    CREATE TRIGGER hold_claim BEFORE INSERT ON push_attempts
        FOR EACH ROW EXECUTE FUNCTION hold_claim('{installation_id}')
"""
_HELD = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"


async def test_a_push_that_finds_no_room_after_its_check_costs_no_attempt_and_is_called_once(service: Service) -> None:
    checked, slow, dead = iphone(), iphone(), iphone()
    service.simulator.faults.add(provider="apns", token=slow.token, fault="slow", delay=1.8, count=1)
    service.simulator.faults.add(
        provider="apns", token=dead.token, fault="answer", status=410, reason="ExpiredToken", timestamp=1
    )
    async with _held_claim(service.stack, checked):
        fasts = await service.fasts([checked], due_in=1.0)
        await eventually(lambda: service.stack.rows(_HELD))
        fasts |= await service.fasts([slow], due_in=1.0)
        fasts |= await service.fasts([dead], due_in=1.3)
        await eventually(lambda: _has_state(service, fasts[dead], "unregistered"))  # by now the limit is one

    await service.all_wait({checked: fasts[checked]})
    [waiting] = await service.stack.tasks(fasts[checked])
    attempts = await service.stack.rows("SELECT 1 FROM push_attempts WHERE task_id = :id", id=waiting.task_id)
    pushed = await service.came_to(fasts)

    assert (waiting.last_reason, waiting.attempt_count, attempts) == ("no_room_on_connection", 0, [])
    assert [each for each in pushed[:2] if not (undisturbed(each) and in_time(each))] == []
    [task] = await service.stack.tasks(fasts[checked])
    assert task.attempt_count == 1


@asynccontextmanager
async def _held_claim(stack: Stack, phone: Phone) -> AsyncIterator[None]:
    """Let PostgreSQL keep a push between its check and the record of its attempt until the block is left."""
    async with stack.sessions.begin() as db:
        await db.execute(text(_FUNCTION))
        await db.execute(text(_TRIGGER.format(installation_id=phone.installation_id)))
    try:
        async with uncommitted(stack, "SELECT pg_advisory_xact_lock(42)"):
            yield
    finally:
        async with stack.sessions.begin() as db:
            await db.execute(text("DROP FUNCTION hold_claim CASCADE"))


async def _has_state(service: Service, session_id: UUID, state: str) -> bool:
    return [task.state for task in await service.stack.tasks(session_id)] == [state]
