"""The calls on one HTTP/2 connection as frames (RFC 9113). No sockets and no clocks.

Answers are matched by stream id, received data is credited back, and RST_STREAM and GOAWAY are read by the RFC.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog
from hpack import HeaderTuple

from push.http2.frames import (
    ACK,
    END_STREAM,
    MAX_FRAME,
    MAX_STREAM_ID,
    MAX_WINDOW,
    PREFACE,
    WINDOW,
    BrokenProtocol,
    Code,
    Cutter,
    Frame,
    FrameKind,
    OddFrame,
    Setting,
    headers_written,
    number_written,
    settings_read,
    settings_written,
    written,
)
from push.http2.headers import HeaderReader, HeaderWriter
from push.sender import ConnectionLost, Delivery, NoRoom, Unavailable

log = structlog.get_logger()

MAX_BODY = 65536  # bytes; the rest of a longer answer is dropped
CREDIT_AFTER = WINDOW // 2  # bytes received, on the connection or on one stream
_MALFORMED = ("malformed_answer", Code.PROTOCOL_ERROR)  # the connection can still be used
_REASON = re.compile(rb'"reason" ?: ?"([A-Za-z]{1,64})"')  # as Apple writes it; other text may quote what we sent


@dataclass(frozen=True, slots=True)
class Response:
    """An answer: its body may be empty or HTML."""

    status: int
    headers: dict[bytes, bytes] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(slots=True, eq=False)
class Call:
    """A stream's state. Its future may be done already: the caller may have been cancelled."""

    answer: asyncio.Future[Response]
    sent_at: float  # the event loop's clock
    answers_before: int  # on this connection; if none follows, the peer may be dead
    unsent: bytes = field(repr=False)
    window: int = 0  # bytes that may be sent on this stream
    uncredited: int = 0  # bytes received and not credited back yet
    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)

    def read(self, piece: bytes) -> None:
        """Keep a piece of the answer's body."""
        if len(self.body) < MAX_BODY:
            self.body += piece

    def finish(self) -> None:
        """Give the caller the answer."""
        if not self.answer.done():
            self.answer.set_result(Response(self.status, self.headers, self.body))

    def fail(self, trouble: type[Unavailable], reason: str, delivery: Delivery) -> None:
        """Give the caller the failure. A request that was not sent in full was not processed."""
        if self.status == 200:
            self.finish()  # cut off behind the status, which says it all
        elif not self.answer.done():
            self.answer.set_exception(trouble(reason, Delivery.NOT_PROCESSED if self.unsent else delivery))

    def refuse(self, reason: str) -> None:
        """Tell the caller that the peer had no room for the call, and did not process it."""
        if not self.answer.done():
            self.answer.set_exception(NoRoom(reason))


class Bodies:
    """Writes DATA frames for the calls of one connection."""

    def __init__(self, calls: dict[int, Call], out: list[bytes]) -> None:
        self._calls = calls
        self._out = out
        self._stream_window = WINDOW
        self._max_frame = MAX_FRAME
        self.window = WINDOW  # bytes that may be sent on all streams together

    def begin(self, stream_id: int, call: Call) -> None:
        """Send what the windows allow of a new call's body."""
        call.window = self._stream_window
        self._send(stream_id, call)

    def credit(self, size: int) -> None:
        """Add to the connection's window, and send what it allows; raises BrokenProtocol."""
        self.window += size
        if not size or self.window > MAX_WINDOW:
            raise BrokenProtocol("impossible credit")
        for stream_id, call in self._calls.items():
            if call.unsent:
                self._send(stream_id, call)

    def credit_stream(self, stream_id: int, call: Call, size: int) -> bool:
        """Add to a stream's window, and send what it allows; False where such a credit is impossible."""
        call.window += size
        if not size or call.window > MAX_WINDOW:
            return False
        self._send(stream_id, call)
        return True

    def limit_frames(self, size: int) -> None:
        """Obey the peer's SETTINGS_MAX_FRAME_SIZE."""
        self._max_frame = max(size, MAX_FRAME)

    def set_stream_window(self, size: int) -> None:
        """Obey the peer's SETTINGS_INITIAL_WINDOW_SIZE, which changes open streams, too."""
        if size > MAX_WINDOW:
            raise BrokenProtocol("impossible window")
        more, self._stream_window = size - self._stream_window, size
        for stream_id, call in self._calls.items():
            call.window += more
            self._send(stream_id, call)

    def _send(self, stream_id: int, call: Call) -> None:
        while call.unsent:
            size = min(len(call.unsent), self.window, call.window, self._max_frame)
            if size <= 0:
                return  # the next credit continues
            piece, call.unsent = call.unsent[:size], call.unsent[size:]
            self.window -= size
            call.window -= size
            self._out.append(written(FrameKind.DATA, 0 if call.unsent else END_STREAM, stream_id, piece))


