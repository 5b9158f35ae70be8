"""A way from a worker to a server, which tests cut: what was said stays on it, and nobody is told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class Wire:
    """Carries every connection until it is cut. One on which the last words were said, in their order, stays mute."""

    def __init__(self, connect: Connect, last_words: Sequence[bytes]) -> None:
        self._connect = connect
        self._last_words = last_words
        self._whole = asyncio.Event()
        self._whole.set()
        self._pumps: set[asyncio.Task[None]] = set()
        self.port = 0

    def cut(self) -> None:
        """Let nothing pass from here on."""
        self._whole.clear()

    async def join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Connect one more."""
        there, back = await self._connect()
        answers = asyncio.Event()
        answers.set()
        for pump in (self._ask(reader, back, answers), self._carry(there, writer, answers)):
            task = asyncio.create_task(pump)
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def close(self) -> None:
        """End every connection."""
        for pump in (pumps := list(self._pumps)):
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    async def _ask(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, answers: asyncio.Event) -> None:
        unsaid = list(self._last_words)
        async with _closing(sink):
            while content := await source.read(65_536):
                if unsaid and unsaid[0] in content:
                    unsaid.pop(0)
                    if not unsaid:
                        answers.clear()
                await self._whole.wait()
                sink.write(content)
                await sink.drain()

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, passes: asyncio.Event) -> None:
        async with _closing(sink):
            while content := await source.read(65_536):
                await passes.wait()
                await self._whole.wait()
                sink.write(content)
                await sink.drain()


@asynccontextmanager
async def wire(connect: Connect, last_words: Sequence[bytes] = ()) -> AsyncIterator[Wire]:
    """Open a way to whatever `connect` leads to."""
    way = Wire(connect, last_words)
    server = await asyncio.start_server(way.join, "127.0.0.1", 0)
    way.port = server.sockets[0].getsockname()[1]
    try:
        yield way
    finally:
        server.close()
        await way.close()


@asynccontextmanager
async def _closing(sink: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    except ConnectionError:
        return
    finally:
        sink.close()
