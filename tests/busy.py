"""How busy the machine is: what bounds on time in tests are multiplied by.

A bound holds for a machine that has little else to do. Where several wait for each core everything takes as many times
longer, and nothing in it is the product's doing.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

ANSWERED_WITHIN = 40.0  # seconds; the API itself says after 30 that it is busy
_MOST = 3.0  # who needs more than this is in trouble of another kind
_WORK = 0.02  # seconds on a processor, of a sample


def crowding() -> float:
    """Say how many waited for each core during the last minute; 1 at least, and 3 at most."""
    return min(max(1.0, _waiting()), _MOST)


def lead(seconds: float) -> float:
    """Give the seconds that are left for what has to be done before an instant.

    Each is chosen for the load of `make test`, where two wait for each core, and grows beyond that.
    """
    return seconds * min(max(1.0, _waiting() / 2), _MOST)


@asynccontextmanager
async def soon(seconds: float) -> AsyncIterator[asyncio.Timeout]:
    """Bound a block to so many seconds, or to as many as those take on a machine as busy as this.

    How busy it is counts when the time is nearly over: the load of a minute says little of a run that has just begun.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(seconds) as bound:

        def look() -> None:
            bound.reschedule(began + seconds * max(crowding(), _stretch()))

        looking = loop.call_at(began + 0.9 * seconds, look)
        try:
            yield bound
        finally:
            looking.cancel()


def in_time(took: float, seconds: float) -> bool:
    """Tell whether something took less than so many seconds, or than those take on a machine as busy as this."""
    return took < seconds or took < seconds * max(crowding(), _stretch())


async def in_time_again(measure: Callable[[], Awaitable[float]], seconds: float) -> bool:
    """Tell whether what is measured takes less than so many seconds; where not, whether it does twice in a row after.

    What is slow by itself is so every time; a machine that stood still for a second is not.
    """
    return in_time(await measure(), seconds) or (
        in_time(await measure(), seconds) and in_time(await measure(), seconds)
    )


def _waiting() -> float:
    return os.getloadavg()[0] / (os.cpu_count() or 1)


def _stretch() -> float:
    """Say how many times longer work takes at this moment than it is on a processor."""
    began, worked = time.monotonic(), time.thread_time()
    while time.thread_time() - worked < _WORK:
        pass
    return min((time.monotonic() - began) / _WORK, _MOST)
