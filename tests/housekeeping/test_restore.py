"""A backup: taken under load as the documents say, restored beside an empty Temporal, and every reminder comes once."""

import asyncio
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from db.engine import async_url
from simulator import Simulator
from tests.busy import lead
from tests.conftest import NewDatabase
from tests.housekeeping.test_sweeper import sweeping
from tests.servers import POSTGRES_PROGRAMS
from tests.stack import Stack, StackPlace, User, eventually, iphone, make_app, make_stack, open_stack, working


@pytest.mark.long
async def test_a_dump_taken_under_load_is_restored_and_each_reminder_comes_once(
    new_database: NewDatabase, postgres: str, temporal: str, simulator: Simulator, tmp_path: Path
) -> None:
    place = StackPlace(await new_database("dumped"), temporal, "dumped", simulator)
    dump, phones = tmp_path / "fastbell.dump", [iphone() for _ in range(20)]
    async with open_stack(place) as stack:
        people = [stack.user() for _ in phones]
        for user, phone in zip(people, phones, strict=True):
            await user.register(phone)
        over = await people[0].start_fast(due_in=0.5)
        assert await stack.finished(over) == "accepted"
        ahead = [await user.start_fast(due_in=lead(20.0)) for user in people[1:]]
        writing = asyncio.create_task(_write(people[0]))
        await _run("pg_dump", "--format", "custom", "--file", str(dump), _plain(place.database_url))
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)

    elsewhere = f"restored_{uuid4().hex[:8]}"
    await _create(postgres, elsewhere)
    restored = replace(place, database_url=_named(postgres, elsewhere), namespace="restored")
    await _run("pg_restore", "--exit-on-error", "--dbname", _plain(restored.database_url), str(dump))
    async with make_stack(restored, make_app(restored)) as stack:
        lost = [
            row.due_at
            for row in await stack.rows("SELECT ends_at - interval '1 minute' AS due_at FROM fasting_sessions")
        ]
        assert max(lost) > datetime.now(UTC) + timedelta(seconds=2), "restoring took too long for this test"
        async with working(stack, restored.environment()), sweeping(stack, untouched=1.0):
            await eventually(lambda: _all_accepted(stack, ahead), within=60)

    assert [len(simulator.requests.for_token(phone.token)) for phone in phones] == [1] * len(phones)


async def _all_accepted(stack: Stack, fasts: Sequence[UUID]) -> bool:
    tasks = [task for session_id in fasts for task in await stack.tasks(session_id)]
    return len(tasks) == len(fasts) and {task.state for task in tasks} == {"accepted"}


async def _write(user: User) -> None:
    """Start fasts, and cancel them again, until cancelled."""
    while True:
        await user.cancel(await user.start_fast(due_in=3600.0))


async def _run(program: str, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(POSTGRES_PROGRAMS / program, *arguments, stdout=PIPE, stderr=STDOUT)
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


async def _create(postgres: str, name: str) -> None:
    engine = create_async_engine(async_url(postgres), isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {name}"))
    await engine.dispose()


def _plain(address: str) -> str:
    """Write an address as PostgreSQL's own programs read it."""
    return async_url(address).set(drivername="postgresql").render_as_string(hide_password=False)


def _named(postgres: str, name: str) -> str:
    return async_url(postgres).set(database=name).render_as_string(hide_password=False)
