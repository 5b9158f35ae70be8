"""The parts of a run: started one after the other, stopped in reverse, none outliving another."""

import asyncio
import time
from collections.abc import Awaitable, Iterable
from contextlib import suppress
from typing import Protocol

import httpx

from local_parts.terminal import Terminal

_PATIENCE = 60.0  # seconds until a part must be ready
_STOP_PATIENCE = 35.0  # seconds; the worker's own grace for sends under way is 25


class NotReady(Exception):
    """A part does not get ready; the message is one sentence."""


class Part(Protocol):
    """Something that runs."""

    name: str
    ended: asyncio.Task[int]

    @property
    def pid(self) -> int | None:
        """Its process."""
        ...

    @property
    def last_lines(self) -> Iterable[str]:
        """What it logged last."""
        ...

    async def stop(self, patience: float) -> None:
        """End it."""
        ...


class Parts:
    """Those that run, in the order in which they were started."""

    def __init__(self, terminal: Terminal) -> None:
        self.first_ended: asyncio.Future[Part] = asyncio.get_running_loop().create_future()
        self._terminal = terminal
        self._running: list[Part] = []
        self._began = time.monotonic()

    async def add(self, part: Part, ready: Awaitable[None]) -> None:
        """Watch a part from now on, and wait until it is ready; raises NotReady."""
        self._running.append(part)
        part.ended.add_done_callback(lambda _: self._note_end(part))
        try:
            async with asyncio.timeout(_PATIENCE):
                await ready
        except TimeoutError:
            self.show_last_lines(part)
            raise NotReady(f"{part.name} was not ready within {_PATIENCE:.0f} s.") from None
        took = time.monotonic() - self._began
        self._terminal.say(f"  {part.name:<9}  ready at {took:4.1f} s, process {part.pid}")

    def show_last_lines(self, part: Part) -> None:
        """Show how a part's log ends."""
        for line in part.last_lines:
            self._terminal.part_says(part.name, "", line)

    async def stop(self) -> None:
        """Stop all, the last started first."""
        self._terminal.hides_parts = True
        while self._running:
            await self._running.pop().stop(_STOP_PATIENCE)

    def _note_end(self, part: Part) -> None:
        if not self.first_ended.done():
            self.first_ended.set_result(part)


async def answering(http: httpx.AsyncClient, url: str) -> None:
    """Wait until an address answers with success."""
    while True:
        with suppress(httpx.HTTPError):
            if (await http.get(url)).is_success:
                return
        await asyncio.sleep(0.05)
