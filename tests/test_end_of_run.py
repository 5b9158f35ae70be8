"""A run of the tests ends and tells what failed, whatever a test leaves behind."""

import asyncio
import sys
from pathlib import Path

import pytest

from tests.busy import soon

ROOT = Path(__file__).parent.parent
LEAKS = """
import asyncio, socket

server = socket.create_server(("127.0.0.1", 0))
left = []


async def test_that_forgets_a_connection():
    await asyncio.open_connection(sock=socket.create_connection(server.getsockname()))


async def test_that_leaves_a_connection_open():
    left.append(await asyncio.open_connection(*server.getsockname()))
"""


@pytest.mark.long
async def test_a_connection_that_a_test_leaves_open_keeps_no_run_from_ending(tmp_path: Path) -> None:
    path = tmp_path / "test_leak.py"
    path.write_text(LEAKS)

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml"), "-p", "tests.conftest", str(path)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with soon(30):
            printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()

    assert b"1 failed, 1 passed" in printed, printed.decode()
