"""Sync: a log read by cursor, position by installation, and what reading settles."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from db import conversations, log, messages
from tests.stack import Phone, Stack, User, android, eventually, iphone, uncommitted
from tests.talk import conversation_of, post, sync

WRITERS, READERS, MESSAGES, AT_ONCE = 8, 4, 10_000, 10


async def answer_to(user: User, query: str) -> tuple[int, Any]:
    answer = await user.call("GET", f"/v1/sync?{query}")
    return answer.status_code, answer.json()


async def test_a_log_is_read_page_by_page_to_its_end(alice: User, bob: User) -> None:
    conversation_id = await conversation_of(alice, bob)
    posted = [(await post(alice, conversation_id, f"number {n}")).json() for n in range(3)]
    phone = iphone()
    await bob.register(phone)

    first = await sync(bob, phone.installation_id, limit=2)
    rest = await sync(bob, phone.installation_id, after=first["next_cursor"], limit=2)
    nothing = await sync(bob, phone.installation_id, after=rest["next_cursor"])

    assert first["items"][0] == {
        "seq": 1,
        "kind": "message",
        "id": posted[0]["id"],
        "conversation_id": str(conversation_id),
        "created_at": posted[0]["created_at"],
        "url": f"fastbell://conversations/{conversation_id}",
        "number": 1,
        "sender_id": alice.user_id,
        "body": "number 0",
        "reminder_minutes": None,
    }
    assert [(page["next_cursor"], page["has_more"]) for page in (first, rest, nothing)] == [
        (2, True),
        (3, False),
        (3, False),
    ]
    assert [item["body"] for item in rest["items"]] == ["number 2"]
    assert nothing["items"] == []


async def test_each_installation_has_its_own_position_which_never_goes_back(alice: User, api: Stack) -> None:
    conversation_id = await conversation_of(alice)
    for _ in range(3):
        await post(alice, conversation_id)
    one, other = iphone(), android()
    await alice.register(one, other)

    for after in (2, 1):
        await sync(alice, one.installation_id, after=after)
    await sync(alice, other.installation_id, after=1)

    rows = await api.rows("SELECT installation_id, seq FROM sync_positions WHERE user_id = :user", user=alice.user_id)
    assert {row.installation_id: row.seq for row in rows} == {one.installation_id: 2, other.installation_id: 1}


async def test_cursors_and_limits_that_make_no_sense_are_refused_by_field(alice: User) -> None:
    phone = iphone()
    await alice.register(phone)
    here = f"installation_id={phone.installation_id}"

    queries = [f"{here}&{words}" for words in ("after=1", "after=-1", "limit=0", "limit=501", "after=x")]
    answers = [await answer_to(alice, query) for query in [*queries, "after=0"]]

    fields = ["after", "after", "limit", "limit", "after", "installation_id"]
    assert [(status, problem["field"]) for status, problem in answers] == [(422, field) for field in fields]


async def test_an_installation_must_be_the_callers_and_signed_in(alice: User, bob: User) -> None:
    phone, shared = iphone(), android()
    await bob.register(phone)
    await alice.register(shared)
    await alice.call("DELETE", f"/v1/device-tokens/{shared.installation_id}")

    foreign, _ = await answer_to(alice, f"installation_id={phone.installation_id}")
    inactive, problem = await answer_to(alice, f"installation_id={shared.installation_id}")
    unknown, _ = await answer_to(alice, f"installation_id={uuid4()}")

    assert (foreign, inactive, unknown) == (404, 409, 200)
    assert problem["type"] == "urn:fastbell:problem:installation-inactive"


async def test_a_phone_with_a_dead_token_where_somebody_else_signed_in_asks_for_no_new_one(
    alice: User, bob: User, api: Stack
) -> None:
    phone = iphone()
    await alice.register(phone)
    async with api.sessions.begin() as db:
        dead = "UPDATE device_tokens SET active = false, inactive_reason = 'invalidated' WHERE installation_id = :id"
        await db.execute(text(dead), {"id": phone.installation_id})
    await bob.register(Phone(phone.provider, iphone().token, phone.installation_id))

    status, problem = await answer_to(alice, f"installation_id={phone.installation_id}")
    [row] = (await alice.call("GET", "/v1/device-tokens")).json()["items"]

    assert (status, problem["type"]) == (409, "urn:fastbell:problem:installation-inactive")
    assert not row["refresh_required"]


async def test_a_dead_token_does_not_keep_its_phone_from_syncing_but_asks_for_a_new_one(
    alice: User, api: Stack
) -> None:
    phone = iphone()
    await alice.register(phone)
    async with api.sessions.begin() as db:
        dead = "UPDATE device_tokens SET active = false, inactive_reason = 'invalidated' WHERE installation_id = :id"
        await db.execute(text(dead), {"id": phone.installation_id})

    told = [(await sync(alice, phone.installation_id))["refresh_required"]]
    await alice.register(iphone_again := type(phone)(phone.provider, iphone().token, phone.installation_id))
    told.append((await sync(alice, iphone_again.installation_id))["refresh_required"])

    assert told == [True, False]


async def test_a_cursor_older_than_the_log_says_where_to_go_on(alice: User, api: Stack) -> None:
    conversation_id = await conversation_of(alice)
    for n in range(4):
        await post(alice, conversation_id, f"number {n}")
    async with api.sessions.begin() as db:
        await log.purge(db, alice.user_id, until=3)
    phone = uuid4()

    status, problem = await answer_to(alice, f"installation_id={phone}&after=2")
    at_the_edge = await sync(alice, phone, after=problem["next_cursor"])
    from_the_start = await sync(alice, phone)

    assert (status, problem["type"], problem["next_cursor"]) == (410, "urn:fastbell:problem:cursor-too-old", 3)
    assert [item["body"] for item in at_the_edge["items"]] == ["number 3"]
    assert from_the_start == at_the_edge
    kept = (await alice.call("GET", f"/v1/conversations/{conversation_id}/messages")).json()["items"]
    assert [each["body"] for each in kept] == ["number 3", "number 2", "number 1", "number 0"]


async def test_a_log_that_is_cut_while_it_is_read_has_no_hole(api: Stack) -> None:
    status = 503
    while status == 503:  # the row was held for longer than a request waits: the machine stood still
        alice, phone = api.user(), uuid4()
        conversation_id = await conversation_of(alice)
        for _ in range(4):
            await post(alice, conversation_id)
        await sync(alice, phone, after=1)

        held = "SELECT 1 FROM sync_positions WHERE installation_id = :id FOR UPDATE"
        async with uncommitted(api, held, id=phone):
            reading = asyncio.create_task(answer_to(alice, f"installation_id={phone}&after=2"))
            await eventually(api.someone_waits_for_a_lock)
            async with api.sessions.begin() as db:
                await log.purge(db, alice.user_id, until=3)
        status, page = await reading

    assert (status, [item["seq"] for item in page["items"]]) == (200, [3, 4])
    assert (await answer_to(alice, f"installation_id={phone}&after=2"))[0] == 410


@pytest.mark.long
async def test_readers_that_follow_a_log_miss_nothing_while_many_write(alice: User, bob: User, api: Stack) -> None:
    rooms = [await conversation_of(alice, bob) for _ in range(WRITERS)]

    async def write(room: UUID) -> None:
        for _ in range(MESSAGES // WRITERS // AT_ONCE):
            async with api.sessions.begin() as db:
                await conversations.lock(db, room)
                for _ in range(AT_ONCE):
                    await messages.post(db, room, uuid4(), alice.user_id, "Hello")

    async def follow(user: User) -> list[int]:
        seen: list[int] = []
        while len(seen) < MESSAGES:
            async with api.sessions() as db:
                page = await log.page_after(db, user.user_id, seen[-1] if seen else 0, messages.PageSize(500, 10**6))
                seen += [item.seq for item in page.items]
            await asyncio.sleep(0.02)
        return seen

    readers = [asyncio.create_task(follow(user)) for user in (alice, bob) * (READERS // 2)]
    await asyncio.gather(*(write(room) for room in rooms))

    for seen in await asyncio.gather(*readers):
        assert seen == list(range(1, MESSAGES + 1))


@pytest.mark.parametrize("state", ["pending", "accepted"])
async def test_what_a_cursor_has_passed_is_synced_and_its_waiting_pushes_withdrawn(
    alice: User, bob: User, api: Stack, state: str
) -> None:
    conversation_id = await conversation_of(alice, bob)
    read, unread = [UUID((await post(alice, conversation_id)).json()["id"]) for _ in range(2)]
    phone, other = iphone(), android()
    await bob.register(phone, other)
    for message_id in (read, unread):
        await _plan(api, message_id, conversation_id, state)

    await sync(bob, phone.installation_id, after=1)

    rows = await api.rows(
        "SELECT installation_id, message_id, state, last_reason, synced_at IS NOT NULL AS synced FROM push_tasks"
        " WHERE conversation_id = :id",
        id=conversation_id,
    )
    settled = {(row.installation_id, row.message_id): (row.state, row.last_reason, row.synced) for row in rows}
    expected = ("withdrawn", "synced", True) if state == "pending" else ("accepted", None, True)
    assert settled.pop((phone.installation_id, read)) == expected
    assert set(settled.values()) == {(state, None, False)}


async def _plan(api: Stack, message_id: UUID, conversation_id: UUID, state: str) -> None:
    query = """
        INSERT INTO push_tasks (task_id, kind, user_id, installation_id, device_id, provider, environment, message_id,
                                conversation_id, collapse_key, due_at, expires_at, attempt_count, state, accepted_at)
        SELECT gen_random_uuid(), 'message', user_id, installation_id, id, provider, environment, :message,
               :conversation, 'conversation', now(), now() + interval '1 hour', 0, :state,
               CASE :state WHEN 'accepted' THEN now() END
          FROM device_tokens WHERE active AND user_id IN (SELECT user_id FROM log_items WHERE message_id = :message)
    """
    async with api.sessions.begin() as db:
        await db.execute(text(query), {"message": message_id, "conversation": conversation_id, "state": state})
