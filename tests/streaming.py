"""The stream as an app reads it."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx

from api.app import create_app
from api.open_streams import OpenStreamLimits
from settings.environment import auth_settings, limit_settings, service_settings
from tests.busy import soon
from tests.stack import Stack, StackPlace, User, make_stack

BRISK = OpenStreamLimits(heartbeat=0.1, write_timeout=0.5, renew_every=0.2, presence_lifetime=0.6, check_every=0.3)


@asynccontextmanager
async def served(place: StackPlace, stream_limits: OpenStreamLimits) -> AsyncIterator[Stack]:
    """Serve an API with these limits of streams and few connections. A vanished peer is noticed within a second."""
    environment = place.environment(DATABASE_POOL_SIZE="2", MESSAGE_RATE="0")
    limits = limit_settings(environment)
    app = create_app(service_settings(environment), auth_settings(environment), stream_limits, limits)
    async with make_stack(place, app, unacknowledged=timedelta(seconds=1)) as stack:
        yield stack


class Events:
    """What comes over one open stream."""

    def __init__(self, response: httpx.Response) -> None:
        self.headers = response.headers
        self._lines = response.aiter_lines()

    async def take(self, count: int, *, within: float = 15.0) -> list[dict[str, Any]]:
        """Wait for so many items."""
        taken: list[dict[str, Any]] = []
        async with soon(within):
            while len(taken) < count:
                lines = await self._event()
                assert lines is not None, "the stream ended"
                if "event" in lines:
                    item = json.loads(lines["data"])
                    assert (lines["event"], lines["id"]) == ("item", str(item["seq"]))
                    taken.append(item)
        return taken

    async def comment(self) -> None:
        """Wait for a comment; the first is the greeting."""
        async with soon(15):
            while "" not in (lines := await self._event() or {}):
                assert lines, "the stream ended"

    async def to_its_end(self) -> list[int]:
        """Wait until the stream ends; gives the numbers of the items that came before."""
        seen = []
        async with soon(15):
            while (lines := await self._event()) is not None:
                seen += [int(lines["id"])] if "id" in lines else []
        return seen

    async def _event(self) -> dict[str, str] | None:
        lines: dict[str, str] = {}
        async for line in self._lines:
            if not line:
                return lines
            name, _, value = line.partition(":")
            lines[name] = value.removeprefix(" ")
        return None


@asynccontextmanager
async def streaming(
    user: User, installation_id: UUID, *, last_event_id: int | None = None, at: str = "", after: int = 0
) -> AsyncIterator[Events]:
    """Open a stream; `at`: the address of another API process than the stack's."""
    headers = user.headers | ({} if last_event_id is None else {"Last-Event-ID": str(last_event_id)})
    address = f"{at}/v1/stream?installation_id={installation_id}&after={after}"
    async with user.stack.http.stream("GET", address, headers=headers) as response:
        if response.status_code != 200:
            await response.aread()
        assert response.status_code == 200, response.text
        yield Events(response)


@asynccontextmanager
async def deaf_client(
    user: User, installation_id: UUID, *, at: str = "", room: int = 4096
) -> AsyncIterator[socket.socket]:
    """Ask for a stream over a bare socket with little room (bytes), and read nothing of it."""
    url, loop = httpx.URL(at or user.stack.http.base_url), asyncio.get_running_loop()
    head = f"GET /v1/stream?installation_id={installation_id} HTTP/1.1\r\nHost: test\r\n"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        client.setblocking(False)
        await loop.sock_connect(client, (url.host, url.port))
        await loop.sock_sendall(client, f"{head}Authorization: {user.headers['Authorization']}\r\n\r\n".encode())
        yield client


async def unrenewed(stack: Stack, installation_id: UUID, limits: OpenStreamLimits) -> float:
    """Tell for how long nobody has renewed the one presence of an installation, in seconds."""
    query = "SELECT extract(epoch FROM clock_timestamp() - expires_at) FROM presences WHERE installation_id = :id"
    [(overdue,)] = await stack.rows(query, id=installation_id)
    return float(overdue) + limits.presence_lifetime


async def is_present(stack: Stack, installation_id: UUID) -> bool:
    """Tell whether an installation is present."""
    query = "SELECT 1 FROM presences WHERE installation_id = :id AND expires_at > clock_timestamp()"
    return bool(await stack.rows(query, id=installation_id))
