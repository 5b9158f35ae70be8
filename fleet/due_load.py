"""When thousands of sends are due at one instant, those that are done let the others go first.

A finished activity costs the Temporal server more CPU than the send itself. Reported at once, the first few hundred
would take the processors from those that are still to be sent. Nothing is lost by telling Temporal a moment later,
since the database knows the outcome.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

AT_MOST = 2.0  # seconds that a report is kept back
NEAR = 3.0  # seconds


class DueLoad:
    """The sends of this process that are due and not yet answered, of all providers, and those that soon will be."""

    def __init__(self) -> None:
        self._count = 0
        self._held = Counter[int]()  # by the second in which they come due, on the event loop's clock
        self._over = asyncio.Event()
        self._over.set()

    @contextmanager
    def taking_part(self) -> Iterator[None]:
        """Count as one of them."""
        self._count += 1
        self._over.clear()
        try:
            yield
        finally:
            self._count -= 1
            if not self._count:
                self._over.set()

    @contextmanager
    def expecting(self, seconds: float) -> Iterator[None]:
        """Hold a send that comes due in so many seconds."""
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
        """Wait until none is left, or for as long as is good for the workflow."""
        try:
            async with asyncio.timeout(AT_MOST):
                await self._over.wait()
        except TimeoutError:
            return
