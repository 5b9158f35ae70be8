"""One HTTP/2 connection, server side: stream limits that move, flow control both ways, and trouble on demand."""

import asyncio
import contextlib
import struct
from collections.abc import Callable
from typing import Any, cast

from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from hyperframe.frame import GoAwayFrame

from simulator.exchange import Answer, Endpoint, Farewell, FarewellExtent, LastStream, Unprocessed
from simulator.http2_greeting import DEFAULT_WINDOW, server_side
from simulator.http2_stream import Bodies, Http2Exchange, MovingLimit, StreamLimits

_FRAME = struct.Struct(">HBBBL")  # size, kind, flags, stream (RFC 9113, section 4.1)
_ABOUT_THE_CONNECTION = {4, 6, 7}  # SETTINGS, PING, GOAWAY
_HIGHEST_STREAM = 2**31 - 1


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
        self._h2 = server_side(limits.initial, receive_window)
        self._transport: asyncio.Transport | None = None
        self._incoming: dict[int, Http2Exchange] = {}  # not whole yet
        self._open: dict[int, Http2Exchange] = {}  # neither answered nor turned away
        self._bodies = Bodies(self._h2)
        self._answered = 0  # since the last flush: to the client these streams are still open
        self._unacknowledged = 0
        self._last_stream = _HIGHEST_STREAM  # lower after a GOAWAY
        self._highest_received = 0
        self._is_reading = False
        self._is_frozen = False
        self._session: dict[bytes, Any] = {}
        self._on_lost = on_lost

    # -- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the greeting."""
        self._transport = cast("asyncio.Transport", transport)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Handle everything that arrived, then write once."""
        self._is_reading = True
        try:
            for event in self._h2.receive_data(data):
                if self._transport is not None:  # what follows a cut never arrived
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
        """Close after what is written has left."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Cut, after what was answered before."""
        self._flush()
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    # -- what an exchange can do

    def answer(self, stream_id: int, answer: Answer) -> bool:
        """Send the head at once and the body as the client's windows admit it; False when nobody hears it."""
        if self._is_frozen or stream_id not in self._open or stream_id in self._bodies:
            return False
        head = [(b":status", b"%d" % answer.status), *answer.headers]
        try:
            self._h2.send_headers(stream_id, head, end_stream=not answer.chunks)
        except ProtocolError:  # the client has reset the stream, or is leaving
            self._open.pop(stream_id, None)
            return False
        if answer.chunks:
            self._bodies.add(stream_id, answer.chunks)
            self._send_bodies()
        else:
            self._finish(stream_id)
        self._limit.learn(answer.status)
        if answer.status < 300:
            # A client that wrote one good header list writes them all so; checking each costs a tenth of the whole.
            self._h2.config.validate_inbound_headers = False
        self._flush_unless_reading()
        return True

    def begin_answer(self, stream_id: int, answer: Answer) -> None:
        """Send the head and half of the body, and leave the stream open."""
        body = b"".join(answer.chunks)
        with contextlib.suppress(ProtocolError):  # reset by the client meanwhile
            self._h2.send_headers(stream_id, [(b":status", b"%d" % answer.status), *answer.headers])
            self._h2.send_data(stream_id, body[: len(body) // 2])
        self._flush_unless_reading()

    def freeze(self) -> None:
        """Say nothing any more; requests are still read, so that they can be counted."""
        self._flush()
        self._is_frozen = True

    def reset(self, stream_id: int, error_code: int) -> None:
        """RST_STREAM."""
        if stream_id in self._open:
            self._reset(stream_id, error_code)
            self._bodies.drop(stream_id)
            self._finish(stream_id)
            self._flush_unless_reading()

    def utter(self, stream_id: int, kind: int, payload: bytes) -> None:
        """Send a frame as it is, about a stream or about the connection, as its kind asks for."""
        self._flush()
        if self._transport is not None:
            about = 0 if kind in _ABOUT_THE_CONNECTION else stream_id
            self._transport.write(_FRAME.pack(len(payload) >> 8, len(payload) & 0xFF, kind, 0, about) + payload)

    def goaway(self, stream_id: int, farewell: Farewell, last: LastStream) -> None:
        """Say goodbye; streams above the line are ignored from here on."""
        line = stream_id if last is LastStream.THIS_ONE else 0
        self._last_stream = max(line, self._highest_received)
        for above in [number for number in self._open if number > self._last_stream]:
            self._open[above].turned_away = Unprocessed.AFTER_GOAWAY  # matters to those that are not whole yet
            self._finish(above)
        if last is LastStream.THE_ONE_BEFORE:
            self._open.pop(stream_id, None)
        frame = GoAwayFrame(
            0, last_stream_id=self._last_stream, error_code=farewell.error_code, additional_data=farewell.debug
        )
        self._write(self._h2.data_to_send() + frame.serialize())
        if farewell.extent is FarewellExtent.DROP_IN_FLIGHT:
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
            case ConnectionTerminated():
                self.close()
            case _:
                pass

    def _begin(self, event: RequestReceived) -> None:
        exchange = Http2Exchange(self, event.stream_id, event.headers, self._session)
        self._incoming[event.stream_id] = exchange
        if self._is_frozen:
            exchange.turned_away = Unprocessed.FROZEN
        elif event.stream_id > self._last_stream:
            exchange.turned_away = Unprocessed.AFTER_GOAWAY
        elif len(self._open) + self._answered >= self._limit.current:
            exchange.turned_away = Unprocessed.REFUSED_STREAM
        else:
            self._open[event.stream_id] = exchange

    def _end_request(self, stream_id: int) -> None:
        """Hand a whole request over, once; the record of one that is turned away needs its body too."""
        exchange = self._incoming.pop(stream_id, None)
        if exchange is None:
            return
        if exchange.turned_away is None:
            self._endpoint.receive(exchange)
            self._highest_received = max(self._highest_received, stream_id)
            return
        if exchange.turned_away is Unprocessed.REFUSED_STREAM:
            self._reset(stream_id, ErrorCodes.REFUSED_STREAM)
        self._endpoint.unprocessed(exchange, exchange.turned_away)

    def _take_body(self, event: DataReceived) -> None:
        self._unacknowledged += event.flow_controlled_length
        exchange = self._incoming.get(event.stream_id)
        if exchange is None:
            return
        exchange.body = exchange.body + event.data if exchange.body else event.data
        if event.stream_ended is None and event.flow_controlled_length:
            with contextlib.suppress(ProtocolError, KeyError):  # reset by the client meanwhile
                self._h2.increment_flow_control_window(event.flow_controlled_length, event.stream_id)

    def _reset(self, stream_id: int, error_code: int) -> None:
        with contextlib.suppress(ProtocolError):  # reset by the client meanwhile
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
        if self._unacknowledged * 2 >= min(self._receive_window, 2 * DEFAULT_WINDOW):
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
