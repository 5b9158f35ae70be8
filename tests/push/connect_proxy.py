"""A small HTTP proxy on a plain socket: it notes what it is asked for, and opens tunnels unless told otherwise."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\nVia: 1.1 proxy\r\n\r\n"


class ConnectProxy:
    """The proxy."""

    def __init__(self) -> None:
        self.url = ""
        self.answer: bytes | None = ESTABLISHED  # None: silence
        self.heads: list[list[str]] = []  # the lines of every request
        self._lines: set[asyncio.StreamWriter] = set()

    @property
    def targets(self) -> list[str]:
        """Where the tunnels were to lead."""
        return [head[0].split()[1] for head in self.heads]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self._lines.add(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head.decode().strip().split("\r\n"))
            if self.answer is None:
                await reader.read()
            elif self.answer is ESTABLISHED:
                await self._tunnel(reader, writer)
            else:
                writer.write(self.answer)
                await writer.drain()
        writer.close()

    def cut(self) -> None:
        """Cut every connection."""
        for writer in self._lines:
            writer.transport.abort()

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self.targets[-1].split(":")
        from_target, to_target = await asyncio.open_connection(host, int(port))
        self._lines.add(to_target)
        for piece in (ESTABLISHED[:20], ESTABLISHED[20:]):  # an answer may come in pieces
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        await asyncio.gather(_copy(reader, to_target), _copy(from_target, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def proxying() -> AsyncIterator[ConnectProxy]:
    """Open the port."""
    proxy = ConnectProxy()
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        proxy.cut()
        await server.wait_closed()
