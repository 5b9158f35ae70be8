"""PostgreSQL starts where that takes longer than its package waits: on a busy machine, and after a crash."""

import asyncio
import os
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest

from db.engine import connect_alone
from demo.parts import start_postgres

_PACKAGE_WAITS = 10.0  # seconds


@pytest.mark.long
async def test_a_server_that_is_not_ready_for_ten_seconds_is_waited_for() -> None:
    with tempfile.TemporaryDirectory(prefix="fastbell-") as directory:  # not below pytest's own, which is its owner's
        data = Path(directory) / "data"
        start_postgres(data).cleanup()
        starting = asyncio.create_task(asyncio.to_thread(start_postgres, data))

        pid = await asyncio.to_thread(_first_seen, data / "postmaster.pid")
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(_PACKAGE_WAITS + 1)
        finally:
            os.kill(pid, signal.SIGCONT)

        server = await starting
        try:
            connection = await connect_alone(server.get_uri(), "test")
            assert await connection.fetchval("SELECT 1") == 1
            await connection.close()
        finally:
            server.cleanup()


def _first_seen(file: Path) -> int:
    """Read the pid as soon as it is written, when the server has hardly begun."""
    while True:
        with suppress(OSError, IndexError, ValueError):
            return int(file.read_text().splitlines()[0])
        time.sleep(0.001)
