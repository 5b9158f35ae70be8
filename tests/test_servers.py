"""What the tests know of a process that they started."""

import sys
from asyncio import Event, create_subprocess_exec, create_task
from asyncio.subprocess import PIPE

import pytest

from tests.servers import Part


async def test_the_last_words_of_a_process_are_heard_though_it_is_dead_before_they_are_read() -> None:
    process = await create_subprocess_exec(sys.executable, "-c", "print('farewell')", stdout=PIPE)
    assert await process.wait() == 0
    lines: list[str] = []
    news = Event()

    async def read() -> None:
        said, _ = await process.communicate()
        lines.append(said.decode())
        news.set()

    dead = Part(process, lines, create_task(read()), news)

    await dead.says("farewell")

    with pytest.raises(AssertionError, match="farewell"):
        await dead.says("something else")
