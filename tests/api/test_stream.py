"""The stream: realtime delivery by cursor, resumed without loss."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from db import log
from tests.busy import soon
from tests.stack import Stack, User, android, bearer, iphone
from tests.streaming import is_present, streaming
from tests.talk import conversation_of, post, sync


async def refused(user: User, query: str, **headers: str) -> tuple[int, Any]:
    answer = await user.stack.http.get(f"/v1/stream?{query}", headers=user.headers | headers)
    return answer.status_code, answer.json()


async def test_an_item_that_is_posted_arrives_as_sync_shows_it(alice: User, bob: User) -> None:
    conversation_id = await conversation_of(alice, bob)
    await post(alice, conversation_id, "before")
    phone = iphone()
    await bob.register(phone)

    async with streaming(bob, phone.installation_id) as events:
        items = await events.take(1)
        await post(alice, conversation_id, "Grüße\n🍎")
        items += await events.take(1)

    assert items == (await sync(bob, phone.installation_id))["items"]
    assert [item["body"] for item in items] == ["before", "Grüße\n🍎"]
    assert events.headers["content-type"].startswith("text/event-stream")
    assert (events.headers["cache-control"], events.headers["x-accel-buffering"]) == ("no-cache", "no")


async def test_the_first_bytes_come_at_once(alice: User) -> None:
    async with soon(2), streaming(alice, uuid4()) as events:
        await events.comment()


async def test_a_stream_is_resumed_without_loss_or_repetition_while_others_write(alice: User, bob: User) -> None:
    rooms, phone, seen = [await conversation_of(alice, bob) for _ in range(4)], uuid4(), [0]

    async def write(room: Any) -> None:
        for n in range(40):
            assert (await post(alice, room, f"number {n}")).status_code == 201

    writers = [asyncio.create_task(write(room)) for room in rooms]
    while seen[-1] < 160:
        async with streaming(bob, phone, last_event_id=seen[-1], after=0) as events:
            seen += [item["seq"] for item in await events.take(min(7, 160 - seen[-1]))]
    await asyncio.gather(*writers)

    assert seen == list(range(161))


async def test_what_a_stream_starts_after_is_acknowledged(alice: User, api: Stack) -> None:
    conversation_id, phone = await conversation_of(alice), uuid4()
    for _ in range(3):
        await post(alice, conversation_id)

    async with streaming(alice, phone, last_event_id=2, after=1) as events:
        assert [item["seq"] for item in await events.take(1)] == [3]
    rows = await api.rows("SELECT seq FROM sync_positions WHERE installation_id = :id", id=phone)

    assert [row.seq for row in rows] == [2]


async def test_cursors_that_make_no_sense_are_refused_by_field(alice: User) -> None:
    here = f"installation_id={uuid4()}"

    answers = [
        await refused(alice, f"{here}&after=1"),
        await refused(alice, f"{here}&after=-1"),
        await refused(alice, here, **{"Last-Event-ID": "1"}),
        await refused(alice, here, **{"Last-Event-ID": "abc"}),
        await refused(alice, f"{here}&after=x", **{"Last-Event-ID": "0"}),
        await refused(alice, "after=0"),
    ]

    fields = ["after", "after", "Last-Event-ID", "Last-Event-ID", "after", "installation_id"]
    assert [(status, problem["field"]) for status, problem in answers] == [(422, field) for field in fields]


async def test_a_cursor_older_than_the_log_says_where_to_go_on(alice: User, api: Stack) -> None:
    conversation_id, phone = await conversation_of(alice), uuid4()
    for _ in range(4):
        await post(alice, conversation_id)
    async with api.sessions.begin() as db:
        await log.purge(db, alice.user_id, until=3)

    status, problem = await refused(alice, f"installation_id={phone}&after=2")
    async with streaming(alice, phone) as events:
        from_the_start = await events.take(1)

    assert (status, problem["type"], problem["next_cursor"]) == (410, "urn:fastbell:problem:cursor-too-old", 3)
    assert [item["seq"] for item in from_the_start] == [4]


async def test_an_installation_must_be_the_callers_and_signed_in(alice: User, bob: User) -> None:
    phone, left = iphone(), android()
    await bob.register(phone)
    await alice.register(left)
    await alice.call("DELETE", f"/v1/device-tokens/{left.installation_id}")

    foreign, _ = await refused(alice, f"installation_id={phone.installation_id}")
    inactive, problem = await refused(alice, f"installation_id={left.installation_id}")

    assert (foreign, inactive) == (404, 409)
    assert problem["type"] == "urn:fastbell:problem:installation-inactive"


async def test_a_stream_ends_with_its_bearer_token(alice: User, api: Stack) -> None:
    nearly = {"Authorization": f"Bearer {bearer(alice.user_id, expires_in=timedelta(seconds=-5))}"}  # leeway: 10 s

    async with streaming(User(api, alice.user_id, nearly), uuid4()) as events:
        assert await events.to_its_end() == []


async def test_an_installation_has_one_stream_the_newest(alice: User, api: Stack) -> None:
    conversation_id, phone, other = await conversation_of(alice), uuid4(), uuid4()

    async with (
        streaming(alice, phone) as first,
        streaming(alice, other) as elsewhere,
        streaming(alice, phone) as second,
    ):
        assert await first.to_its_end() == []
        await post(alice, conversation_id)
        assert len(await second.take(1)) == len(await elsewhere.take(1)) == 1
        assert len(await api.rows("SELECT 1 FROM presences WHERE installation_id = :id", id=phone)) == 1


async def test_a_log_that_retention_has_overtaken_ends_the_stream(alice: User, api: Stack) -> None:
    conversation_id, phone = await conversation_of(alice), uuid4()
    await post(alice, conversation_id)

    async with streaming(alice, phone) as events:
        await events.take(1)
        async with api.sessions.begin() as db:  # as if four items had been let go before the stream could read them
            gone = text("UPDATE log_heads SET seq = 5, horizon = 5 WHERE user_id = :id")
            await db.execute(gone, {"id": alice.user_id})
        await post(alice, conversation_id)
        assert await events.to_its_end() == []

    status, _ = await refused(alice, f"installation_id={phone}", **{"Last-Event-ID": "1"})
    assert status == 410


async def test_presence_begins_with_a_stream_and_ends_with_it(alice: User, api: Stack) -> None:
    phone = uuid4()

    async with streaming(alice, phone) as events:
        await events.comment()
        during = await is_present(api, phone)
    async with soon(3):
        while await is_present(api, phone):
            await asyncio.sleep(0.02)

    assert during


@pytest.mark.parametrize("query", ["", "&after=0"])
async def test_a_caller_without_a_token_gets_no_stream(api: Stack, query: str) -> None:
    answer = await api.http.get(f"/v1/stream?installation_id={uuid4()}{query}")

    assert answer.status_code == 401
