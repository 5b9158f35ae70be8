"""One HTTP/2 connection, server side: changing stream limits, flow control both ways, and faults on demand."""

import asyncio
import contextlib
import struct
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    SettingsAcknowledged,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame, SettingsFrame

from simulator.http.exchange import Answer, Endpoint, Exchange, LastStream, Shutdown, StreamsInFlight, Unprocessed

_DEFAULT_WINDOW = 65_535  # bytes, RFC 9113
_LARGEST_HEADER_LIST = 8192
_UNLIMITED = 2**31 - 1
_FRAME = struct.Struct(">HBBBL")  # size, kind, flags, stream (RFC 9113, section 4.1)
_ABOUT_THE_CONNECTION = {4, 6, 7}  # SETTINGS, PING, GOAWAY
_HIGHEST_STREAM = 2**31 - 1


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """SETTINGS_MAX_CONCURRENT_STREAMS over the life of a connection."""

    initial: int
    raised: int  # after an accepted request
    after_rejection: int | None  # after a 4xx; None leaves it


class MovingLimit:
    """The stream limit of one connection. A change is announced with the next thing that is written.

    A lower one holds once the client has acknowledged it (RFC 9113, section 6.5.3).
    """

    def __init__(self, limits: StreamLimits) -> None:
        self._limits = limits
        self._next = limits.initial
        self._holds = limits.initial
        self._announced = deque([limits.initial])  # not acknowledged yet, the last one at the end

    @property
    def admitted(self) -> int:
        """The streams that may be open."""
        return max(self._holds, *self._announced, 0)

    def learn(self, status: int) -> None:
        """Adjust the limit to the answer's status."""
        if status < 300:
            self._next = self._limits.raised
        elif status < 500 and self._limits.after_rejection is not None:
            self._next = self._limits.after_rejection

    def announcement(self) -> bytes:
        """Give the SETTINGS frame for a changed limit, or nothing."""
        if self._next == (self._announced[-1] if self._announced else self._holds):
            return b""
        self._announced.append(self._next)
        return SettingsFrame(0, settings={SettingCodes.MAX_CONCURRENT_STREAMS: self._next}).serialize()

    def acknowledged(self) -> None:
        """Note that the client has acknowledged the oldest announcement."""
        if self._announced:
            self._holds = self._announced.popleft()


class OutgoingBodies:
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
            with contextlib.suppress(ProtocolError):  # reset by the client: nothing more to send
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


