"""Streams in trouble: connections that break on either side, readers that do not read, too many of them."""

import asyncio
import ctypes
import os
import re
import signal
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
import uvicorn
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from api.app import create_app
from api.connection import UNACKNOWLEDGED, bind
from api.log_listener import APPLICATION_NAME
from api.open_streams import Terms
from config import auth_settings, service_settings
from db import conversations, messages
from db.engine import async_url
from simulator import Simulator
from tests.house import House, Place, User, eventually, make_house
from tests.streaming import is_present, streaming
from tests.talk import conversation_of, post, posted

BRISK = Terms(heartbeat=0.1, patience=0.5, beat=0.2, life=0.6, look=0.3)
PHONES, MESSAGES = 10, 150
LARGE = "x" * 16_000
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h

on_linux = pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="needs Linux's TCP_USER_TIMEOUT")


@pytest.fixture(scope="module")
async def place(new_database: Callable[[str], Awaitable[str]], temporal: str, simulator: Simulator) -> Place:
    """A place whose database may be hurt."""
    return Place(await new_database("streams"), temporal, "detached", simulator)


@asynccontextmanager
async def served(place: Place, terms: Terms) -> AsyncIterator[House]:
    environment = place.environment()
    app = create_app(service_settings(environment), auth_settings(environment), terms)
    async with make_house(place, app, unacknowledged=timedelta(seconds=1)) as house:
        yield house


@pytest.fixture(scope="module")
async def brisk(place: Place) -> AsyncIterator[House]:
    """An API whose streams live fast."""
    async with served(place, BRISK) as house:
        yield house


async def fill(house: House, user: User, conversation_id: UUID, *bodies: str) -> None:
    """Post at once."""
    async with house.sessions.begin() as db:
        await conversations.lock(db, conversation_id)
        for body in bodies:
            await messages.post(db, conversation_id, uuid4(), user.user_id, body)


@contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Freeze processes for a while."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


async def listeners(house: House) -> set[int]:
    """Ask who listens."""
    query = "SELECT pid FROM pg_stat_activity WHERE application_name = :name AND datname = current_database()"
    return {row.pid for row in await house.rows(query, name=APPLICATION_NAME)}


def vanish(client: socket.socket) -> None:
    """Let nothing reach a socket any more, so that it acknowledges nothing: a packet filter, `ret 0` (bpf(4))."""
    program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    client.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program)))


@asynccontextmanager
async def connected(user: User, installation_id: UUID) -> AsyncIterator[socket.socket]:
    """Ask for a stream over a bare socket with little room."""
    address = user.house.http.base_url
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, (address.host, address.port))
        head = f"GET /v1/stream?installation_id={installation_id} HTTP/1.1\r\nHost: test\r\n"
        await loop.sock_sendall(client, f"{head}Authorization: {user.headers['Authorization']}\r\n\r\n".encode())
        yield client


async def test_a_silent_stream_is_kept_alive_by_comments_and_stays_present(brisk: House) -> None:
    alice, phone = brisk.user(), uuid4()

    async with streaming(alice, phone) as events:
        for _ in range(15):  # longer than a presence lives that nobody puts off
            await events.comment()
            assert await is_present(brisk, phone)


async def test_every_stream_gets_all_in_order_while_the_listening_connection_is_cut_again_and_again(
    brisk: House,
) -> None:
    alice, readers, phones = brisk.user(), [brisk.user() for _ in range(PHONES)], [uuid4() for _ in range(PHONES)]
    room, cut = await conversation_of(alice, *readers), set[int]()

    async def hurt() -> None:
        while True:
            for pid in await listeners(brisk):
                await brisk.rows("SELECT pg_terminate_backend(:pid)", pid=pid)
                cut.add(pid)
            await asyncio.sleep(0.05)

    async with AsyncExitStack() as stack:
        open_here = [await stack.enter_async_context(streaming(*each)) for each in zip(readers, phones, strict=True)]
        hurting = asyncio.create_task(hurt())
        reading = [asyncio.create_task(events.take(MESSAGES, within=40)) for events in open_here]
        for n in range(MESSAGES):
            await posted(alice, room, str(n))
        seen = await asyncio.gather(*reading)
        hurting.cancel()

    assert all([item["body"] for item in items] == [str(n) for n in range(MESSAGES)] for items in seen)
    assert len(cut) > 3


