"""The HTTP/2 client against peers that talk nonsense: every call ends, and no later than its timeouts say."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta

import pytest
from hpack import HeaderTuple

from push.http2.frames import END_HEADERS, END_STREAM, PADDED, FrameKind, settings_written, written
from push.http2.pool import Pool, Timeouts
from push.http2.streams import Response
from push.sender import Delivery, NoRoom, Unavailable
from tests.busy import in_time, soon
from tests.push.conftest import SHORT
from tests.push.peer import Peer, Request

REQUEST = [
    HeaderTuple(name, value)
    for name, value in ((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"peer"))
]
SETTINGS = settings_written({})
SILENT = {"answer_timeout", "peer_is_dead"}  # the latter where a PING, too, was not answered in time
OK = written(FrameKind.HEADERS, END_HEADERS | END_STREAM, 1, b"\x88")


@asynccontextmanager
async def saying(
    greeting: bytes, words: Callable[[int], bytes], *, leaves: bool = False, patience: float = 10
) -> AsyncIterator[Pool]:
    """Listen; greet, and say these words (of the connection's number) once a request came; then leave or stay.

    `patience` is for the connection, in seconds.
    """
    count = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        number, count = count, count + 1
        writer.write(greeting)
        seen = b""
        with suppress(ConnectionError):
            while b"{}" not in seen:
                seen += await reader.read(4096) or b"{}"
            writer.write(words(number))
            if not leaves:
                await reader.read()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        timeouts = replace(SHORT, connect=timedelta(seconds=patience), lease=timedelta(seconds=10))
        pool = Pool(url, ca_file=None, connections=200, timeouts=timeouts)
        try:
            yield pool
        finally:
            await pool.close()


async def send(pool: Pool) -> Response | Unavailable:
    try:
        async with pool.lease() as lease:
            return await lease.call(REQUEST, b"{}")
    except Unavailable as trouble:
        return trouble


def frame(kind: int, size: int) -> bytes:
    return struct.pack(">HBBBL", 0, size, kind, 0, 0 if kind in {4, 6, 7} else 1) + bytes(size)


@pytest.mark.parametrize("kind", range(11))
async def test_no_frame_of_any_size_leaves_a_call_without_an_end(kind: int) -> None:
    """One call on a connection of its own for each size; the peer stays, and says nothing more."""

    async def called(size: int) -> Response | Unavailable:
        async with saying(SETTINGS, lambda _: frame(kind, size)) as pool:
            return await send(pool)

    async with soon(15):
        outcomes = await asyncio.gather(*(called(size) for size in range(10)))

    assert not [each for each in outcomes if not isinstance(each, Unavailable) or isinstance(each, NoRoom)]
    assert {each.reason for each in outcomes if isinstance(each, Unavailable)} <= {
        "protocol_error",
        *SILENT,
        "malformed_answer",
        "stream_reset",
        "goaway",
    }


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (written(FrameKind.RST_STREAM, 0, 1, b"\0\0\0"), "malformed_answer"),
        (written(FrameKind.HEADERS, END_HEADERS | END_STREAM, 1, b"\xff\xff\xff\xff\xff\xff"), "protocol_error"),
        (written(FrameKind.HEADERS, END_HEADERS | END_STREAM, 1, b"\x00\xff"), "protocol_error"),
        (written(FrameKind.HEADERS, END_HEADERS | END_STREAM | PADDED, 1, b"\x09\x88"), "protocol_error"),
        (written(FrameKind.DATA, END_STREAM | PADDED, 1, b"\x09{}"), "malformed_answer"),
        (written(FrameKind.HEADERS, 0, 1, b"\x88") + written(FrameKind.CONTINUATION, 0, 1, b"") * 50, "protocol_error"),
        (written(FrameKind.HEADERS, 0, 1, b"\x88"), SILENT),
        (written(FrameKind.SETTINGS, 0, 0, struct.pack(">HL", 4, 2**31)), "protocol_error"),
        (written(FrameKind.SETTINGS, 0, 0, struct.pack(">HL", 3, 0)), SILENT),
        (written(FrameKind.PING, 0, 0, bytes(9)), SILENT),
        (written(FrameKind.HEADERS, END_HEADERS, 1, b"\x08\x03103") * 40, SILENT),
        (b"HTTP/1.1 408 Request Timeout\r\n\r\n", "protocol_error"),
    ],
    ids=[
        "short reset",
        "integer overflow",
        "huffman",
        "padded headers",
        "padded data",
        "continuations",
        "headers without end",
        "impossible window",
        "no streams",
        "long ping",
        "early hints without end",
        "http/1.1",
    ],
)
async def test_whatever_is_said_the_call_ends_and_says_why(said: bytes, reason: str | set[str]) -> None:
    async with soon(15), saying(SETTINGS, lambda _: said) as pool:
        trouble = await send(pool)

    assert isinstance(trouble, Unavailable)
    assert trouble.reason in ({reason} if isinstance(reason, str) else reason)
    assert trouble.delivery is Delivery.UNKNOWN


async def test_a_peer_that_hangs_up_without_an_answer_is_not_waited_for() -> None:
    began = asyncio.get_running_loop().time()
    async with saying(SETTINGS, lambda _: b"", leaves=True) as pool:
        trouble = await send(pool)

    assert isinstance(trouble, Unavailable)
    assert trouble.reason == "connection_lost"
    assert in_time(asyncio.get_running_loop().time() - began, SHORT.answer.total_seconds())


@pytest.mark.parametrize(
    "greeting", [b"", SETTINGS[:5], b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x01\0\x02\x02\x46"]
)
@pytest.mark.parametrize("leaves", [True, False])
async def test_a_peer_that_never_greets_is_a_failed_connection(greeting: bytes, leaves: bool) -> None:
    async with soon(15), saying(greeting, lambda _: b"", leaves=leaves, patience=0.5) as pool:
        trouble = await send(pool)

    assert isinstance(trouble, Unavailable)
    assert (trouble.reason, trouble.delivery) == ("connect_failed", Delivery.NOT_PROCESSED)


async def test_closing_in_the_middle_of_a_connection_keeps_nobody() -> None:
    async with soon(15), saying(b"", lambda _: b"") as pool:
        waiting = asyncio.create_task(send(pool))
        while pool._opening is None:
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)  # for the connection to be there, without a greeting
        await pool.close()
        trouble = await waiting

    assert isinstance(trouble, NoRoom)
    assert trouble.reason == "closing"


async def test_a_call_after_one_that_a_broken_frame_ended_goes_over_another_connection() -> None:
    broken = written(FrameKind.RST_STREAM, 0, 1, b"\0\0\0")
    async with saying(SETTINGS, lambda number: broken if number == 0 else OK) as pool:
        first, second = await send(pool), await send(pool)

    assert isinstance(first, Unavailable)
    assert isinstance(second, Response)


async def test_one_odd_frame_costs_no_other_call(peer: Peer) -> None:
    """Of ten calls on one connection, the fifth is answered with half a reset; the others wait, and are answered."""
    pool = Pool(peer.url, ca_file=None, connections=1, timeouts=Timeouts())
    await send(pool)
    waiting: list[Request] = []

    def answer_together(request: Request) -> None:
        waiting.append(request)
        if len(waiting) == 10:
            request.connection.transport.write(written(FrameKind.RST_STREAM, 0, waiting.pop(4).stream_id, b"\0\0\0"))
            for held in waiting:
                asyncio.get_running_loop().call_later(0.05, held.answer)

    peer.script = answer_together
    outcomes = await asyncio.gather(*(send(pool) for _ in range(10)))
    peer.script = Request.answer
    later = await send(pool)
    await pool.close()

    assert [each.reason for each in outcomes if isinstance(each, Unavailable)] == ["malformed_answer"]
    assert isinstance(later, Response)
    assert len(peer.connections) == 2


async def test_a_peer_that_asks_without_end_and_reads_nothing_is_dropped() -> None:
    """Its questions are answered, and the answers would pile up in our memory."""

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SETTINGS)
        with suppress(ConnectionError):
            seen = b""
            while b"{}" not in seen:
                seen += await reader.read(4096)
            while True:
                writer.write(written(FrameKind.PING, 0, 0, bytes(8)) * 4000)
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(ask, "127.0.0.1", 0, limit=1) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        pool = Pool(url, ca_file=None, connections=1, timeouts=Timeouts(answer=timedelta(minutes=1)))
        async with soon(20):
            trouble = await send(pool)
        await pool.close()

    assert isinstance(trouble, Unavailable)
    assert (trouble.reason, trouble.delivery) == ("reads_nothing", Delivery.UNKNOWN)
