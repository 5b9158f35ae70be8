"""Our frames and header blocks against the `h2` and `hpack` packages, and against peers that break the rules."""

import asyncio
import struct
from contextlib import suppress
from itertools import product

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded
from hpack import Decoder, Encoder, HeaderTuple, NeverIndexedHeaderTuple
from hypothesis import given, settings
from hypothesis import strategies as st

from push.http2.frames import ACK, END_HEADERS, END_STREAM, PADDED, PRIORITY, BrokenProtocol, FrameKind, written
from push.http2.headers import HeaderReader, HeaderWriter
from push.http2.streams import Call, Response, Streams
from push.sender import Delivery, Unavailable

REQUEST = [
    HeaderTuple(b":method", b"POST"),
    HeaderTuple(b":scheme", b"https"),
    NeverIndexedHeaderTuple(b":path", b"/3/device/ab"),
    HeaderTuple(b":authority", b"peer"),
    HeaderTuple(b"authorization", b"bearer " + b"x" * 200),
]
SETTINGS = written(FrameKind.SETTINGS, 0, 0, b"")
OK = bytes((0x88,))  # :status 200, from the static table
NAMES = st.sampled_from([b"authorization", b"apns-id", b"apns-topic", b":path", b"x", b"content-type"])


def fields(*sizes: int) -> st.SearchStrategy[HeaderTuple]:
    """Make fields with short values, and with some of these sizes."""
    return st.builds(
        lambda name, value, kind: kind(name, value),
        NAMES,
        st.one_of(st.binary(max_size=20), st.sampled_from([b"y" * size for size in sizes])),
        st.sampled_from([HeaderTuple, NeverIndexedHeaderTuple]),
    )


def begun(streams: Streams, body: bytes = b"{}") -> Call:
    call = Call(asyncio.get_running_loop().create_future(), 0.0, 0, body)
    streams.start(REQUEST, call)
    return call


async def outcome(call: Call) -> tuple[int, bytes] | tuple[str, Delivery]:
    assert call.answer.done()
    try:
        answer: Response = await call.answer
    except Unavailable as trouble:
        return trouble.reason, trouble.delivery
    return answer.status, answer.body


@settings(deadline=None, max_examples=60)
@given(
    blocks=st.lists(
        st.tuples(
            st.lists(fields(100, 126, 127, 128, 1500, 4100), max_size=8), st.sampled_from([None, 0, 100, 4096, 70_000])
        ),
        max_size=10,
    )
)
def test_what_we_write_is_read_by_hpack_whatever_the_table(
    blocks: list[tuple[list[HeaderTuple], int | None]],
) -> None:
    writer, reader = HeaderWriter(), Decoder()
    for block, size in blocks:
        if size is not None:
            writer.limit_table(size)
            reader.max_allowed_table_size = min(size, 4096)
        got = reader.decode(writer.written(block), raw=True)
        assert got == block
        assert [field.indexable for field in got] == [field.indexable for field in block]


@settings(deadline=None, max_examples=60)
@given(blocks=st.lists(st.lists(fields(130, 300), max_size=6, unique_by=lambda field: field[0]), max_size=10))
def test_what_hpack_writes_is_read_by_us(blocks: list[list[HeaderTuple]]) -> None:
    writer, reader = Encoder(), HeaderReader()
    for block in blocks:
        for _ in range(2):  # the second time it only points into the table
            assert reader.read(writer.encode(block)) == dict(block)


async def test_h2_reads_our_requests_and_we_its_answers_however_they_are_cut() -> None:
    for size in (1, 2, 7, 9, 10, 64, 100_000):
        streams, server = Streams(), H2Connection(H2Configuration(client_side=False, header_encoding=None))
        server.initiate_connection()
        streams.receive(server.data_to_send())
        calls = [begun(streams, b"body %d" % number) for number in range(3)]
        bodies: dict[int, bytes] = {}
        for event in server.receive_data(streams.outgoing()):
            match event:
                case RequestReceived():
                    assert event.headers == REQUEST
                case DataReceived():
                    bodies[event.stream_id] = bodies.get(event.stream_id, b"") + event.data
                case StreamEnded():
                    server.send_headers(event.stream_id, [(":status", "400"), ("apns-id", str(event.stream_id))])
                    server.send_data(event.stream_id, b"answer %d" % event.stream_id, end_stream=True)
        answers = server.data_to_send()
        for at in range(0, len(answers), size):
            streams.receive(answers[at : at + size])

        assert list(bodies.values()) == [b"body 0", b"body 1", b"body 2"]
        assert [await outcome(call) for call in calls] == [(400, b"answer %d" % stream) for stream in (1, 3, 5)]


