"""Streams of an HTTP/2 connection: how many there may be, what one can do, and bodies that wait for its window."""

import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from h2.connection import H2Connection
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hyperframe.frame import SettingsFrame

from simulator.exchange import Answer, Farewell, LastStream, Unprocessed

if TYPE_CHECKING:
    from simulator.http2 import Http2Connection


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """SETTINGS_MAX_CONCURRENT_STREAMS over the life of a connection."""

    initial: int
    raised: int  # after an accepted request
    after_rejection: int | None  # after a 4xx; None leaves it


class MovingLimit:
    """The stream limit of one connection. A change is announced with the next thing that is written."""

    def __init__(self, limits: StreamLimits) -> None:
        self._limits = limits
        self._next = limits.initial
        self.current = limits.initial

    def learn(self, status: int) -> None:
        """Move as the answer's status says."""
        if status < 300:
            self._next = self._limits.raised
        elif status < 500 and self._limits.after_rejection is not None:
            self._next = self._limits.after_rejection

    def announcement(self) -> bytes:
        """Give the SETTINGS frame that is due, if any; the new limit holds from here on."""
        if self._next == self.current:
            return b""
        self.current = self._next
        return SettingsFrame(0, settings={SettingCodes.MAX_CONCURRENT_STREAMS: self.current}).serialize()


class Http2Exchange:
    """One stream."""

    __slots__ = (
        "_connection",
        "body",
        "headers",
        "method",
        "path",
        "repeats_headers",
        "session",
        "stream_id",
        "turned_away",
    )

    def __init__(
        self,
        connection: "Http2Connection",
        stream_id: int,
        headers: list[tuple[bytes, bytes]],
        session: dict[bytes, Any],
    ) -> None:
        self._connection = connection
        self.stream_id = stream_id
        self.headers = dict(headers)
        self.repeats_headers = len(self.headers) != len(headers)
        self.method = self.headers.pop(b":method", b"")
        self.path = self.headers.pop(b":path", b"")
        self.body = b""
        self.session = session
        self.turned_away: Unprocessed | None = None  # by the connection itself

    def answer(self, answer: Answer) -> bool:
        """Send the response; False, and nothing happens, when the stream or connection is gone."""
        return self._connection.answer(self.stream_id, answer)

    def begin_answer(self, answer: Answer) -> None:
        """Send the response's head and half of its body."""
        self._connection.begin_answer(self.stream_id, answer)

    def reset(self, error_code: int) -> None:
        """RST_STREAM."""
        self._connection.reset(self.stream_id, error_code)

    def utter(self, kind: int, payload: bytes) -> None:
        """Send a frame as it is."""
        self._connection.utter(self.stream_id, kind, payload)

    def goaway(self, farewell: Farewell, last: LastStream) -> None:
        """GOAWAY with a true last_stream_id."""
        self._connection.goaway(self.stream_id, farewell, last)

    def abort(self) -> None:
        """Cut the connection."""
        self._connection.abort()

    def freeze(self) -> None:
        """Let the connection fall silent for good."""
        self._connection.freeze()


class Bodies:
    """Answers' bodies, sent as far as the client's windows admit them."""

    def __init__(self, connection: H2Connection) -> None:
        self._h2 = connection
        self._chunks: dict[int, deque[bytes]] = {}

    def __contains__(self, stream_id: int) -> bool:
        return stream_id in self._chunks

    def add(self, stream_id: int, chunks: tuple[bytes, ...]) -> None:
        """Queue a body."""
        self._chunks[stream_id] = deque(chunks)

    def drop(self, stream_id: int) -> None:
        """Forget a body, if there is one."""
        self._chunks.pop(stream_id, None)

    def send(self) -> Iterator[int]:
        """Send what the windows admit; gives the streams that are done."""
        for stream_id in list(self._chunks):
            with contextlib.suppress(ProtocolError):  # reset by the client meanwhile: nothing more to send
                if not self._sent(stream_id, self._chunks[stream_id]):
                    continue
            del self._chunks[stream_id]
            yield stream_id

    def _sent(self, stream_id: int, chunks: deque[bytes]) -> bool:
        while chunks:
            room = min(self._h2.local_flow_control_window(stream_id), self._h2.max_outbound_frame_size)
            if len(chunks[0]) <= room:
                self._h2.send_data(stream_id, chunks.popleft(), end_stream=not chunks)
            elif room > 0:
                self._h2.send_data(stream_id, chunks[0][:room])
                chunks[0] = chunks[0][room:]
            else:
                return False
        return True
