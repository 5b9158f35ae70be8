"""Many requests at one instant, each on a connection of its own."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from tests.stack import Stack, User

Request = tuple[User, str, str, Mapping[str, object]]


@asynccontextmanager
async def burst(stack: Stack, requests: Sequence[Request]) -> AsyncIterator[Callable[[], asyncio.Future[list[int]]]]:
    """Open a connection for each of these; gives what sends all of them at once, and gives their statuses."""
    host, port = stack.http.base_url.host, stack.http.base_url.port
    connections = [await asyncio.open_connection(host, port) for _ in requests]

    async def ask(number: int) -> int:
        (user, method, path, body), (reader, writer) = requests[number], connections[number]
        sent = json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: {user.headers['Authorization']}\r\n"
        more = f"Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n\r\n"
        writer.write(f"{head}{more}".encode() + sent)
        return int((await reader.readuntil(b"\r\n\r\n")).split()[1])

    try:
        yield lambda: asyncio.gather(*(ask(number) for number in range(len(requests))))
    finally:
        for _, writer in connections:
            writer.close()
