"""When thousands of sends are due at one instant, those that are done let the others go first.

A finished activity costs the Temporal server more CPU than the send itself. Reported at once, the first few hundred
would take the processors from those that are still to be sent. Nothing is lost by telling Temporal a moment later,
since the database knows the outcome.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

AT_MOST = 2.0  # seconds that a report is kept back


class Rush:
    """The sends of this process that are due and not yet answered, of all providers."""

    def __init__(self) -> None:
        self._count = 0
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

    async def over(self) -> None:
        """Wait until none is left, or for as long as is good for the workflow."""
        try:
            async with asyncio.timeout(AT_MOST):
                await self._over.wait()
        except TimeoutError:
            return
