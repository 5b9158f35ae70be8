"""A scripted HTTP/2 server on a plain socket: what it does with each request is up to the test."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, PingReceived, RequestReceived, StreamEnded
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from tests.busy import soon


@dataclass(slots=True, eq=False)
class Request:
    """One whole request, and the means to answer it."""

    connection: "PeerConnection"
    stream_id: int
    headers: dict[str, str]
    body: bytes = b""

    def answer(self, status: int = 200, *pieces: bytes, headers: dict[str, str] | None = None) -> None:
        """Answer in so many DATA frames; none at all without pieces."""
        fields = [(":status", str(status)), *(headers or {}).items()]
        self.connection.h2.send_headers(self.stream_id, fields, end_stream=not pieces)
        for number, piece in enumerate(pieces, 1):
            self.connection.h2.send_data(self.stream_id, piece, end_stream=number == len(pieces))
        self.connection.flush()

    def begin_answer(self, status: int) -> None:
        """Send the status line and nothing more."""
        self.connection.h2.send_headers(self.stream_id, [(":status", str(status))])
        self.connection.flush()

    def reset(self, code: ErrorCodes) -> None:
        """Send RST_STREAM."""
        self.connection.h2.reset_stream(self.stream_id, code)
        self.connection.flush()


class PeerConnection(asyncio.Protocol):
    """One connection, as the server sees it."""

    def __init__(self, peer: "Peer") -> None:
        self.peer = peer
        config = H2Configuration(
            client_side=False,
            header_encoding="utf-8",
            validate_outbound_headers=peer.validates,
            normalize_outbound_headers=peer.validates,
        )
        self.h2 = H2Connection(config)
        first = {SettingCodes.MAX_CONCURRENT_STREAMS: peer.limit, SettingCodes.INITIAL_WINDOW_SIZE: peer.window}
        self.h2.local_settings = Settings(client=False, initial_values=first)
        self.open: dict[int, Request] = {}
        self.is_deaf = False
        self.pings = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.peer.connections.append(self)
        self.peer.opened_at.append(asyncio.get_running_loop().time())
        if self.peer.slams:
            self.reset()
        elif not self.peer.is_mute:
            self.h2.initiate_connection()
            self.flush()

    def data_received(self, data: bytes) -> None:
        if self.is_deaf or self.peer.is_mute:
            return
        for event in self.h2.receive_data(data):
            match event:
                case RequestReceived():
                    headers = {str(name): str(value) for name, value in event.headers}
                    self.open[event.stream_id] = Request(self, event.stream_id, headers)
                    if self.peer.is_hasty:
                        self.open[event.stream_id].answer(413)
                case DataReceived():
                    self.open[event.stream_id].body += event.data
                    if self.peer.gives_credit:
                        self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case StreamEnded():
                    request = self.open.pop(event.stream_id)
                    self.peer.requests.append(request)
                    self.peer.arrived.set()
                    self.peer.script(request)
                case PingReceived():
                    self.pings += 1
                case _:
                    pass
        self.flush()

    def limit(self, streams: int) -> None:
        """Change the stream limit."""
        self.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: streams})
        self.flush()

    def credit(self, size: int, stream_id: int | None = None) -> None:
        """Widen a window."""
        self.h2.increment_flow_control_window(size, stream_id)
        self.flush()

    def go_away(self, last_stream_id: int, said: bytes = b'{"reason":"Shutdown"}') -> None:
        """Send GOAWAY and stay."""
        frame = GoAwayFrame(0, last_stream_id=last_stream_id, error_code=0, additional_data=said)
        self.transport.write(frame.serialize())

    def reset(self) -> None:
        """Cut the connection."""
        self.transport.abort()

    def flush(self) -> None:
        self.transport.write(self.h2.data_to_send())


class Peer:
    """The server."""

    def __init__(self, *, limit: int = 1000, window: int = 65535) -> None:
        self.limit = limit
        self.window = window
        self.script: Callable[[Request], None] = Request.answer
        self.requests: list[Request] = []
        self.connections: list[PeerConnection] = []
        self.arrived = asyncio.Event()
        self.opened_at: list[float] = []  # of each line, the loop's clock
        self.is_mute = False
        self.slams = False  # cuts each connection at once
        self.is_hasty = False  # answers 413 before the body has come
        self.gives_credit = True
        self.validates = True  # its own headers
        self.url = ""

    async def received(self, count: int) -> list[Request]:
        """Wait until so many requests came."""
        async with soon(5):
            while len(self.requests) < count:
                self.arrived.clear()
                await self.arrived.wait()
        return self.requests


@asynccontextmanager
async def listening(peer: Peer) -> AsyncIterator[Peer]:
    """Open the port."""
    server = await asyncio.get_running_loop().create_server(lambda: PeerConnection(peer), "127.0.0.1", 0)
    peer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield peer
    finally:
        server.close()
        for connection in peer.connections:
            connection.transport.abort()
        await server.wait_closed()
