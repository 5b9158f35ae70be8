"""Bounds on time: what the machine loses while it stands still counts in none of them, and own work counts in each."""

import asyncio
import time

from tests.busy import in_time, soon, stood_still

PAUSE = "kill -STOP $PPID; sleep 0.7; kill -CONT $PPID"


async def _stand_still() -> None:
    """Freeze this process for a moment, as a virtual machine does."""
    pause = await asyncio.create_subprocess_exec("sh", "-c", PAUSE)
    assert await pause.wait() == 0


async def test_a_moment_in_which_the_process_stood_still_is_no_ones_delay() -> None:
    began = time.monotonic()
    await _stand_still()
    took = time.monotonic() - began
    while stood_still(since=began) < 0.5:  # the watch wakes too
        await asyncio.sleep(0.02)

    assert in_time(took, 0.4)


async def test_a_block_is_given_the_moment_in_which_the_process_stood_still() -> None:
    async with soon(1.0):
        await _stand_still()
        await asyncio.sleep(0.6)


async def test_own_work_is_no_standstill() -> None:
    await asyncio.sleep(0.2)  # what stood still before is on record
    began, worked = time.monotonic(), time.thread_time()
    while time.thread_time() - worked < 0.5:
        sum(range(1000))

    off_the_processor = time.monotonic() - began - 0.5
    assert stood_still(since=began) < off_the_processor + 0.2
