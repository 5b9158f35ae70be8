"""What one user may own and cause is bounded; a repeat is not one more, and nobody else pays."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from tests.stack import Phone, Stack, StackPlace, User, android, iphone, make_app, make_stack, uncommitted
from tests.talk import conversation_of, post


@pytest.fixture(scope="module")
async def strict(detached: StackPlace) -> AsyncIterator[Stack]:
    """An API whose users may have little."""
    narrow = {"MAX_INSTALLATIONS_PER_USER": "3", "MAX_ACTIVE_FASTS_PER_USER": "3", "MESSAGE_BURST": "3"}
    async with make_stack(detached, make_app(detached, **narrow, MESSAGE_RATE="2/minute")) as stack:
        yield stack


@pytest.fixture
def alice(strict: Stack) -> User:
    """A new user."""
    return strict.user()


@pytest.fixture
def bob(strict: Stack) -> User:
    """Another new user."""
    return strict.user()


async def test_an_installation_too_many_signs_out_the_one_unseen_longest(alice: User, strict: Stack) -> None:
    phones = [iphone(), android(), iphone()]
    await alice.register(*phones)
    await alice.register(phones[0])  # seen again

    await alice.register(latest := android())

    assert await active(alice) == {phones[0].installation_id, phones[2].installation_id, latest.installation_id}
    assert await events(strict, phones[1]) == [("registered", None), ("signed_out", "too_many_installations")]
    [shown] = [row for row in (await listed(alice)) if row["installation_id"] == str(phones[1].installation_id)]
    assert (shown["inactive_reason"], shown["refresh_required"]) == ("signed_out", False)
    told = (await strict.user(None, "support").call("GET", f"/v1/support/users/{alice.user_id}/timeline")).json()
    assert "registered more phones than are allowed" in str(told)


async def test_at_the_bound_a_repeat_and_another_token_of_the_same_installation_sign_nobody_out(alice: User) -> None:
    phones = [iphone(), android(), iphone()]
    await alice.register(*phones)

    await alice.register(*phones, Phone("apns", iphone().token, phones[2].installation_id))

    assert await active(alice) == {phone.installation_id for phone in phones}


async def test_of_installations_that_register_at_once_no_more_than_the_bound_stay(alice: User, bob: User) -> None:
    await bob.register(his := iphone())

    await asyncio.gather(*(alice.register(phone()) for phone in (iphone, android) * 4))

    assert len(await active(alice)) == 3
    assert await active(bob) == {his.installation_id}


async def test_twenty_of_each_are_the_default(detached: StackPlace) -> None:
    async with make_stack(detached, make_app(detached)) as stack:
        user, phones = stack.user(), [iphone() for _ in range(21)]
        room = await conversation_of(user)
        for phone in phones:
            await user.register(phone)
        started = [(await start(user, uuid4(), fast(1))).status_code for _ in range(21)]
        posted, began = list[int](), time.monotonic()
        for _ in range(4):  # eight at once, which one user may have running
            posted += [each.status_code for each in await asyncio.gather(*(post(user, room) for _ in range(8)))]
        took = time.monotonic() - began

        assert await active(user) == {phone.installation_id for phone in phones[1:]}
        assert started == [201] * 20 + [409]
        assert 20 <= posted.count(201) <= 20 + took + 1  # one more each second
        assert posted.count(201) + posted.count(429) == 32


async def test_a_fast_too_many_is_refused_until_one_ends_and_a_repeat_is_none(alice: User, bob: User) -> None:
    bodies = {uuid4(): fast(hours) for hours in range(1, 4)}
    for session_id, body in bodies.items():
        assert (await start(alice, session_id, body)).status_code == 201
    [first, *_] = bodies

    refused, repeated = await start(alice, fourth := uuid4(), fast(4)), await start(alice, first, bodies[first])
    of_somebody_else = await start(bob, uuid4(), fast(1))
    await alice.cancel(first)
    accepted = await start(alice, fourth, fast(4))

    assert (refused.status_code, refused.json()["type"]) == (409, "urn:fastbell:problem:too-many-active-fasts")
    assert refused.json()["detail"] == "A user may have 3 active fasts at a time. End or cancel one of them first."
    assert (repeated.status_code, of_somebody_else.status_code, accepted.status_code) == (200, 201, 201)


async def test_of_fasts_that_start_at_once_no_more_than_the_bound_do(alice: User, strict: Stack) -> None:
    answers = await asyncio.gather(*(start(alice, uuid4(), fast(1)) for _ in range(8)))

    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [409] * 5
    active_fasts = "SELECT 1 FROM fasting_sessions WHERE user_id = :user AND status = 'active'"
    assert len(await strict.rows(active_fasts, user=alice.user_id)) == 3


async def test_the_bound_holds_across_processes_and_the_last_fast_sent_twice_at_once_is_one(
    alice: User, detached: StackPlace
) -> None:
    for _ in range(2):
        await start(alice, uuid4(), fast(1))
    async with make_stack(detached, make_app(detached, MAX_ACTIVE_FASTS_PER_USER="3")) as other:
        callers = alice, other.user(alice.user_id)
        last, body = uuid4(), fast(1)
        answers = await asyncio.gather(*(start(caller, last, body) for caller in callers * 2))
        more = await asyncio.gather(*(start(caller, uuid4(), fast(1)) for caller in callers * 2))

    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 201]
    assert {answer.status_code for answer in more} == {409}


async def test_a_fast_that_nobody_ended_stops_counting_at_its_end_and_counts_again_when_its_goal_moves(
    alice: User, strict: Stack
) -> None:
    for _ in range(3):
        await start(alice, over := uuid4(), fast(1))
    past = "UPDATE fasting_sessions SET ends_at = now() - interval '1 s', started_at = now() - interval '1 h'"
    async with uncommitted(strict, f"{past} WHERE id = :id", id=over):
        pass

    started = await start(alice, uuid4(), fast(1))
    moved = await alice.call("PATCH", f"/v1/fasting-sessions/{over}", fast(2))

    assert started.status_code == 201
    assert (moved.status_code, moved.json()["type"]) == (409, "urn:fastbell:problem:too-many-active-fasts")


async def test_a_sender_may_post_a_burst_to_a_conversation_and_waits_for_each_one_more(alice: User, bob: User) -> None:
    room, other = await conversation_of(alice, bob), await conversation_of(alice, bob)
    ids = [uuid4() for _ in range(4)]
    began = time.monotonic()
    accepted = [await post(alice, room, message_id=each) for each in ids[:3]]

    refused = await post(alice, room, message_id=ids[3])
    took = time.monotonic() - began
    replayed = [await post(alice, room, message_id=each) for each in ids[:3] * 2]
    elsewhere, of_bob = await post(alice, other), await post(bob, room)

    assert [answer.status_code for answer in accepted] == [201] * 3
    assert (refused.status_code, refused.json()["type"]) == (429, "urn:fastbell:problem:too-many-messages")
    assert 29 - took <= int(refused.headers["retry-after"]) <= 30
    assert {answer.status_code for answer in replayed} == {200}
    assert (elsewhere.status_code, of_bob.status_code, of_bob.json()["number"]) == (201, 201, 4)


async def test_a_refused_message_counts_for_nothing_and_is_accepted_when_its_time_has_come(
    alice: User, strict: Stack
) -> None:
    room, late = await conversation_of(alice), uuid4()
    for _ in range(3):
        await post(alice, room)
    for _ in range(3):
        assert (await post(alice, room, message_id=late)).status_code == 429
    async with uncommitted(strict, "UPDATE message_allowances SET full_at = full_at - interval '30 seconds'"):
        pass

    assert [(await post(alice, room, message_id=late)).status_code, (await post(alice, room)).status_code] == [201, 429]


async def test_a_sender_s_burst_is_the_same_through_all_processes(alice: User, detached: StackPlace) -> None:
    room = await conversation_of(alice)
    async with make_stack(detached, make_app(detached, MESSAGE_BURST="3", MESSAGE_RATE="2/minute")) as other:
        callers = alice, other.user(alice.user_id)
        answers = await asyncio.gather(*(post(caller, room) for caller in callers * 4))

    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [429] * 5


async def active(user: User) -> set[UUID]:
    return {UUID(row["installation_id"]) for row in await listed(user) if row["active"]}


async def listed(user: User) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (await user.call("GET", "/v1/device-tokens?limit=200")).json()["items"]
    return rows


async def events(stack: Stack, phone: Phone) -> list[tuple[str, str | None]]:
    query = """
        SELECT event, reason FROM device_token_events e JOIN device_tokens d ON d.id = e.device_id
         WHERE d.installation_id = :id ORDER BY e.id
    """
    return [(row.event, row.reason) for row in await stack.rows(query, id=phone.installation_id)]


def fast(hours: int) -> dict[str, str]:
    return {"ends_at": (datetime.now(UTC) + timedelta(hours=hours)).isoformat()}


async def start(user: User, session_id: UUID, body: dict[str, str]) -> httpx.Response:
    return await user.call("PUT", f"/v1/fasting-sessions/{session_id}", body)
