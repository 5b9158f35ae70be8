"""Streams while the database is in trouble: no item is lost, whatever happens to the connections."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from uuid import uuid4

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from api.open_streams import APPLICATION_NAME, LogFeed
from db.engine import async_url
from db.log import LogPage
from tests.busy import in_time
from tests.stack import Stack, StackPlace, eventually, uncommitted
from tests.streaming import BRISK, is_present, streaming, unrenewed
from tests.talk import conversation_of, posted

PHONES, MESSAGES = 10, 80


async def test_every_stream_gets_all_in_order_while_the_listening_connection_is_cut_again_and_again(
    brisk: Stack,
) -> None:
    alice, readers, phones = brisk.user(), [brisk.user() for _ in range(PHONES)], [uuid4() for _ in range(PHONES)]
    room, cut = await conversation_of(alice, *readers), set[int]()

    async def hurt() -> None:
        while True:
            for pid in await listeners(brisk):
                await brisk.rows("SELECT pg_terminate_backend(:pid)", pid=pid)
                cut.add(pid)
            await asyncio.sleep(0.05)

    async with AsyncExitStack() as exits:
        open_here = [await exits.enter_async_context(streaming(*each)) for each in zip(readers, phones, strict=True)]
        hurting = asyncio.create_task(hurt())
        reading = [asyncio.create_task(events.take(MESSAGES, within=40)) for events in open_here]
        for n in range(MESSAGES):
            await posted(alice, room, str(n))
            if n % 20 == 10:
                await eventually(partial(_is_larger, cut, than=len(cut)))
        seen = await asyncio.gather(*reading)
        hurting.cancel()
        await asyncio.gather(hurting, return_exceptions=True)

    assert all([item["body"] for item in items] == [str(n) for n in range(MESSAGES)] for items in seen)
    assert len(cut) > 3


async def test_a_listening_connection_that_fell_silent_is_replaced(brisk: Stack) -> None:
    alice = brisk.user()
    room = await conversation_of(alice)

    async with streaming(alice, uuid4()) as events:
        silent = await eventually(lambda: listeners(brisk))
        with stopped(*silent):
            await posted(alice, room)
            assert len(await events.take(1)) == 1
            await eventually(lambda: _others(brisk, silent))
            await posted(alice, room)
            assert len(await events.take(1)) == 1


async def test_streams_outlive_an_outage_of_the_database(fragile: StackPlace, brisk: Stack, postgres: str) -> None:
    alice, bob, phone = brisk.user(), brisk.user(), uuid4()
    room = await conversation_of(alice, bob)
    name = async_url(fragile.database_url).database
    engine = create_async_engine(async_url(postgres), isolation_level="AUTOCOMMIT")

    async with streaming(bob, phone) as events, engine.connect() as server:
        await server.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        await server.execute(
            text(f"SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE datname = '{name}'")
        )
        for _ in range(15):
            await events.comment()
        await server.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
        await posted(alice, room)
        assert len(await events.take(1)) == 1
        await eventually(lambda: is_present(brisk, phone))
    await engine.dispose()


async def test_a_presence_that_somebody_holds_lets_no_other_lapse(brisk: Stack) -> None:
    alice, bob, held, free = brisk.user(), brisk.user(), uuid4(), uuid4()

    async with streaming(alice, held) as hers, streaming(bob, free) as others:
        await hers.comment()
        hold = "SELECT 1 FROM presences WHERE installation_id = :id FOR UPDATE"
        async with uncommitted(brisk, hold, id=held):
            for _ in range(15):  # longer than a presence lives that nobody puts off
                await others.comment()
                assert in_time(await unrenewed(brisk, free, BRISK), BRISK.presence_lifetime)
        await eventually(lambda: is_present(brisk, held))
        await hers.comment()


async def test_a_read_that_the_database_refuses_for_its_content_is_no_outage_for_others(brisk: Stack) -> None:
    alice = brisk.user()
    message_id = await posted(alice, await conversation_of(alice))
    feed = LogFeed(brisk.sessions)

    odd, *pages = await asyncio.gather(
        feed.page_after("a\0b", 0), *(feed.page_after(alice.user_id, 0) for _ in range(5)), return_exceptions=True
    )

    assert isinstance(odd, DBAPIError)
    assert [[item.message_id for item in page.items] for page in pages if isinstance(page, LogPage)] == [
        [message_id]
    ] * 5
    assert feed._recovery is None


async def test_a_presence_that_was_taken_away_ends_its_stream(brisk: Stack) -> None:
    alice, phone = brisk.user(), uuid4()

    async with streaming(alice, phone) as events:
        async with brisk.sessions.begin() as db:
            await db.execute(text("DELETE FROM presences WHERE installation_id = :id"), {"id": phone})
        assert await events.to_its_end() == []


async def test_an_item_that_this_release_cannot_show_is_passed_over_and_ends_nobodys_stream(brisk: Stack) -> None:
    alice, bob = brisk.user(), brisk.user()
    room = await conversation_of(alice, bob)
    unknown = """
        WITH message AS (
            INSERT INTO messages (id, kind, conversation_id) VALUES (gen_random_uuid(), 'of tomorrow', :room)
            RETURNING id
        ), head AS (
            INSERT INTO log_heads (user_id, seq) VALUES (:user, 1)
        )
        INSERT INTO log_items (user_id, seq, message_id) SELECT :user, 1, id FROM message
    """
    async with brisk.sessions.begin() as db:
        await db.execute(text(unknown), {"room": room, "user": alice.user_id})

    async with streaming(bob, uuid4()) as others, streaming(alice, uuid4()) as hers:
        await posted(bob, room)
        assert [len(await each.take(1)) for each in (others, hers)] == [1, 1]


async def _is_larger(growing: set[int], *, than: int) -> bool:
    return len(growing) > than


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


async def listeners(stack: Stack) -> set[int]:
    """Ask who listens."""
    query = "SELECT pid FROM pg_stat_activity WHERE application_name = :name AND datname = current_database()"
    return {row.pid for row in await stack.rows(query, name=APPLICATION_NAME)}


async def _others(stack: Stack, pids: set[int]) -> set[int]:
    return await listeners(stack) - pids
