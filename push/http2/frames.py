"""HTTP/2 frames as bytes (RFC 9113, sections 4 and 6): read and written."""

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_FRAME = 16384  # bytes of payload; the default, which we do not raise for the peer
MAX_BLOCK = 65536  # bytes of one answer's headers, over all their frames
MAX_PIECES = 16  # frames of one answer's headers; empty frames would never reach MAX_BLOCK
WINDOW = 65535  # bytes; the initial size of every window
MAX_WINDOW = 2**31 - 1
MAX_STREAM_ID = 2**31 - 1

# plain numbers, no IntFlag: its arithmetic would cost more than the frame
ACK = 0x1
END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY = 0x20
_HEAD = struct.Struct(">HBBBL")
_SETTING = struct.Struct(">HL")
_CONNECTION, _STREAM, _EITHER = (True, False), (False, True), (True, True)


class FrameKind(IntEnum):
    """Frame types that a client needs; others are ignored."""

    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Setting(IntEnum):
    """Settings that a client sends or obeys."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5


class Code(IntEnum):
    """Error codes that a client sends or distinguishes."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    REFUSED_STREAM = 7
    CANCEL = 8


class BrokenProtocol(Exception):
    """The peer does not speak HTTP/2; nothing more can be read from it."""


class OddFrame(BrokenProtocol):
    """One frame is wrong, and what follows it can still be read: only its own stream has to fail."""


class Frame(NamedTuple):
    """One whole frame."""

    kind: int
    flags: int
    stream_id: int
    payload: bytes

    def must_be_sound(self) -> None:
        """Check the frame's size, and whether it belongs to a stream; raises BrokenProtocol."""
        size, rule = len(self.payload), _RULES.get(self.kind)
        if rule and not (rule.least <= size <= rule.most and rule.streams[self.stream_id > 0]):
            is_fatal = self.kind == FrameKind.HEADERS  # the compression table of all later ones is out of step
            raise (BrokenProtocol if is_fatal else OddFrame)(f"malformed frame of type {self.kind}")

    def number(self) -> int:
        """Read the 31-bit number that the payload begins with."""
        return int.from_bytes(self.payload[:4], "big") & 0x7FFF_FFFF

    def content(self) -> bytes:
        """Give the payload of DATA or HEADERS without padding and priority; raises BrokenProtocol."""
        if not self.flags & (PADDED | PRIORITY):
            return self.payload
        begin, end = 0, len(self.payload)
        if self.flags & PADDED:
            begin, end = 1, end - (self.payload[0] if self.payload else 1)
        if self.kind == FrameKind.HEADERS and self.flags & PRIORITY:
            begin += 5
        if begin > end:
            raise (BrokenProtocol if self.kind == FrameKind.HEADERS else OddFrame)("more padding than frame")
        return self.payload[begin:end]


class _Rule(NamedTuple):
    least: int  # bytes of payload
    most: int
    streams: tuple[bool, bool]  # whether it may concern the connection, and a stream


_RULES: dict[int, _Rule] = {
    FrameKind.DATA: _Rule(0, MAX_FRAME, _STREAM),
    FrameKind.HEADERS: _Rule(0, MAX_FRAME, _STREAM),
    FrameKind.RST_STREAM: _Rule(4, 4, _STREAM),
    FrameKind.SETTINGS: _Rule(0, MAX_FRAME, _CONNECTION),
    FrameKind.PING: _Rule(8, 8, _CONNECTION),
    FrameKind.GOAWAY: _Rule(8, MAX_FRAME, _CONNECTION),
    FrameKind.WINDOW_UPDATE: _Rule(4, 4, _EITHER),
}


class Cutter:
    """Cuts the peer's bytes into frames, and joins HEADERS with CONTINUATION; keeps an incomplete rest."""

    def __init__(self) -> None:
        self._rest = b""
        self._headers: Frame | None = None  # to be continued
        self._pieces = 0  # of these headers

    def frames(self, incoming: bytes) -> Iterator[Frame]:
        """Give every complete frame; raises BrokenProtocol. The iterator has to be read to its end."""
        buffer = self._rest + incoming if self._rest else bytes(incoming)
        at, size = 0, len(buffer)
        while size - at >= 9:
            high, low, kind, flags, stream_id = _HEAD.unpack_from(buffer, at)
            length = high << 8 | low
            if length > MAX_FRAME:
                raise BrokenProtocol("frame too long")
            end = at + 9 + length
            if end > size:
                break
            frame = Frame(kind, flags, stream_id & 0x7FFF_FFFF, buffer[at + 9 : end])
            at = end
            if (
                self._headers
                or kind == FrameKind.CONTINUATION
                or (kind == FrameKind.HEADERS and not flags & END_HEADERS)
            ):
                frame = self._joined(frame)
                if self._headers:
                    continue
            yield frame
        self._rest = buffer[at:]

    def _joined(self, frame: Frame) -> Frame:
        begun = self._headers
        if begun is None and frame.kind == FrameKind.HEADERS:
            joined = frame._replace(flags=frame.flags & END_STREAM, payload=frame.content())
        elif begun and frame.kind == FrameKind.CONTINUATION and frame.stream_id == begun.stream_id:
            joined = begun._replace(payload=begun.payload + frame.payload)
        else:
            raise BrokenProtocol("headers were interrupted")
        self._pieces = self._pieces + 1 if begun else 1
        if len(joined.payload) > MAX_BLOCK or self._pieces > MAX_PIECES:
            raise BrokenProtocol("headers without end")
        self._headers = None if frame.flags & END_HEADERS else joined
        return joined


def written(kind: FrameKind, flags: int, stream_id: int, payload: bytes) -> bytes:
    """Write one frame."""
    size = len(payload)
    return _HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream_id) + payload


def headers_written(stream_id: int, flags: int, block: bytes) -> bytes:
    """Write a header block: HEADERS, and CONTINUATION where one frame does not hold it."""
    pieces = [block[at : at + MAX_FRAME] for at in range(0, len(block), MAX_FRAME)]
    kinds = [FrameKind.HEADERS] + [FrameKind.CONTINUATION] * (len(pieces) - 1)
    ends = [0] * (len(pieces) - 1) + [END_HEADERS]
    ends[0] |= flags
    return b"".join(written(kind, end, stream_id, piece) for kind, end, piece in zip(kinds, ends, pieces, strict=True))


def number_written(kind: FrameKind, stream_id: int, number: int) -> bytes:
    """Write a frame that holds one number: RST_STREAM, WINDOW_UPDATE."""
    return written(kind, 0, stream_id, number.to_bytes(4, "big"))


def settings_written(settings: dict[Setting, int]) -> bytes:
    """Write a SETTINGS frame."""
    return written(FrameKind.SETTINGS, 0, 0, b"".join(_SETTING.pack(name, value) for name, value in settings.items()))


def settings_read(frame: Frame) -> Iterator[tuple[int, int]]:
    """Read a SETTINGS frame, unknown settings included; raises BrokenProtocol."""
    if len(frame.payload) % 6:
        raise BrokenProtocol("malformed SETTINGS")
    return iter(_SETTING.iter_unpack(frame.payload))
