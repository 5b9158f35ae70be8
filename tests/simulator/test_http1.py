"""HTTP/1.1, byte by byte."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from simulator import Simulator
from tests.simulator.tokens import access_token, trusting

BODY = json.dumps({"message": {"token": "phone", "data": {"n": "1"}}}).encode()


class Socket:
    """A TLS socket without ALPN."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, authorization: str) -> None:
        self.reader = reader
        self.writer = writer
        self.head = (
            "POST /v1/projects/fastbell-demo/messages:send HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: {authorization}\r\n"
        ).encode()

    async def answer(self) -> tuple[str, Any]:
        """Read one answer with a Content-Length."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        return head[0], json.loads(await self.reader.readexactly(int(headers["content-length"])) or "null")


@pytest.fixture
async def connection(sim: Simulator) -> AsyncIterator[Socket]:
    """A connection to FCM."""
    async with httpx.AsyncClient(verify=trusting(sim)) as client:
        token = await access_token(sim, client)
    reader, writer = await asyncio.open_connection("127.0.0.1", sim.ports.fcm, ssl=trusting(sim))
    yield Socket(reader, writer, f"Bearer {token}")
    writer.close()
    await writer.wait_closed()


async def test_a_request_may_come_in_pieces(sim: Simulator, connection: Socket) -> None:
    whole = connection.head + b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
    for start in range(0, len(whole), 40):
        connection.writer.write(whole[start : start + 40])
        await connection.writer.drain()
        await asyncio.sleep(0)

    status, content = await connection.answer()

    assert (status, list(content)) == ("HTTP/1.1 200 OK", ["name"])
    assert sim.requests[0].body == BODY


async def test_pipelined_requests_are_answered_in_order(sim: Simulator, connection: Socket) -> None:
    sim.faults.add(provider="fcm", fault="slow", delay=0.05, count=1)
    connection.writer.write((connection.head + b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)) * 3)

    answers = [await connection.answer() for _ in range(3)]

    assert [content["name"] for _, content in answers] == [request.message_id for request in sim.requests]


async def test_a_chunked_body_is_put_together(sim: Simulator, connection: Socket) -> None:
    chunks = b"5\r\n%s\r\n%x;note=x\r\n%s\r\n0\r\n\r\n" % (BODY[:5], len(BODY) - 5, BODY[5:])
    connection.writer.write(connection.head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)

    assert (await connection.answer())[0] == "HTTP/1.1 200 OK"
    assert sim.requests[0].body == BODY


@pytest.mark.parametrize(
    "nonsense", [b"hello\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nx\r\n\r\n", b"x" * 40_000]
)
async def test_what_is_not_http_is_a_bad_request(connection: Socket, nonsense: bytes) -> None:
    connection.writer.write(nonsense)

    assert await connection.answer() == ("HTTP/1.1 400 Bad Request", None)
    assert await connection.reader.read() == b""


async def test_the_connection_closes_when_the_client_asks(connection: Socket) -> None:
    connection.writer.write(connection.head + b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY))

    assert (await connection.answer())[0] == "HTTP/1.1 200 OK"
    assert await connection.reader.read() == b""
