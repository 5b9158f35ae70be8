"""The operators' commands, in a process of their own."""

import asyncio
import os
import sys

from tests.busy import soon
from tests.stack import ROOT, Stack


async def run(stack: Stack, *words: str, **settings: str) -> tuple[int | None, str, str]:
    """Run a command; gives exit status, output and complaints."""
    environment = {**os.environ, "LOGNAME": "erin", "DATABASE_URL": stack.place.database_url, **settings}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "cli.py",
        *words,
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with soon(30):
        out, complaints = await process.communicate()
    return process.returncode, out.decode(), complaints.decode()
