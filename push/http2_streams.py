"""The calls on one HTTP/2 connection as frames, by the book (RFC 9113). Knows no socket and no clock.

Answers are matched by stream id and received data is credited back; RST_STREAM and GOAWAY mean what the RFC says.
"""

import logging
from typing import Any

import structlog
from h2.config import H2Configuration
from h2.connection import ConnectionInputs, H2Connection, H2ConnectionStateMachine
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from hpack import Encoder, HeaderTuple

from push.http2_call import Call
from push.sender import Fate

log = structlog.get_logger()
logging.getLogger("hpack").setLevel(logging.WARNING)  # at DEBUG it prints header values, tokens included


class BrokenProtocol(Exception):
    """The peer does not speak HTTP/2; nothing more can be read from it."""


class Streams:
    """Starts calls and takes their answers in. Whoever holds it moves the bytes."""

    def __init__(self) -> None:
        self._h2 = H2Connection(
            H2Configuration(header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False)
        )
        self._h2.state_machine = _OpenAfterGoaway()
        self._h2.encoder = _PlainEncoder()
        self._h2.initiate_connection()
        self.calls: dict[int, Call] = {}  # oldest first
        self.answers = 0
        self.greeted = False  # by the peer's SETTINGS
        self.going_away = False  # no new streams: GOAWAY was received, or all ids are used

    @property
    def limit(self) -> int:
        """Calls that may be in flight at once, exactly as the peer's SETTINGS say."""
        return self._h2.remote_settings.max_concurrent_streams if self.greeted else 0

    @property
    def window(self) -> int:
        """Bytes that the peer has leave for now."""
        return self._h2.outbound_flow_control_window

    def start(self, headers: list[HeaderTuple], call: Call) -> None:
        """Open a stream; the caller has seen to limit and window."""
        stream_id = self._h2.get_next_available_stream_id()
        self._h2.send_headers(stream_id, headers)
        self.calls[stream_id] = call
        self._send_body(stream_id, call)
        if stream_id >= H2Connection.HIGHEST_ALLOWED_STREAM_ID - 2:
            self.going_away = True

    def cancel(self, stream_id: int) -> Call:
        """Give a stream up."""
        self._h2.reset_stream(stream_id, ErrorCodes.CANCEL)
        return self.calls.pop(stream_id)

    def fail_all(self, reason: str) -> None:
        """Nothing more will come back."""
        calls, self.calls = self.calls, {}
        for call in calls.values():
            call.fail(reason, Fate.UNKNOWN)

    def ping(self) -> None:
        """Ask the peer for any frame."""
        self._h2.ping(b"fastbell")

    def say_goodbye(self) -> None:
        """Tell the peer that this connection ends."""
        self._h2.close_connection()

    def outgoing(self) -> bytes:
        """Take the bytes to write. To be emptied before `receive`: a GOAWAY wipes what is left."""
        return self._h2.data_to_send()

    def receive(self, incoming: bytes) -> None:
        """Take the peer's bytes in, and settle the calls they answer; raises BrokenProtocol."""
        try:
            for event in self._h2.receive_data(incoming):
                self._take_in(event)
        except ProtocolError as error:
            raise BrokenProtocol(type(error).__name__) from error

    def _take_in(self, event: Event) -> None:
        match event:
            case ResponseReceived() if call := self.calls.get(event.stream_id):
                call.headers = {bytes(name): bytes(value) for name, value in event.headers}
                call.status = int(call.headers[b":status"])
            case DataReceived():
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if call := self.calls.get(event.stream_id):
                    call.read(event.data)
            case StreamEnded() if call := self.calls.pop(event.stream_id, None):
                self.answers += 1
                if call.unsent:  # answered before it was asked in full
                    self._h2.reset_stream(event.stream_id, ErrorCodes.CANCEL)
                call.finish()
            case StreamReset() if call := self.calls.pop(event.stream_id, None):
                refused = event.error_code == ErrorCodes.REFUSED_STREAM
                call.fail("stream_reset", Fate.NEVER_PROCESSED if refused else Fate.UNKNOWN)
            case RemoteSettingsChanged():
                self.greeted = True
                self._send_bodies()
            case WindowUpdated():
                self._send_bodies()
            case ConnectionTerminated():
                self._go_away(event)

    def _go_away(self, event: ConnectionTerminated) -> None:
        log.info("connection got GOAWAY", code=event.error_code, detail=(event.additional_data or b"")[:200])
        self.going_away = True
        last = event.last_stream_id or 0
        for stream_id in [stream_id for stream_id in self.calls if stream_id > last]:
            self.calls.pop(stream_id).fail("goaway", Fate.NEVER_PROCESSED)

    def _send_bodies(self) -> None:
        for stream_id, call in self.calls.items():
            self._send_body(stream_id, call)

    def _send_body(self, stream_id: int, call: Call) -> None:
        while call.unsent:
            size = min(self._h2.local_flow_control_window(stream_id), self._h2.max_outbound_frame_size)
            if size <= 0:
                return  # the next WINDOW_UPDATE goes on
            piece, call.unsent = call.unsent[:size], call.unsent[size:]
            self._h2.send_data(stream_id, piece, end_stream=not call.unsent)


class _OpenAfterGoaway(H2ConnectionStateMachine):
    """The `h2` package closes on GOAWAY; the RFC lets streams up to last_stream_id finish."""

    def process_input(self, input_: ConnectionInputs) -> list[Event]:
        return [] if input_ is ConnectionInputs.RECV_GOAWAY else super().process_input(input_)


class _PlainEncoder(Encoder):
    """Huffman coding in Python takes a quarter of a call's time, to save some 60 bytes."""

    def encode(self, headers: Any, huffman: bool = False) -> bytes:  # noqa: ANN401, ARG002 (hpack's signature)
        return super().encode(headers, huffman=False)