class Streams:
    """Starts calls and reads their answers; the connection moves the bytes."""

    def __init__(self) -> None:
        self.calls: dict[int, Call] = {}  # oldest first
        self._out = [PREFACE, settings_written({Setting.ENABLE_PUSH: 0})]
        self._bodies = Bodies(self.calls, self._out)
        self._cutter = Cutter()
        self._writer = HeaderWriter()
        self._reader = HeaderReader()
        self._next_id = 1
        self._limit = MAX_STREAM_ID  # no limit, unless the peer sets one
        self._uncredited = 0
        self.answers = 0
        self.greeted = False  # the peer's SETTINGS have come
        self.going_away = False  # no new streams: GOAWAY was received, or all ids are used

    @property
    def limit(self) -> int:
        """Calls that may be in flight at once, exactly as the peer's SETTINGS say."""
        return self._limit if self.greeted else 0

    @property
    def window(self) -> int:
        """Bytes that may be sent now."""
        return self._bodies.window

    def start(self, headers: Sequence[HeaderTuple], call: Call) -> None:
        """Open a stream; the caller has checked limit and window."""
        block = self._writer.written(headers)
        stream_id, self._next_id = self._next_id, self._next_id + 2
        self.calls[stream_id] = call
        self._out.append(headers_written(stream_id, 0 if call.unsent else END_STREAM, block))
        self._bodies.begin(stream_id, call)
        if self._next_id > MAX_STREAM_ID:
            self.going_away = True

    def give_up(self, stream_id: int, reason: str, code: Code = Code.CANCEL) -> None:
        """Fail a call that the peer may still process."""
        self._reset(stream_id, code)
        self._fail(stream_id, reason, Delivery.UNKNOWN)

    def fail_all(self, reason: str) -> None:
        """Fail all calls: no answer can come."""
        for stream_id in list(self.calls):
            self._fail(stream_id, reason, Delivery.UNKNOWN, ConnectionLost)

    def ping(self) -> None:
        """Send a PING, which the peer has to answer."""
        self._out.append(written(FrameKind.PING, 0, 0, b"fastbell"))

    def send_goaway(self) -> None:
        """Tell the peer that this connection ends."""
        self._out.append(written(FrameKind.GOAWAY, 0, 0, bytes(8)))

    def outgoing(self) -> bytes:
        """Take the bytes to write."""
        outgoing = b"".join(self._out)
        self._out.clear()
        return outgoing

    def receive(self, incoming: bytes) -> None:
        """Process the peer's bytes, and finish the calls they answer; raises BrokenProtocol.

        An OddFrame is raised at the end, when all frames are processed: it fails the call of its own stream alone.
        """
        odd: OddFrame | None = None
        for frame in self._cutter.frames(incoming):
            if not self.greeted and (frame.kind != FrameKind.SETTINGS or frame.flags & ACK):
                raise BrokenProtocol("no SETTINGS at first")
            try:
                self._take_in(frame)
            except OddFrame as error:
                odd = error
                if frame.stream_id in self.calls:
                    self.give_up(frame.stream_id, *_MALFORMED)
        if odd:
            raise odd

    def _take_in(self, frame: Frame) -> None:
        frame.must_be_sound()
        match frame.kind:
            case FrameKind.HEADERS:
                self._take_headers(frame)
            case FrameKind.DATA:
                self._take_data(frame)
            case FrameKind.WINDOW_UPDATE:
                self._take_credit(frame)
            case FrameKind.SETTINGS if not frame.flags & ACK:
                self._take_settings(frame)
            case FrameKind.PING if not frame.flags & ACK:
                self._out.append(written(FrameKind.PING, ACK, 0, frame.payload))
            case FrameKind.RST_STREAM:
                self._take_reset(frame)
            case FrameKind.GOAWAY:
                self._take_goaway(frame)
            case FrameKind.PUSH_PROMISE:
                raise BrokenProtocol("a push that we forbade")

    def _take_headers(self, frame: Frame) -> None:
        self._must_be_ours(frame.stream_id)
        headers = self._reader.read(frame.content())  # also of an unknown stream: the table has to stay in step
        call = self.calls.get(frame.stream_id)
        if call is None:
            return
        status = headers.get(b":status", b"")
        if not call.status and not (len(status) == 3 and status.isdigit()):
            self.give_up(frame.stream_id, *_MALFORMED)
            return
        if not call.status and status >= b"200":  # 1xx come before it, trailers after it
            call.status, call.headers = int(status), headers
        if frame.flags & END_STREAM:
            self._finish(frame.stream_id)

    def _take_data(self, frame: Frame) -> None:
        self._must_be_ours(frame.stream_id)
        size = len(frame.payload)  # padding counts
        self._uncredited += size
        if self._uncredited > CREDIT_AFTER:
            self._out.append(number_written(FrameKind.WINDOW_UPDATE, 0, self._uncredited))
            self._uncredited = 0
        call = self.calls.get(frame.stream_id)
        if call is None:
            return
        if not call.status:
            self.give_up(frame.stream_id, *_MALFORMED)
            return
        call.read(frame.content())
        if frame.flags & END_STREAM:
            self._finish(frame.stream_id)
            return
        call.uncredited += size
        if call.uncredited > CREDIT_AFTER:
            self._out.append(number_written(FrameKind.WINDOW_UPDATE, frame.stream_id, call.uncredited))
            call.uncredited = 0

    def _take_credit(self, frame: Frame) -> None:
        credit = frame.number()
        if frame.stream_id == 0:
            self._bodies.credit(credit)
        elif (call := self.calls.get(frame.stream_id)) and not self._bodies.credit_stream(
            frame.stream_id, call, credit
        ):
            self.give_up(frame.stream_id, *_MALFORMED)

    def _take_settings(self, frame: Frame) -> None:
        for name, value in settings_read(frame):
            match name:
                case Setting.MAX_CONCURRENT_STREAMS:
                    self._limit = value
                case Setting.HEADER_TABLE_SIZE:
                    self._writer.limit_table(value)
                case Setting.MAX_FRAME_SIZE:
                    self._bodies.limit_frames(value)
                case Setting.INITIAL_WINDOW_SIZE:
                    self._bodies.set_stream_window(value)
        self.greeted = True
        self._out.append(written(FrameKind.SETTINGS, ACK, 0, b""))

    def _take_reset(self, frame: Frame) -> None:
        self._must_be_ours(frame.stream_id)
        code = frame.number()
        if frame.stream_id not in self.calls:
            return
        if code == Code.REFUSED_STREAM:
            self.calls.pop(frame.stream_id).refuse("stream_reset")
        else:
            self._fail(frame.stream_id, "stream_reset", Delivery.UNKNOWN)

    def _take_goaway(self, frame: Frame) -> None:
        last, code = frame.number(), int.from_bytes(frame.payload[4:8], "big")
        reason = _REASON.search(frame.payload, 8)
        log.info("connection got GOAWAY", code=code, reason=reason and reason[1].decode())
        self.going_away = True
        for stream_id in [stream_id for stream_id in self.calls if stream_id > last]:
            self._fail(stream_id, "goaway", Delivery.NOT_PROCESSED)

    def _finish(self, stream_id: int) -> None:
        call = self.calls[stream_id]
        if not call.status:
            self.give_up(stream_id, *_MALFORMED)
            return
        self.answers += 1
        if call.unsent:  # answered before the request was sent in full
            self._reset(stream_id, Code.CANCEL)
        self.calls.pop(stream_id).finish()

    def _fail(self, stream_id: int, reason: str, delivery: Delivery, trouble: type[Unavailable] = Unavailable) -> None:
        """Remove a call and fail it in one step, so that no caller is left waiting."""
        self.calls.pop(stream_id).fail(trouble, reason, delivery)

    def _must_be_ours(self, stream_id: int) -> None:
        if not stream_id % 2 or stream_id >= self._next_id:
            raise BrokenProtocol("a stream that nobody opened")

    def _reset(self, stream_id: int, code: Code) -> None:
        self._out.append(number_written(FrameKind.RST_STREAM, stream_id, code))
