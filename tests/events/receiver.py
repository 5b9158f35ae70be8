"""A receiver of webhooks on a real socket: it keeps what it is sent, and answers as a test wants."""

import asyncio
import base64
import hashlib
import hmac
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tests.stack import eventually

Answering = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Received:
    """One request."""

    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """Its `webhook-id`."""
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        """Its body."""
        return json.loads(self.body)

    def is_signed_with(self, secret: str) -> bool:
        """Check the signature as a receiver does, by the specification."""
        content = f"{self.id}.{self.headers['webhook-timestamp']}.".encode() + self.body
        key = base64.b64decode(secret.removeprefix("whsec_"))
        expected = "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
        return expected in self.headers["webhook-signature"].split(" ")


@dataclass
class Receiver:
    """It answers 204, unless it was given other answers; the last of them stays."""

    url: str = ""
    requests: list[Received] = field(default_factory=list)
    answers: list[Answering] = field(default_factory=list)

    def answer(self, *answers: "int | Answering") -> None:
        """Answer so from now on, one after the other."""
        self.answers = [_status(each) if isinstance(each, int) else each for each in answers]

    def next_answer(self) -> Answering:
        """Take the next answer, for one request alone."""
        if len(self.answers) > 1:
            return self.answers.pop(0)
        return self.answers[0] if self.answers else _status(204)

    def of(self, user_id: str) -> list[Received]:
        """Give the requests about a person."""
        return [each for each in self.requests if each.json["data"].get("user_id") == user_id]

    async def got(self, count: int, user_id: str, *, within: float = 15.0) -> list[Received]:
        """Wait for so many requests about a person."""

        async def received() -> list[Received] | None:
            found = self.of(user_id)
            return found if len(found) >= count else None

        found: list[Received] = await eventually(received, within=within)
        return found


def _status(status: int) -> Answering:
    return says(f"HTTP/1.1 {status} So\r\nContent-Length: 0\r\n\r\n")


def says(text: str) -> Answering:
    """Answer with these bytes."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(text.encode())
        await writer.drain()

    return answer


async def never(writer: asyncio.StreamWriter) -> None:
    """Answer nothing for as long as the connection lasts."""
    await writer.wait_closed()


@asynccontextmanager
async def receiving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """Listen until the block is left."""
    receiver, open_now = Receiver(), set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_now.add(task)
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {
                    name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)
                }
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                receiver.requests.append(Received(headers, body))
                await receiver.next_answer()(writer)
        open_now.discard(task)
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    receiver.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}/hook"
    try:
        yield receiver
    finally:
        server.close()
        for task in open_now:
            task.cancel()