class Http2Connection(asyncio.Protocol):
    """A connection after the TLS handshake."""

    def __init__(
        self,
        endpoint: Endpoint,
        limits: StreamLimits,
        receive_window: int,
        on_lost: Callable[["Http2Connection"], None] | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._limit = MovingLimit(limits)
        self._receive_window = receive_window
        self._h2 = _server_side(limits.initial, receive_window)
        self._transport: asyncio.Transport | None = None
        self._incoming: dict[int, Exchange] = {}  # incomplete
        self._open: dict[int, Exchange] = {}  # neither answered nor turned away
        self._bodies = OutgoingBodies(self._h2)
        self._answered = 0  # since the last flush: for the client these streams are still open
        self._unacknowledged = 0
        self._last_stream = _HIGHEST_STREAM  # lower after a GOAWAY
        self._highest_received = 0
        self._is_reading = False
        self._is_frozen = False
        self._session: dict[bytes, Any] = {}
        self._on_lost = on_lost

    # -- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first frames."""
        self._transport = cast("asyncio.Transport", transport)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Handle everything that arrived, then write once."""
        self._is_reading = True
        try:
            for event in self._h2.receive_data(data):
                if self._transport is not None:  # nothing arrives after a cut
                    self._handle(event)
        except ProtocolError:
            self._flush()
            self.close()
            return
        finally:
            self._is_reading = False
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio names it)
        """Forget the streams."""
        self._transport = None
        self._incoming.clear()
        self._open.clear()
        if self._on_lost is not None:
            self._on_lost(self)

    def close(self) -> None:
        """Close once everything written is sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Cut, after sending earlier answers."""
        self._flush()
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    # -- what an exchange can do

    def answer(self, exchange: Exchange, answer: Answer) -> bool:
        """Send the head at once and the body as the client's windows admit it; False when the stream is gone."""
        stream_id = exchange.stream_id
        if self._is_frozen or stream_id not in self._open or stream_id in self._bodies:
            return False
        head = [(b":status", b"%d" % answer.status), *answer.headers]
        try:
            self._h2.send_headers(stream_id, head, end_stream=not answer.chunks)
        except ProtocolError:  # the client has reset the stream, or is closing
            self._open.pop(stream_id, None)
            return False
        if answer.chunks:
            self._bodies.add(stream_id, answer.chunks)
            self._send_bodies()
        else:
            self._finish(stream_id)
        self._limit.learn(answer.status)
        if answer.status < 300:
            # After one valid header list the client's others are valid, too; checking each costs a tenth of the whole.
            self._h2.config.validate_inbound_headers = False
        self._flush_unless_reading()
        return True

    def begin_answer(self, exchange: Exchange, answer: Answer) -> None:
        """Send the head and half of the body, and leave the stream open."""
        stream_id, body = exchange.stream_id, b"".join(answer.chunks)
        with contextlib.suppress(ProtocolError):  # reset by the client
            self._h2.send_headers(stream_id, [(b":status", b"%d" % answer.status), *answer.headers])
            self._h2.send_data(stream_id, body[: len(body) // 2])
        self._flush_unless_reading()

    def freeze(self) -> None:
        """Send nothing more; requests are still read and counted."""
        self._flush()
        self._is_frozen = True

    def reset(self, exchange: Exchange, error_code: int) -> None:
        """RST_STREAM."""
        stream_id = exchange.stream_id
        if stream_id in self._open:
            self._reset(stream_id, error_code)
            self._bodies.drop(stream_id)
            self._finish(stream_id)
            self._flush_unless_reading()

    def send_frame(self, exchange: Exchange, kind: int, payload: bytes) -> None:
        """Send a frame as it is, on a stream or, where its kind requires it, on the connection."""
        self._flush()
        if self._transport is not None:
            about = 0 if kind in _ABOUT_THE_CONNECTION else exchange.stream_id
            self._transport.write(_FRAME.pack(len(payload) >> 8, len(payload) & 0xFF, kind, 0, about) + payload)

    def goaway(self, exchange: Exchange, shutdown: Shutdown, last: LastStream) -> None:
        """Send GOAWAY; streams above the last one are ignored from here on."""
        last_id = exchange.stream_id if last is LastStream.THIS_ONE else 0
        self._last_stream = max(last_id, self._highest_received)
        for above in [number for number in self._open if number > self._last_stream]:
            self._open[above].unprocessed = Unprocessed.AFTER_GOAWAY  # for those that are incomplete
            self._finish(above)
        if last is LastStream.THE_ONE_BEFORE:
            self._open.pop(exchange.stream_id, None)
        frame = GoAwayFrame(
            0, last_stream_id=self._last_stream, error_code=shutdown.error_code, additional_data=shutdown.debug
        )
        self._write(self._h2.data_to_send() + frame.serialize())
        if shutdown.in_flight is StreamsInFlight.DROPPED:
            self._open.clear()
        self._flush_unless_reading()

    # -- events

    def _handle(self, event: Event) -> None:
        match event:
            case RequestReceived():
                self._begin(event)
            case DataReceived():
                self._take_body(event)
            case StreamEnded():
                self._end_request(event.stream_id)
            case StreamReset():
                self._incoming.pop(event.stream_id, None)
                self._bodies.drop(event.stream_id)
                self._open.pop(event.stream_id, None)
            case WindowUpdated() | RemoteSettingsChanged():
                self._send_bodies()
            case SettingsAcknowledged():
                self._limit.acknowledged()
            case ConnectionTerminated():
                self.close()
            case _:
                pass

    def _begin(self, event: RequestReceived) -> None:
        exchange = Exchange(self, event.headers, self._session, event.stream_id)
        self._incoming[event.stream_id] = exchange
        if self._is_frozen:
            exchange.unprocessed = Unprocessed.FROZEN
        elif event.stream_id > self._last_stream:
            exchange.unprocessed = Unprocessed.AFTER_GOAWAY
        elif len(self._open) + self._answered >= self._limit.admitted:
            exchange.unprocessed = Unprocessed.REFUSED_STREAM
        else:
            self._open[event.stream_id] = exchange

    def _end_request(self, stream_id: int) -> None:
        """Hand a whole request over, once; the record of one that is turned away needs its body too."""
        exchange = self._incoming.pop(stream_id, None)
        if exchange is None:
            return
        if exchange.unprocessed is None:
            self._endpoint.receive(exchange)
            self._highest_received = max(self._highest_received, stream_id)
            return
        if exchange.unprocessed is Unprocessed.REFUSED_STREAM:
            self._reset(stream_id, ErrorCodes.REFUSED_STREAM)
        self._endpoint.unprocessed(exchange, exchange.unprocessed)

    def _take_body(self, event: DataReceived) -> None:
        self._unacknowledged += event.flow_controlled_length
        exchange = self._incoming.get(event.stream_id)
        if exchange is None:
            return
        exchange.body = exchange.body + event.data if exchange.body else event.data
        if event.stream_ended is None and event.flow_controlled_length:
            with contextlib.suppress(ProtocolError, KeyError):  # reset by the client
                self._h2.increment_flow_control_window(event.flow_controlled_length, event.stream_id)

    def _reset(self, stream_id: int, error_code: int) -> None:
        with contextlib.suppress(ProtocolError):  # reset by the client
            self._h2.reset_stream(stream_id, error_code)

    def _send_bodies(self) -> None:
        for stream_id in self._bodies.send():
            self._finish(stream_id)

    def _finish(self, stream_id: int) -> None:
        if self._open.pop(stream_id, None) is not None:
            self._answered += 1

    # -- writing

    def _flush_unless_reading(self) -> None:
        if not self._is_reading:
            self._flush()

    def _flush(self) -> None:
        if self._transport is None or self._is_frozen:
            return
        if self._unacknowledged * 2 >= min(self._receive_window, 2 * _DEFAULT_WINDOW):
            self._h2.increment_flow_control_window(self._unacknowledged)
            self._unacknowledged = 0
        self._answered = 0
        written = self._h2.data_to_send()
        self._write(written + self._limit.announcement())
        if self._last_stream != _HIGHEST_STREAM and not self._open:
            self.close()

    def _write(self, content: bytes) -> None:
        if content and self._transport is not None:
            self._transport.write(content)


def _server_side(stream_limit: int, receive_window: int) -> H2Connection:
    """Make a connection whose first frames wait in `data_to_send`."""
    connection = H2Connection(
        H2Configuration(
            client_side=False,
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
            normalize_inbound_headers=False,
        )
    )
    connection.decoder.max_header_list_size = _LARGEST_HEADER_LIST
    connection.local_settings = _settings(stream_limit)
    connection.initiate_connection()
    # h2 would end the whole connection over one stream too many; Http2Connection refuses that stream instead.
    connection.local_settings = _settings(_UNLIMITED)
    if receive_window > _DEFAULT_WINDOW:
        connection.increment_flow_control_window(receive_window - _DEFAULT_WINDOW)
    return connection


def _settings(stream_limit: int) -> Settings:
    values = {
        SettingCodes.MAX_CONCURRENT_STREAMS: stream_limit,
        SettingCodes.MAX_HEADER_LIST_SIZE: _LARGEST_HEADER_LIST,
        SettingCodes.INITIAL_WINDOW_SIZE: _DEFAULT_WINDOW,
    }
    return Settings(client=False, initial_values=values)
