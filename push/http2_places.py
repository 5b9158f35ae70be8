"""Places for calls on one HTTP/2 connection: how many there are, by the peer's stream limit and its window."""

import asyncio

from push.http2_pulse import ANSWERS_WITHIN
from push.http2_streams import Streams
from push.sender import Fate, NoRoom

IN_FLIGHT_AT_MOST = 100  # more on one connection only lengthen the tail
LEAST_BODY, MOST_BODY = 512, 4096  # bytes of window set aside for a place whose body is not known yet


class Places:
    """A place is taken first, and used or given back later. The peer may change its mind meanwhile."""

    def __init__(self, streams: Streams) -> None:
        self._loop = asyncio.get_running_loop()
        self._streams = streams
        self._taken = 0
        self._aside = LEAST_BODY  # as much as the largest bodies of late
        self._starters: list[asyncio.Future[None]] = []

    @property
    def free(self) -> int:
        """Places that can be taken, as far as limit and window go."""
        return 0 if self._lacks_window else self._limit - self._taken - len(self._streams.calls)

    @property
    def full(self) -> bool:
        """Whether another connection would help.

        At a limit of one it would not, since Apple lifts that after one success: unless the call under way is not
        answered. One phone whose calls hang would hold up everybody else's until they time out.
        """
        if self._limit > 1:
            return self._taken + len(self._streams.calls) >= self._limit or self._lacks_window
        oldest = next(iter(self._streams.calls.values()), None)
        return oldest is not None and self._loop.time() - oldest.sent_at >= ANSWERS_WITHIN

    @property
    def idle(self) -> bool:
        """Whether none is taken and no call is under way."""
        return not self._taken and not self._streams.calls

    def take(self) -> None:
        """Take a place."""
        self._taken += 1

    def give_back(self) -> None:
        """Return a place."""
        self._taken -= 1

    def use(self, size: int) -> None:
        """Turn a place into a call with a body of so many bytes."""
        self._taken -= 1
        self._aside = min(max(size, LEAST_BODY, self._aside - self._aside // 64), MOST_BODY)

    def may_start(self, size: int) -> bool:
        """Whether a call with a body of so many bytes may start now."""
        return len(self._streams.calls) < self._limit and self._streams.window >= size

    async def change(self, until: float) -> None:
        """Wait until `may_start` is worth another look; raises NoRoom when that takes too long by the loop's clock."""
        starter = self._loop.create_future()
        self._starters.append(starter)
        try:
            async with asyncio.timeout_at(until):
                await starter
        except TimeoutError:
            raise NoRoom("no_room_on_connection", Fate.NOT_SENT) from None
        if self._loop.time() > until:  # the process stood still; whoever asked may have lost its leave by now
            raise NoRoom("no_room_on_connection", Fate.NOT_SENT)

    def changed(self) -> None:
        """Let those who wait look again."""
        starters, self._starters = self._starters, []
        for starter in starters:
            if not starter.done():
                starter.set_result(None)

    @property
    def _limit(self) -> int:
        return min(self._streams.limit, IN_FLIGHT_AT_MOST)

    @property
    def _lacks_window(self) -> bool:
        return self._streams.window < self._aside * (self._taken + 1)
