"""When thousands of sends are due at one instant, the finished ones are reported after the others' calls.

A finished activity costs the Temporal server more CPU than the send itself. A later report loses nothing, since the
database has the outcome.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

MAX_DELAY = 2.0  # seconds, of a report
NEAR = 3.0  # seconds


class DueWaits:
    """Waits until sends are due: a timer for each, and one task for all, which ends them when the worker stops."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[bool]] = set()
        self._watch: asyncio.Task[None] | None = None

    async def until_due(self, seconds: float, shutdown: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Wait so many seconds; False if `shutdown` returned before."""
        loop = asyncio.get_running_loop()
        due: asyncio.Future[bool] = loop.create_future()
        timer = loop.call_later(seconds, _settle, due, True)
        self._waiting.add(due)
        if self._watch is None or self._watch.done():
            self._watch = loop.create_task(self._end_at(shutdown))
        try:
            return await due
        finally:
            timer.cancel()
            self._waiting.discard(due)
            if not self._waiting and self._watch is not None:
                self._watch.cancel()
                self._watch = None  # whoever waits next in this very turn needs one that lives

    async def _end_at(self, shutdown: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await shutdown()
        for due in self._waiting:
            _settle(due, False)


def _settle(due: asyncio.Future[bool], is_due: bool) -> None:
    if not due.done():
        due.set_result(is_due)


class DueLoad:
    """The sends of this process, of all providers, that are due and not answered, and those that are due soon."""

    def __init__(self) -> None:
        self._count = 0
        self._held = Counter[int]()  # by the second in which they come due, on the event loop's clock
        self._over = asyncio.Event()
        self._over.set()

    @contextmanager
    def taking_part(self) -> Iterator[None]:
        """Count one send as due until it is over."""
        self._add()
        try:
            yield
        finally:
            self._take_off()

    @contextmanager
    def not_yet(self) -> Iterator[None]:
        """Count one that takes part as not due, while it waits for its instant."""
        self._take_off()
        try:
            yield
        finally:
            self._add()

    def _add(self) -> None:
        self._count += 1
        self._over.clear()

    def _take_off(self) -> None:
        self._count -= 1
        if not self._count:
            self._over.set()

    @contextmanager
    def expecting(self, seconds: float) -> Iterator[None]:
        """Count one send as due in so many seconds."""
        due = int(asyncio.get_running_loop().time() + seconds)
        self._held[due] += 1
        try:
            yield
        finally:
            self._held[due] -= 1
            if not self._held[due]:
                del self._held[due]

    def is_near(self) -> bool:
        """Whether a send is due, or will be within some seconds."""
        now = asyncio.get_running_loop().time()
        return self._count > 0 or min(self._held, default=now + NEAR) < now + NEAR

    async def over(self) -> None:
        """Wait until no send is due, at most MAX_DELAY."""
        try:
            async with asyncio.timeout(MAX_DELAY):
                await self._over.wait()
        except TimeoutError:
            return
