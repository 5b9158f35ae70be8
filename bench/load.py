"""The apps' side: users who sign in on one phone and start one fast each, over HTTP."""

import asyncio
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx

from bench.progress import Progress
from bench.stack import Stack
from commands.sign_in import bearer_token

_MAX_IN_FLIGHT = 32  # calls
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

    async def register(http: httpx.AsyncClient, person: Person) -> httpx.Response:
        body = {"provider": person.provider, "token": person.token}
        return await http.put(f"/v1/device-tokens/{person.installation_id}", json=body, headers=person.headers)

    return await _all(stack, crowd, register, progress)


async def start_fasts(stack: Stack, crowd: Sequence[Person], due_at: datetime, progress: Progress) -> Calls:
    """Start everybody's fast; all reminders are due at one instant."""
    ends_at = (due_at + timedelta(minutes=_MINUTES)).isoformat()
    body = {"ends_at": ends_at, "reminder_minutes": [_MINUTES]}

    async def start(http: httpx.AsyncClient, person: Person) -> httpx.Response:
        return await http.put(f"/v1/fasting-sessions/{person.session_id}", json=body, headers=person.headers)

    return await _all(stack, crowd, start, progress)


def _person(stack: Stack, number: int) -> Person:
    bearer = bearer_token(stack.auth, f"user-{number}", (), timedelta(hours=4))
    headers = {"Authorization": f"Bearer {bearer}"}
    if number % 2:
        return Person(headers, "fcm", f"fcm-{secrets.token_urlsafe(90)}")
    return Person(headers, "apns", secrets.token_hex(32))


async def _all(
    stack: Stack,
    crowd: Sequence[Person],
    call: Callable[[httpx.AsyncClient, Person], Coroutine[Any, Any, httpx.Response]],
    progress: Progress,
) -> Calls:
    each: list[float] = []
    waiting = iter(crowd)

    async def work(http: httpx.AsyncClient) -> None:
        for person in waiting:
            began = time.perf_counter()
            try:
                answer = await call(http, person)
            except httpx.TransportError as error:  # the API promises that repeats are harmless
                progress.tell(f"an API call was repeated after {type(error).__name__}")
                answer = await call(http, person)
            each.append(time.perf_counter() - began)
            answer.raise_for_status()
            progress.show(len(each))

    limits = httpx.Limits(max_connections=_MAX_IN_FLIGHT, max_keepalive_connections=_MAX_IN_FLIGHT)
    async with httpx.AsyncClient(base_url=stack.api_url, timeout=60, limits=limits, trust_env=False) as http:
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(_MAX_IN_FLIGHT):
                group.create_task(work(http))
    return Calls(time.perf_counter() - began, tuple(sorted(each)))
