"""Webhooks as a backend handles them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import httpx
from sqlalchemy import text

from tests.events.receiver import Receiver
from tests.stack import Stack, User, eventually, iphone


@dataclass(frozen=True)
class Hook:
    """A webhook and its owner."""

    stack: Stack
    id: UUID
    secret: str
    backend: User

    async def call(self, method: str, path: str = "", body: object = None) -> httpx.Response:
        """Make a call about it."""
        return await self.backend.call(method, f"/v1/webhooks/{self.id}{path}", body)

    async def shown(self) -> dict[str, Any]:
        """Read it."""
        body: dict[str, Any] = (await self.call("GET")).json()
        return body

    async def deliveries(self, **wanted: Any) -> list[dict[str, Any]]:
        """Read its deliveries with these values, the latest first."""
        items: list[dict[str, Any]] = (await self.call("GET", "/deliveries?limit=200")).json()["items"]
        return [each for each in items if all(each[name] == value for name, value in wanted.items())]

    async def ends_as(self, count: int, *, within: float = 15.0, **wanted: Any) -> list[dict[str, Any]]:
        """Wait for so many deliveries with these values."""

        async def there() -> list[dict[str, Any]] | None:
            found = await self.deliveries(**wanted)
            return found if len(found) >= count else None

        found: list[dict[str, Any]] = await eventually(there, within=within)
        return found

    async def hurry(self) -> None:
        """Let all waits of its deliveries be over."""
        soon = "UPDATE webhook_deliveries SET next_attempt_at = now() WHERE webhook_id = :id AND state = 'pending'"
        async with self.stack.sessions.begin() as db:
            await db.execute(text(soon), {"id": self.id})


@asynccontextmanager
async def hooked(stack: Stack, receiver: Receiver, *types: str) -> AsyncIterator[Hook]:
    """Make a webhook; deleted when the block is left."""
    backend, webhook_id = stack.user("backend", "service"), uuid4()
    body = {"url": receiver.url} | ({"types": list(types)} if types else {})
    made = await backend.call("PUT", f"/v1/webhooks/{webhook_id}", body)
    assert made.status_code == 201, made.text
    hook = Hook(stack, webhook_id, made.json()["secret"], backend)
    try:
        yield hook
    finally:
        assert (await hook.call("DELETE")).status_code == 204


async def register_some(stack: Stack, count: int) -> User:
    """Let somebody register phones: as many events."""
    user = stack.user()
    await user.register(*(iphone() for _ in range(count)))
    return user
