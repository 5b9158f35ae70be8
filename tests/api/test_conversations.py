"""Conversations and messages: accepted once, in order, by members only."""

import asyncio
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from tests.stack import Stack, User, iphone
from tests.talk import conversation_of, post, store, sync


async def test_a_message_is_answered_whole_and_its_repeat_with_200(alice: User, bob: User) -> None:
    conversation_id, message_id = await conversation_of(alice, bob), uuid4()

    first = await post(alice, conversation_id, "Grüße 🍎", message_id)
    again = await post(alice, conversation_id, "Grüße 🍎", message_id)

    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert first.json() == {
        "id": str(message_id),
        "conversation_id": str(conversation_id),
        "number": 1,
        "sender_id": alice.user_id,
        "body": "Grüße 🍎",
        "created_at": first.json()["created_at"],
    }


async def test_a_log_that_is_full_keeps_a_message_from_its_owner_alone(api: Stack, alice: User, bob: User) -> None:
    conversation_id = await conversation_of(alice, bob)
    await post(alice, conversation_id, "Hello")
    async with api.sessions.begin() as db:
        full = "UPDATE log_heads SET seq = 9223372036854775807 WHERE user_id = :user_id"
        await db.execute(text(full), {"user_id": bob.user_id})

    answer = await post(alice, conversation_id, "Still there?")

    assert answer.status_code == 201
    await alice.register(phone := iphone())
    items = (await sync(alice, phone.installation_id))["items"]
    assert [item["body"] for item in items] == ["Hello", "Still there?"]


async def test_a_message_id_is_good_for_one_message(alice: User, bob: User) -> None:
    conversation_id, message_id = await conversation_of(alice, bob), uuid4()
    elsewhere = await conversation_of(alice)
    await post(alice, conversation_id, "Hello", message_id)

    answers = [
        await post(alice, conversation_id, "Other words", message_id),
        await post(bob, conversation_id, "Hello", message_id),
        await post(alice, elsewhere, "Hello", message_id),
    ]

    assert [answer.status_code for answer in answers] == [409, 409, 404]
    assert answers[0].json()["type"] == "urn:fastbell:problem:message-exists"


async def test_only_members_read_and_post(alice: User, bob: User, api: Stack) -> None:
    conversation_id = await conversation_of(alice)

    path = f"/v1/conversations/{conversation_id}"
    answers = [
        await post(bob, conversation_id),
        await bob.call("GET", path),
        await bob.call("GET", f"{path}/messages"),
        await bob.call("PUT", path, {"member_ids": [bob.user_id]}),
        await api.user("backend", "service").call("GET", path),
    ]

    assert [answer.status_code for answer in answers] == [404, 404, 404, 403, 200]


async def test_members_come_and_go(alice: User, bob: User, api: Stack) -> None:
    conversation_id = await conversation_of(alice, bob)
    await post(alice, conversation_id, "before")

    carol = api.user()
    answer = await store(api, conversation_id, alice, carol)
    await post(alice, conversation_id, "after")

    assert (answer.status_code, answer.json()["member_ids"]) == (200, sorted([alice.user_id, carol.user_id]))
    phone = uuid4()
    assert [item["body"] for item in (await sync(bob, phone))["items"]] == ["before"]
    assert [item["body"] for item in (await sync(carol, phone))["items"]] == ["after"]
    [listed] = (await carol.call("GET", "/v1/conversations")).json()["items"]
    assert listed["id"] == str(conversation_id)
    messages = (await carol.call("GET", f"/v1/conversations/{conversation_id}/messages")).json()["items"]
    assert [(each["number"], each["body"]) for each in messages] == [(2, "after"), (1, "before")]


async def test_messages_are_listed_in_pages_the_latest_first(alice: User) -> None:
    conversation_id = await conversation_of(alice)
    for n in range(5):
        await post(alice, conversation_id, f"number {n}")

    path, seen = f"/v1/conversations/{conversation_id}/messages?limit=2", []
    cursor: str | None = ""
    while cursor is not None:
        page = (await alice.call("GET", path + (f"&cursor={cursor}" if cursor else ""))).json()
        seen += [each["number"] for each in page["items"]]
        cursor = page["next_cursor"]

    assert seen == [5, 4, 3, 2, 1]


@pytest.mark.parametrize("cursor", ["0", "-1", "x", str(2**63)])
async def test_a_page_of_messages_that_cannot_be_is_refused_by_field(alice: User, cursor: str) -> None:
    conversation_id = await conversation_of(alice)

    answer = await alice.call("GET", f"/v1/conversations/{conversation_id}/messages?cursor={cursor}")

    assert (answer.status_code, answer.json()["field"]) == (422, "cursor")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"body": ""}, "body"),
        ({"body": "a" * (16 * 1024 + 1)}, "body"),
        ({"body": "é" * (8 * 1024 + 1)}, "body"),
        ({"body": "nul \0"}, "body"),
        ({"text": "Hello"}, "body"),
        ({"body": "Hello", "to": "bob"}, "to"),
    ],
    ids=["empty", "long", "long-in-bytes", "nul", "missing", "unknown"],
)
async def test_a_message_that_cannot_be_kept_is_refused_by_field(alice: User, body: object, field: str) -> None:
    conversation_id = await conversation_of(alice)

    answer = await alice.call("PUT", f"/v1/conversations/{conversation_id}/messages/{uuid4()}", body)

    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert (await sync(alice, uuid4()))["items"] == []


async def test_half_a_surrogate_pair_is_no_text(alice: User) -> None:
    conversation_id = await conversation_of(alice)
    path = f"/v1/conversations/{conversation_id}/messages/{uuid4()}"

    answer = await alice.stack.http.put(path, content=rb'{"body": "\ud800"}', headers=alice.headers)

    assert (answer.status_code, answer.json()["field"]) == (422, "body")


async def test_the_longest_body_is_kept_whole(alice: User) -> None:
    conversation_id, longest = await conversation_of(alice), "é" * (8 * 1024)

    await post(alice, conversation_id, longest)

    assert [item["body"] for item in (await sync(alice, uuid4()))["items"]] == [longest]


@pytest.mark.parametrize("members", [[], ["a", "a"], [""], ["x" * 201], [f"user-{n}" for n in range(1001)]], ids=str)
async def test_member_lists_that_make_no_sense_are_refused(api: Stack, members: list[str]) -> None:
    answer = await api.user("backend", "service").call("PUT", f"/v1/conversations/{uuid4()}", {"member_ids": members})

    assert answer.status_code == 422
    assert answer.json()["field"].startswith("member_ids")


async def test_those_who_post_at_once_all_get_the_same_order(alice: User, bob: User, api: Stack) -> None:
    conversation_id = await conversation_of(alice, bob)
    other_way_round = uuid4()
    await store(api, other_way_round, bob, alice)

    async def post_all(user: User, where: UUID) -> list[int]:
        answers = [await asyncio.gather(*(post(user, where) for _ in range(3))) for _ in range(5)]
        return [answer.status_code for each in answers for answer in each]

    answers = await asyncio.gather(  # each user within what one may have running
        *(post_all(user, where) for user in (alice, bob) for where in (conversation_id, other_way_round))
    )

    assert answers == [[201] * 15] * 4
    logs = [(await sync(user, uuid4()))["items"] for user in (alice, bob)]
    assert [[item["seq"] for item in log] for log in logs] == [list(range(1, 61))] * 2
    for where in (conversation_id, other_way_round):
        orders = [[item["number"] for item in log if item["conversation_id"] == str(where)] for log in logs]
        assert orders == [list(range(1, 31))] * 2
