"""A pooler in front of PostgreSQL: by session all works through it; one by transaction is found by the doctor."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL

from db.engine import async_url
from simulator import Simulator
from tests.conftest import NewDatabase
from tests.debian import program
from tests.doctor.conftest import Examine
from tests.servers import free_port
from tests.stack import Stack, StackPlace, android, eventually, iphone, open_stack


@asynccontextmanager
async def pooler(database_url: str, mode: str) -> AsyncIterator[str]:
    """Run PgBouncer before a database; gives the address through it."""
    url, port = async_url(database_url), free_port()
    with tempfile.TemporaryDirectory(prefix="fastbell-") as directory:
        settings = settle(Path(directory), url, port, mode)
        process = await asyncio.create_subprocess_exec(program("pgbouncer"), "-q", str(settings))
        try:
            await listening(port)
            yield f"postgresql://{url.username}@127.0.0.1:{port}/{url.database}"
        finally:
            process.kill()
            await process.wait()


def settle(directory: Path, url: URL, port: int, mode: str) -> Path:
    """Write its settings. It does not run as root, so it runs as PostgreSQL does."""
    owner = Path(str(url.query["host"])).owner()
    settings = directory / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n{url.database} = host={url.query['host']} user={url.username}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        f"pool_mode = {mode}\n" + (f"user = {owner}\n" if os.geteuid() == 0 else "")
    )
    directory.chmod(0o755)
    return settings


async def listening(port: int) -> None:
    """Wait until somebody listens there."""

    async def is_heard() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            return False
        writer.close()
        return True

    await eventually(is_heard)


@pytest.mark.parametrize("mode", ["transaction", "statement"])
async def test_a_pooler_that_mixes_transactions_is_a_failure(examine: Examine, healthy: Stack, mode: str) -> None:
    async with pooler(healthy.place.database_url, mode) as address:
        [line] = await examine(DATABASE_URL=address)

    assert (line.area, line.level) == ("database", "failure")
    assert line.found == (
        "DATABASE_URL leads through a pooler that gives each transaction another connection (transaction mode)"
    )
    assert line.to_do is not None
    assert "pool_mode = session" in line.to_do


async def test_a_pooler_by_session_is_fine_and_reminders_go_through_it(
    examine: Examine, new_database: NewDatabase, temporal: str, simulator: Simulator
) -> None:
    async with pooler(await new_database("pooled"), "session") as address:
        place = StackPlace(address, temporal, "pooled", simulator)
        async with open_stack(place) as stack:
            user, phones = stack.user(), [iphone(), android()]
            await user.register(*phones)
            assert await stack.finished(await user.start_fast(due_in=1.0)) == "accepted"
            assert await examine(DATABASE_URL=address) == []

    for phone in phones:
        assert len(simulator.phone(phone.token).screen) == 1
