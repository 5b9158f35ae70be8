"""Whether the database is ready, as one look at a time finds it: probes, however many, hold one connection."""

import asyncio

from db.engine import Sessions, is_ready

ANSWERS_WITHIN = 3.0  # seconds; a balancer's probe waits for little longer


class ReadinessLook:
    """Looks at the database for all who ask meanwhile."""

    def __init__(self, sessions: Sessions, *, within: float = ANSWERS_WITHIN) -> None:
        self.within = within  # seconds
        self._sessions = sessions
        self._under_way: asyncio.Task[bool] | None = None

    async def look(self) -> bool:
        """Tell whether the database is ready; raises TimeoutError. A look that hangs is given up for all who wait."""
        if self._under_way is None or self._under_way.done():
            self._under_way = asyncio.create_task(is_ready(self._sessions))
        looking = self._under_way
        await asyncio.wait({looking}, timeout=self.within)
        if looking.done() and not looking.cancelled():
            return looking.result()
        looking.cancel()
        if self._under_way is looking:
            self._under_way = None
        raise TimeoutError
