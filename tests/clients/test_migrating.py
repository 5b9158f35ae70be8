"""docs/migrating.md does what it says: its commands are run one after the other, as somebody types them."""

import asyncio
import os
import re
import textwrap
from pathlib import Path

import pytest

from tests.servers import ROOT
from tests.stack import SECRET, Stack

PAGE = ROOT / "docs" / "migrating.md"
BLOCK = re.compile(r"(?<=\n\n)((?: {4,}.*\n|\n(?= {4}))+)")


def commands(page: str) -> str:
    """Give the indented blocks of a page as one script."""
    return "\n".join(textwrap.dedent(block) for block in BLOCK.findall(page))


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_the_commands_of_the_page_import_tokens_rehearse_and_go_back(stack: Stack, tmp_path: Path) -> None:
    for name in (".venv", "cli.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    script = commands(PAGE.read_text()).replace("http://127.0.0.1:8000", str(stack.http.base_url).rstrip("/"))
    environment = {"DATABASE_URL": stack.place.database_url, "AUTH_JWT_SECRET": SECRET}

    process = await asyncio.create_subprocess_exec(
        *("bash", "-e", "-c", script),
        cwd=tmp_path,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out = (await process.communicate())[0].decode()

    assert process.returncode == 0, out
    assert "carol 422 " in out
    assert await stack.rows("SELECT status FROM fasting_sessions WHERE user_id = 'bob'") == [("cancelled",)]
    active = "SELECT user_id, provider FROM device_tokens WHERE user_id IN ('alice', 'bob') AND active AND locale <> ''"
    assert {tuple(row) for row in await stack.rows(active)} >= {("alice", "apns"), ("bob", "fcm")}