async def test_a_listening_connection_that_fell_silent_is_replaced(brisk: House) -> None:
    alice = brisk.user()
    room = await conversation_of(alice)

    async with streaming(alice, uuid4()) as events:
        silent = await eventually(lambda: listeners(brisk))
        with stopped(*silent):
            await posted(alice, room)
            assert len(await events.take(1)) == 1
            assert await listeners(brisk) > silent


async def test_streams_outlive_an_outage_of_the_database(place: Place, brisk: House, postgres: str) -> None:
    alice, bob, phone = brisk.user(), brisk.user(), uuid4()
    room = await conversation_of(alice, bob)
    name = async_url(place.database_url).database
    engine = create_async_engine(async_url(postgres), isolation_level="AUTOCOMMIT")

    async with streaming(bob, phone) as events, engine.connect() as server:
        await server.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        await server.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"))
        for _ in range(15):
            await events.comment()
        refused = await post(alice, room)
        await server.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
        await eventually(lambda: _accepted(alice, room))
        assert len(await events.take(1)) == 1
        await eventually(lambda: is_present(brisk, phone))
    await engine.dispose()

    assert refused.status_code == 503


async def test_who_does_not_read_is_cut_off_and_goes_on_where_he_was(brisk: House) -> None:
    alice, phone = brisk.user(), uuid4()
    room = await conversation_of(alice)
    for _ in range(20):
        await fill(brisk, alice, room, *[LARGE] * 100)  # 32 MB

    async with connected(alice, phone) as client:
        await eventually(lambda: is_present(brisk, phone))
        await eventually(lambda: _absent(brisk, phone))
        got = await _drain(client)

    assert len(got) < 12_000_000  # what fits into the buffers of two kernels, and one page
    seen = [int(each) for each in re.findall(rb"^id: (\d+)\nevent", got, re.MULTILINE)]
    assert seen == list(range(1, len(seen) + 1))
    whole = seen[-2]
    async with streaming(alice, phone, last_event_id=whole) as events:
        assert [item["seq"] for item in await events.take(50)] == list(range(whole + 1, whole + 51))


@on_linux
async def test_a_client_that_vanished_without_a_word_is_soon_not_present_any_more(brisk: House) -> None:
    alice, phone = brisk.user(), uuid4()

    async with connected(alice, phone) as client:
        await eventually(lambda: is_present(brisk, phone))
        vanish(client)
        await eventually(lambda: _absent(brisk, phone), within=5)


@on_linux
def test_what_a_server_accepts_breaks_when_the_peer_acknowledges_nothing() -> None:
    with bind(uvicorn.Config(lambda: None, port=0)) as server:
        server.listen()
        with socket.create_connection(server.getsockname()) as _, server.accept()[0] as accepted:
            option = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)

    assert option == UNACKNOWLEDGED.total_seconds() * 1000 == 15_000


async def test_a_process_and_a_user_have_so_many_streams_and_no_more(place: Place) -> None:
    async with served(place, Terms(most=3, most_of_user=2)) as house:
        alice, bob = house.user(), house.user()
        async with streaming(alice, uuid4()) as oldest, streaming(alice, uuid4()), streaming(alice, uuid4()) as newest:
            assert await oldest.to_its_end() == []
            await newest.comment()
            async with streaming(bob, uuid4()):
                answer = await house.http.get(f"/v1/stream?installation_id={uuid4()}", headers=bob.headers)

    assert (answer.status_code, answer.json()["type"]) == (503, "urn:fastbell:problem:unavailable")
    assert "retry-after" in answer.headers


async def test_a_presence_that_was_taken_away_ends_its_stream(brisk: House) -> None:
    alice, phone = brisk.user(), uuid4()

    async with streaming(alice, phone) as events:
        async with brisk.sessions.begin() as db:
            await db.execute(text("DELETE FROM presences WHERE installation_id = :id"), {"id": phone})
        assert await events.to_its_end() == []


async def _absent(house: House, installation_id: UUID) -> bool:
    return not await house.rows("SELECT 1 FROM presences WHERE installation_id = :id", id=installation_id)


async def _accepted(user: User, conversation_id: UUID) -> bool:
    return (await post(user, conversation_id)).status_code == 201


async def _drain(client: socket.socket) -> bytes:
    """Read to the end, however it ends."""
    got = b""
    try:
        while more := await asyncio.get_running_loop().sock_recv(client, 1 << 20):
            got += more
    except ConnectionResetError:
        pass
    return got
