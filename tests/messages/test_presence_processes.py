"""Streams and presence across processes: posted at one, read at another, and one that goes in order or is killed."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from uuid import UUID, uuid4

import httpx
import pytest

from tests.busy import in_time
from tests.servers import Part, free_port, part
from tests.stack import Stack, User, eventually
from tests.streaming import deaf_client, is_present, streaming
from tests.talk import conversation_of, posted

pytestmark = pytest.mark.long

MESSAGES = 50


@dataclass(frozen=True)
class ApiProcess:
    """Another API process of the stack."""

    address: str
    process: Part


@asynccontextmanager
async def another_api(stack: Stack) -> AsyncIterator[ApiProcess]:
    """Start an API process."""
    port = free_port()
    async with part(stack.place.environment(API_PORT=str(port)), "-m", "api") as process:
        api = ApiProcess(f"http://127.0.0.1:{port}", process)
        await eventually(lambda: _is_ready(api), within=20)
        await process.says("listening")
        yield api


async def test_what_is_posted_at_one_process_arrives_on_the_streams_of_another_in_order(
    stack: Stack, alice: User, bob: User
) -> None:
    room, phones = await conversation_of(alice, bob), [uuid4() for _ in range(3)]

    async with (
        another_api(stack) as api,
        streaming(bob, phones[0], at=api.address) as one,
        streaming(bob, phones[1], at=api.address) as two,
        streaming(bob, phones[2]) as here,
    ):
        for n in range(MESSAGES):
            await posted(alice, room, str(n))
        seen = await asyncio.gather(*(events.take(MESSAGES) for events in (one, two, here)))

    assert all([item["body"] for item in items] == [str(n) for n in range(MESSAGES)] for items in seen)


async def test_a_reminder_that_comes_due_arrives_on_the_stream(bob: User) -> None:
    async with streaming(bob, uuid4()) as events:
        session_id = await bob.start_fast(due_in=1.0)
        [item] = await events.take(1)

    assert (item["kind"], item["conversation_id"], item["reminder_minutes"]) == ("reminder", str(session_id), 1)


async def test_a_process_that_is_told_to_stop_ends_its_streams_at_once_those_that_nobody_reads_too(
    stack: Stack, alice: User, bob: User
) -> None:
    room, phone, deaf = await conversation_of(alice, bob), uuid4(), uuid4()

    async with another_api(stack) as api, streaming(bob, phone, at=api.address) as events:
        async with deaf_client(bob, deaf, at=api.address):
            await events.comment()
            for _ in range(MESSAGES):
                await posted(alice, room, "x" * 16_000)
            await events.take(MESSAGES)
            await eventually(lambda: is_present(stack, deaf))
            told_at = time.monotonic()
            await api.process.end(signal.SIGTERM)
            took = time.monotonic() - told_at
        assert await events.to_its_end() == []

    assert in_time(took, 5.0)
    assert not await stack.rows("SELECT 1 FROM presences WHERE installation_id IN (:one, :two)", one=phone, two=deaf)


@pytest.mark.long
@pytest.mark.timeout(90)
async def test_presence_ends_within_30_s_of_a_process_that_is_killed_or_freezes(
    stack: Stack, alice: User, bob: User
) -> None:
    phones, deadline = [uuid4(), uuid4()], 30.0

    async with (
        another_api(stack) as killed,
        another_api(stack) as frozen,
        streaming(alice, phones[0], at=killed.address),
        streaming(bob, phones[1], at=frozen.address),
    ):
        frozen.process.process.send_signal(signal.SIGSTOP)
        killed.process.process.send_signal(signal.SIGKILL)
        before = [await is_present(stack, phone) for phone in phones]
        for phone in phones:
            await eventually(partial(_is_absent, stack, phone), within=deadline)

    assert before == [True, True]


async def _is_ready(api: ApiProcess) -> bool:
    try:
        async with httpx.AsyncClient() as http:
            return (await http.get(f"{api.address}/readyz")).status_code == 200
    except httpx.TransportError:
        return False


async def _is_absent(stack: Stack, installation_id: UUID) -> bool:
    return not await is_present(stack, installation_id)
