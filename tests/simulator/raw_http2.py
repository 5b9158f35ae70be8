"""A bare HTTP/2 client that does exactly what a test says, and writes down all it is told."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import h2.events as h2
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes
from hyperframe.frame import Frame, GoAwayFrame

from simulator import Simulator
from tests.busy import soon
from tests.simulator.tokens import provider_token, trusting

TOKEN = "a" * 64
PAYLOAD = {"aps": {"alert": {"title": "Title", "body": "Body"}}, "task_id": "task-1"}


@dataclass
class Heard:
    """What one stream was told."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    frames: list[bytes] = field(default_factory=list)
    is_ended: bool = False
    reset_code: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self.is_ended or self.reset_code is not None

    @property
    def body(self) -> Any:
        """The body as JSON."""
        return json.loads(b"".join(self.frames))


class RawHttp2(asyncio.Protocol):
    """One connection."""

    def __init__(self, sim: Simulator, window: int, credits_received_data: Callable[[], bool]) -> None:
        self.sim = sim
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.local_settings[SettingCodes.INITIAL_WINDOW_SIZE] = window
        self.h2.local_settings.acknowledge()
        self.limits: list[int] = []
        self.goaway: GoAwayFrame | None = None
        self.pings_answered = 0
        self._buffer = b""
        self.is_closed = False
        self.authorization = f"bearer {provider_token(sim)}"
        self.topic = sim.environment["APNS_TOPIC"]
        self._streams: defaultdict[int, Heard] = defaultdict(Heard)
        self._credits_received_data = credits_received_data
        self._news = asyncio.Event()
        self._transport: asyncio.Transport | None = None

    @classmethod
    @asynccontextmanager
    async def to(
        cls, sim: Simulator, port: int, *, alpn: str | None = "h2", window: int = 65_535
    ) -> AsyncIterator["RawHttp2"]:
        """Connect; a `window` below the default is never opened by itself."""
        context = trusting(sim)
        if alpn is not None:
            context.set_alpn_protocols([alpn])
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: cls(sim, window, lambda: window >= 65_535), "127.0.0.1", port, ssl=context
        )
        await connection.until(lambda: bool(connection.limits))
        try:
            yield connection
        finally:
            assert connection._transport is not None
            connection._transport.abort()
            await connection.until(lambda: connection.is_closed)

    def send(self, headers: dict[str, str] | None = None, body: bytes | None = None, *, token: str = TOKEN) -> int:
        """Send a right push, changed by `headers` (an empty value leaves one out); gives its stream."""
        stream_id = self.h2.get_next_available_stream_id()
        wanted = {
            ":method": "POST",
            ":scheme": "https",
            ":authority": "127.0.0.1",
            ":path": f"/3/device/{token}",
            "authorization": self.authorization,
            "apns-topic": self.topic,
            "apns-push-type": "alert",
        }
        wanted |= headers or {}
        content = json.dumps(PAYLOAD).encode() if body is None else body
        self.h2.send_headers(stream_id, [(name, value) for name, value in wanted.items() if value])
        self.h2.send_data(stream_id, content, end_stream=True)
        return stream_id

    def flush(self) -> None:
        """Write what was sent so far, at once."""
        assert self._transport is not None
        self._transport.write(self.h2.data_to_send())

    async def heard(self, stream_id: int) -> Heard:
        """Wait for a stream's end."""
        self.flush()
        await self.until(lambda: self._streams[stream_id].is_over)
        return self._streams[stream_id]

    def so_far(self, stream_id: int) -> Heard:
        """What a stream was told until now."""
        return self._streams[stream_id]

    async def push(
        self, headers: dict[str, str] | None = None, body: bytes | None = None, *, token: str = TOKEN
    ) -> Heard:
        """Send one push and wait for its answer."""
        return await self.heard(self.send(headers, body, token=token))

    async def until(self, is_true: Callable[[], bool], within: float = 20.0) -> None:
        """Wait until something heard makes it true."""
        async with soon(within):
            while not is_true():
                self._news.clear()
                await self._news.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._transport = cast(asyncio.Transport, transport)
        self.h2.initiate_connection()
        self.flush()

    def data_received(self, data: bytes) -> None:
        """Write down what is heard, frame by frame: h2 hears nothing after a GOAWAY, so it is kept from it."""
        self._buffer += data
        while len(self._buffer) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self._buffer[:9]))
            if len(self._buffer) < 9 + length:
                break
            whole, self._buffer = self._buffer[: 9 + length], self._buffer[9 + length :]
            if isinstance(frame, GoAwayFrame):
                frame.parse_body(memoryview(whole[9:]))
                self.goaway = frame
                continue
            for event in self.h2.receive_data(whole):
                self._hear(event)
        self.flush()
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio names it)
        """Write down the end."""
        self.is_closed = True
        self._news.set()

    def _hear(self, event: h2.Event) -> None:
        match event:
            case h2.RemoteSettingsChanged():
                changed = event.changed_settings.get(SettingCodes.MAX_CONCURRENT_STREAMS)
                if changed is not None:
                    self.limits.append(changed.new_value)
                    self.h2.remote_settings.max_concurrent_streams = 2**31 - 1  # the test decides, not h2
                    self.h2.remote_settings.acknowledge()
            case h2.ResponseReceived():
                headers = {str(name): str(value) for name, value in event.headers}
                self._streams[event.stream_id].status = int(headers.pop(":status"))
                self._streams[event.stream_id].headers = headers
            case h2.DataReceived():
                self._streams[event.stream_id].frames.append(event.data)
                if self._credits_received_data():
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.StreamEnded():
                self._streams[event.stream_id].is_ended = True
            case h2.PingAckReceived():
                self.pings_answered += 1
            case h2.StreamReset():
                self._streams[event.stream_id].reset_code = int(event.error_code)
            case _:
                pass