async def test_headers_that_no_frame_holds_are_continued() -> None:
    streams, server = Streams(), H2Connection(H2Configuration(client_side=False, header_encoding=None))
    server.initiate_connection()
    large = [*REQUEST, HeaderTuple(b"x-large", b"z" * 40_000)]
    streams.start(large, Call(asyncio.get_running_loop().create_future(), 0.0, 0, b""))

    events = server.receive_data(streams.outgoing())

    assert [event.headers for event in events if isinstance(event, RequestReceived)] == [large]
    assert any(isinstance(event, StreamEnded) for event in events)


async def test_padding_priority_and_continuation_are_read() -> None:
    streams = Streams()
    call = begun(streams)
    block = Encoder().encode([(":status", "404"), ("apns-id", "x" * 100)])

    streams.receive(SETTINGS)
    streams.receive(written(FrameKind.HEADERS, PADDED | PRIORITY, 1, b"\x02" + bytes(5) + block[:10] + bytes(2)))
    streams.receive(written(FrameKind.CONTINUATION, 0, 1, block[10:20]))
    streams.receive(written(FrameKind.CONTINUATION, END_HEADERS, 1, block[20:]))
    streams.receive(written(FrameKind.DATA, PADDED, 1, b"\x03{}" + bytes(3)))
    streams.receive(written(FrameKind.DATA, END_STREAM | PADDED, 1, b"\x00"))

    assert await outcome(call) == (404, b"{}")


