"""The apps' side: users who sign in on one phone and start one fast each, over HTTP."""

import asyncio
import json
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx

from bench.progress import Progress
from bench.stack import Stack
from commands.sign_in import bearer_token

_MAX_IN_FLIGHT = 32  # calls
BATCH = 500  # fasts, the most that a request may have
BATCHES_IN_FLIGHT = 2
_TIMEOUT = 900.0  # seconds for all calls of a phase
_MINUTES = 30  # from the reminder to the end, when it expires; slow runs need some


@dataclass(frozen=True, slots=True)
class Person:
    """A user with one phone and one fast."""

    headers: dict[str, str]
    provider: str
    token: str
    installation_id: UUID = field(default_factory=uuid4)
    session_id: UUID = field(default_factory=uuid4)


@dataclass(frozen=True, slots=True)
class Calls:
    """How a series of API calls went."""

    took: float  # seconds for all
    each: tuple[float, ...]  # seconds, sorted

    @property
    def rate(self) -> float:
        """Calls per second."""
        return len(self.each) / self.took


def people(stack: Stack, count: int, first: int = 0) -> list[Person]:
    """Create users, numbered from `first`; every other phone is an iPhone. The same number again has one more phone."""
    return [_person(stack, number) for number in range(first, first + count)]


async def sign_in(stack: Stack, crowd: Sequence[Person], progress: Progress) -> Calls:
    """Register everybody's phone."""

    def register(person: Person) -> bytes:
        body = {"provider": person.provider, "token": person.token}
        return request("PUT", f"/v1/device-tokens/{person.installation_id}", person, body)

    return await call_all(stack, crowd, register, progress)


async def start_fasts(stack: Stack, crowd: Sequence[Person], due_at: datetime, progress: Progress) -> Calls:
    """Start everybody's fast; all reminders are due at one instant."""
    ends_at = (due_at + timedelta(minutes=_MINUTES)).isoformat()
    body = {"ends_at": ends_at, "reminder_minutes": [_MINUTES]}

    def start(person: Person) -> bytes:
        return request("PUT", f"/v1/fasting-sessions/{person.session_id}", person, body)

    return await call_all(stack, crowd, start, progress)


def request(method: str, path: str, person: Person, body: object = None) -> bytes:
    """Write a person's request as it is sent."""
    content = b"" if body is None else json.dumps(body).encode()
    headers = {"Host": "api", "Content-Type": "application/json", "Content-Length": str(len(content)), **person.headers}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + content


async def call_all(
    stack: Stack, crowd: Sequence[Person], write: Callable[[Person], bytes], progress: Progress
) -> Calls:
    """Send a request for each, 32 at a time over as many connections.

    They are sent as bytes, since a client library takes as much of the machine as the API does.
    """
    each: list[float] = []
    waiting, url = iter(crowd), urlsplit(stack.api_url)

    async def work() -> None:
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        for person in waiting:
            began = time.perf_counter()
            writer.write(write(person))
            status = await _answered(reader)
            each.append(time.perf_counter() - began)
            if status >= httpx.codes.MULTIPLE_CHOICES:
                raise SystemExit(f"The API answered {status}.")
            progress.show(len(each))
        writer.close()

    began = time.perf_counter()
    async with asyncio.timeout(_TIMEOUT), asyncio.TaskGroup() as group:
        for _ in range(_MAX_IN_FLIGHT):
            group.create_task(work())
    return Calls(time.perf_counter() - began, tuple(sorted(each)))


async def _answered(reader: asyncio.StreamReader) -> int:
    """Read an answer to its end, and give its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    await reader.readexactly(int(length[1]) if length else 0)
    return int(head.split(b" ", 2)[1])


async def start_in_batches(stack: Stack, count: int, progress: Progress) -> Calls:
    """Have a service start fasts that end in 16 hours, of as many users, in batches."""
    each: list[float] = []
    ends_at = (datetime.now(UTC) + timedelta(hours=16)).isoformat()
    sizes = iter([BATCH] * (count // BATCH) + [count % BATCH] * (count % BATCH > 0))

    def items(size: int) -> list[dict[str, object]]:
        common: dict[str, object] = {"op": "start", "ends_at": ends_at, "reminder_minutes": [_MINUTES]}
        return [common | {"user_id": f"imported-{uuid4()}", "session_id": str(uuid4())} for _ in range(size)]

    async with httpx.AsyncClient(base_url=stack.api_url, timeout=60, trust_env=False) as http:

        async def send() -> None:
            for size in sizes:
                body = {"items": items(size)}
                began = time.perf_counter()
                answer = await http.post("/v1/fasting-sessions/batch", json=body, headers=service(stack))
                each.append(time.perf_counter() - began)
                results = answer.raise_for_status().json()["items"]
                if refused := sum(item["status"] != httpx.codes.CREATED for item in results):
                    progress.tell(f"{refused} items were refused")
                progress.show(len(each) * BATCH)

        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(BATCHES_IN_FLIGHT):
                group.create_task(send())
    return Calls(time.perf_counter() - began, tuple(sorted(each)))


def service(stack: Stack) -> dict[str, str]:
    """Sign a service in."""
    bearer = bearer_token(stack.auth, "backend", ("service",), timedelta(hours=1))
    return {"Authorization": f"Bearer {bearer}"}


def _person(stack: Stack, number: int) -> Person:
    bearer = bearer_token(stack.auth, f"user-{number}", (), timedelta(hours=4))
    headers = {"Authorization": f"Bearer {bearer}"}
    if number % 2:
        return Person(headers, "fcm", f"fcm-{secrets.token_urlsafe(90)}")
    return Person(headers, "apns", secrets.token_hex(32))
