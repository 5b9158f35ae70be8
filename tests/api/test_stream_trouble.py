"""Streams whose clients are in trouble: silent, vanished, slow, too many."""

import asyncio
import ctypes
import re
import socket
import struct
from uuid import UUID, uuid4

import pytest
import uvicorn

from api.http.connection import UNACKNOWLEDGED, bind
from api.open_streams import OpenStreamLimits
from db import conversations, messages
from tests.busy import in_time
from tests.stack import Stack, StackPlace, User, eventually
from tests.streaming import BRISK, deaf_client, is_present, served, streaming, unrenewed
from tests.talk import conversation_of

LARGE = "x" * 16_000
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h

on_linux = pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="needs Linux's TCP_USER_TIMEOUT")


async def fill(stack: Stack, user: User, conversation_id: UUID, *bodies: str) -> None:
    """Post at once."""
    async with stack.sessions.begin() as db:
        await conversations.lock(db, conversation_id)
        for body in bodies:
            await messages.post(db, conversation_id, uuid4(), user.user_id, body)


def vanish(client: socket.socket) -> None:
    """Let nothing reach a socket any more, so that it acknowledges nothing: a packet filter, `ret 0` (bpf(4))."""
    program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    client.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program)))


async def test_a_silent_stream_is_kept_alive_by_comments_and_stays_present(brisk: Stack) -> None:
    alice, phone = brisk.user(), uuid4()

    async with streaming(alice, phone) as events:
        for _ in range(15):  # longer than a presence lives that nobody puts off
            await events.comment()
            assert in_time(await unrenewed(brisk, phone, BRISK), BRISK.presence_lifetime)


async def test_who_does_not_read_is_cut_off_and_goes_on_where_he_was(brisk: Stack) -> None:
    alice, phone = brisk.user(), uuid4()
    room = await conversation_of(alice)
    for _ in range(20):
        await fill(brisk, alice, room, *[LARGE] * 100)  # 32 MB

    async with deaf_client(alice, phone, room=10 * len(LARGE)) as client:
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
async def test_a_client_that_vanished_without_a_word_is_soon_not_present_any_more(brisk: Stack) -> None:
    alice, phone = brisk.user(), uuid4()

    async with deaf_client(alice, phone) as client:
        await eventually(lambda: is_present(brisk, phone))
        vanish(client)
        await eventually(lambda: _absent(brisk, phone), within=5)


@on_linux
def test_what_a_server_accepts_breaks_when_the_peer_acknowledges_nothing() -> None:
    with bind(uvicorn.Config(lambda: None, port=0)) as server:
        server.listen()
        with socket.create_connection(server.getsockname()) as _, server.accept()[0] as accepted:
            timeout = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            waits_for_more = not accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    assert timeout == UNACKNOWLEDGED.total_seconds() * 1000 == 15_000
    assert not waits_for_more


async def test_a_process_and_a_user_have_so_many_streams_and_no_more(fragile: StackPlace) -> None:
    async with served(fragile, OpenStreamLimits(max_streams=3, max_streams_per_user=2)) as stack:
        alice, bob = stack.user(), stack.user()
        async with streaming(alice, uuid4()) as oldest, streaming(alice, uuid4()), streaming(alice, uuid4()) as newest:
            assert await oldest.to_its_end() == []
            await newest.comment()
            async with streaming(bob, uuid4()):
                answer = await stack.http.get(f"/v1/stream?installation_id={uuid4()}", headers=bob.headers)

    assert (answer.status_code, answer.json()["type"]) == (503, "urn:fastbell:problem:unavailable")
    assert "retry-after" in answer.headers


async def _absent(stack: Stack, installation_id: UUID) -> bool:
    return not await stack.rows("SELECT 1 FROM presences WHERE installation_id = :id", id=installation_id)


async def _drain(client: socket.socket) -> bytes:
    """Read to the end, however it ends."""
    got = b""
    try:
        while more := await asyncio.get_running_loop().sock_recv(client, 1 << 20):
            got += more
    except ConnectionResetError:
        pass
    return got