@pytest.mark.parametrize(
    "broken",
    [
        written(FrameKind.PING, 0, 0, bytes(8)),
        written(FrameKind.SETTINGS, ACK, 0, b""),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
    ids=["ping", "ack", "http/1.1"],
)
async def test_a_peer_begins_with_settings(broken: bytes) -> None:
    with pytest.raises(BrokenProtocol):
        Streams().receive(broken)


@pytest.mark.parametrize(
    "broken",
    [
        struct.pack(">HBBBL", 256, 0, FrameKind.DATA, 0, 1),  # 65 536 bytes to come
        written(FrameKind.SETTINGS, 0, 0, bytes(5)),
        written(FrameKind.SETTINGS, 0, 1, b""),
        written(FrameKind.SETTINGS, 0, 0, struct.pack(">HL", 4, 2**31)),
        written(FrameKind.HEADERS, END_HEADERS, 3, OK),
        written(FrameKind.HEADERS, END_HEADERS, 2, OK),
        written(FrameKind.HEADERS, END_HEADERS | PADDED, 1, b"\x09" + OK),
        written(FrameKind.HEADERS, END_HEADERS | PADDED, 1, b""),
        written(FrameKind.HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"),
        written(FrameKind.HEADERS, 0, 1, OK) + written(FrameKind.PING, 0, 0, bytes(8)),
        written(FrameKind.HEADERS, 0, 1, OK) + written(FrameKind.CONTINUATION, END_HEADERS, 3, b""),
        written(FrameKind.HEADERS, 0, 1, OK) + written(FrameKind.CONTINUATION, 0, 1, bytes(16_000)) * 5,
        written(FrameKind.CONTINUATION, END_HEADERS, 1, OK),
        written(FrameKind.DATA, 0, 5, b""),
        written(FrameKind.RST_STREAM, 0, 7, bytes(4)),
        written(FrameKind.RST_STREAM, 0, 1, b""),
        written(FrameKind.RST_STREAM, 0, 1, bytes(3)),
        written(FrameKind.RST_STREAM, 0, 1, bytes(5)),
        written(FrameKind.PING, 0, 0, bytes(7)),
        written(FrameKind.PING, 0, 1, bytes(8)),
        written(FrameKind.GOAWAY, 0, 0, b""),
        written(FrameKind.GOAWAY, 0, 0, bytes(7)),
        written(FrameKind.GOAWAY, 0, 1, bytes(8)),
        written(FrameKind.WINDOW_UPDATE, 0, 1, bytes(5)),
        written(FrameKind.HEADERS, 0, 1, OK) + written(FrameKind.CONTINUATION, 0, 1, b"") * 20,
        written(FrameKind.WINDOW_UPDATE, 0, 0, bytes(4)),
        written(FrameKind.WINDOW_UPDATE, 0, 0, (2**31 - 1).to_bytes(4, "big")),
        written(FrameKind.PUSH_PROMISE, END_HEADERS, 1, bytes(4)),
    ],
)
async def test_a_peer_that_breaks_the_rules_is_told_from_one_that_keeps_them(broken: bytes) -> None:
    streams = Streams()
    begun(streams)
    streams.receive(SETTINGS)

    with pytest.raises(BrokenProtocol):
        streams.receive(broken)


@pytest.mark.parametrize(
    "answer",
    [
        written(FrameKind.HEADERS, END_HEADERS | END_STREAM, 1, Encoder().encode([("apns-id", "no status")])),
        written(FrameKind.HEADERS, END_HEADERS | END_STREAM, 1, Encoder().encode([(":status", "2oo")])),
        written(FrameKind.HEADERS, END_HEADERS | END_STREAM, 1, Encoder().encode([(":status", "103")])),
        written(FrameKind.DATA, END_STREAM, 1, b"before the headers"),
        written(FrameKind.WINDOW_UPDATE, 0, 1, bytes(4)),
        written(FrameKind.WINDOW_UPDATE, 0, 1, (2**31 - 1).to_bytes(4, "big")),
    ],
)
async def test_an_answer_that_makes_no_sense_is_unknown_and_harms_no_other(answer: bytes) -> None:
    streams = Streams()
    mine, other = begun(streams), begun(streams)
    streams.receive(SETTINGS)
    streams.receive(answer)
    streams.receive(answer.replace(b"no status", b"no answer"))  # late frames of a stream that was given up
    streams.receive(written(FrameKind.HEADERS, END_HEADERS | END_STREAM, 3, OK))

    assert await outcome(mine) == ("malformed_answer", Delivery.UNKNOWN)
    assert await outcome(other) == (200, b"")


@pytest.mark.parametrize("kind", range(11))
async def test_a_call_that_a_frame_takes_out_is_settled_by_it_whatever_the_frames_size(kind: int) -> None:
    for size, flags, stream_id, filling in product(range(10), (0, 1, 4, 5, 8, 0x20, 0xFF), (0, 1, 2, 3), (0, 1, 0xFF)):
        streams = Streams()
        waiting = [begun(streams), begun(streams)]
        streams.receive(SETTINGS)
        frame = struct.pack(">HBBBL", 0, size, kind, flags, stream_id) + bytes([filling]) * size
        with suppress(BrokenProtocol):
            streams.receive(frame)

        for call in waiting:
            assert call.answer.done() is (call not in streams.calls.values()), frame
        streams.fail_all("connection_lost")
        for call in waiting:
            await outcome(call)


async def test_frames_of_unknown_kinds_are_passed_over() -> None:
    streams = Streams()
    call = begun(streams)
    unknown = struct.pack(">HBBBL", 0, 3, 0xEE, 0xFF, 0) + b"???"

    streams.receive(SETTINGS + unknown + written(FrameKind.HEADERS, 5, 1, OK) + unknown)

    assert await outcome(call) == (200, b"")


async def test_a_window_that_shrinks_under_a_call_holds_its_body_back() -> None:
    streams = Streams()
    streams.receive(written(FrameKind.SETTINGS, 0, 0, struct.pack(">HL", 4, 5)))
    call = begun(streams, b"0123456789")
    assert call.unsent == b"56789"

    streams.receive(written(FrameKind.SETTINGS, 0, 0, struct.pack(">HL", 4, 2)))
    streams.receive(written(FrameKind.WINDOW_UPDATE, 0, 1, (4).to_bytes(4, "big")))
    assert call.unsent == b"6789"

    streams.receive(written(FrameKind.SETTINGS, 0, 0, struct.pack(">HL", 4, 100)))
    assert call.unsent == b""
