"""How busy the machine is: what bounds on time in tests are multiplied by.

A bound holds for a machine that has little else to do. Where several wait for each core everything takes as many times
longer, and nothing in it is the product's doing. Nor is a moment in which the whole machine stands still.
"""

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

ANSWERED_WITHIN = 40.0  # seconds; the API itself says after 30 that it is busy
_MOST = 3.0  # who needs more than this is in trouble of another kind
_WORK = 0.02  # seconds on a processor, of a sample
_LOOKS_EVERY = 0.05  # seconds
_STILL = 0.15  # seconds; who was neither at work nor awake for so long stood still
_REMEMBERED = 20.0  # seconds; what `in_time` judges ended just before


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
        looking: asyncio.TimerHandle

        def look(until: float) -> None:
            nonlocal looking
            longer = began + seconds * max(crowding(), _stretch()) + stood_still(since=began)
            if longer > until:
                bound.reschedule(longer)
            if longer > until + 0.1 * seconds:
                looking = loop.call_at(longer - 0.1 * seconds, look, longer)

        looking = loop.call_at(began + 0.9 * seconds, look, began + seconds)
        try:
            yield bound
        finally:
            looking.cancel()


def in_time(took: float, seconds: float) -> bool:
    """Tell whether something took less than so many seconds, or than those take on a machine as busy as this.

    What it lost while the machine stood still does not count. A defect makes it late each time, not only then.
    """
    return took < seconds or took < seconds * max(crowding(), _stretch()) + stood_still()


def stood_still(*, since: float | None = None) -> float:
    """Say for how many seconds this process was kept from running: since an instant, or of late."""
    since = time.monotonic() - _REMEMBERED if since is None else since
    return sum(lasted for ended, lasted in tuple(_stalls) if ended > since)


def _watch() -> None:
    """Notice when nothing ran in this process though it was time; its own work, however long, is no such time."""
    while True:
        began, worked = time.monotonic(), time.process_time()
        time.sleep(_LOOKS_EVERY)
        ended = time.monotonic()
        lost = ended - began - _LOOKS_EVERY - (time.process_time() - worked)
        if lost > _STILL:
            _stalls.append((ended, lost))


_stalls = deque[tuple[float, float]](maxlen=1000)
threading.Thread(target=_watch, name="stalls", daemon=True).start()


async def quick(measure: Callable[[], Awaitable[float]], seconds: float) -> bool:
    """Tell whether something takes less than so many seconds; where it did not, it then has to twice in a row.

    A defect is late every time, a machine that stood still for a moment is not. Only for speed, never for correctness.
    """
    if in_time(await measure(), seconds):
        return True
    return in_time(await measure(), seconds) and in_time(await measure(), seconds)


def _waiting() -> float:
    return os.getloadavg()[0] / (os.cpu_count() or 1)


def _stretch() -> float:
    """Say how many times longer work takes at this moment than it is on a processor."""
    began, worked = time.monotonic(), time.thread_time()
    while time.thread_time() - worked < _WORK:
        pass
    return min((time.monotonic() - began) / _WORK, _MOST)
