"""A test push goes the way of every push, is told as it happens, and leaves no trace in the person's log."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from api.dependencies import MAX_WATCHERS
from db import api_keys, device_tokens, support_actions
from db.device_tokens import Registration
from db.support_actions import Actor
from domain.housekeeping import owning_workflow_ids
from domain.kinds import Kind
from domain.problems import LimitReached
from domain.push import Environment, Provider
from operations import diagnostic_push as test_pushes
from operations.diagnostic_push import MAX_PER_MINUTE, TestPushRequest
from simulator import Simulator
from tests.busy import soon
from tests.stack import Stack, User, android, eventually, iphone, refuse_once
from tests.support.timelines import events_of, of, says, timeline
from tests.talk import sync

FATES = "/v1/support/test-pushes"


async def send(carol: User, user_id: str, body: Mapping[str, object] | None = None) -> httpx.Response:
    """Send a test push."""
    return await carol.call("POST", of(user_id, "test-push"), body or {})


async def sent(carol: User, user_id: str, **body: object) -> dict[str, Any]:
    """Send one that is taken."""
    answer = await send(carol, user_id, body)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def settled(carol: User, test_push: Mapping[str, Any]) -> dict[str, Any]:
    """Wait until nothing more will come of it."""

    async def fate() -> dict[str, Any] | None:
        found: dict[str, Any] = (await carol.call("GET", f"{FATES}/{test_push['test_push_id']}")).json()
        return found if found["is_settled"] else None

    found: dict[str, Any] = await eventually(fate)
    return found


async def test_it_reaches_all_phones_by_the_way_of_every_push(
    stack: Stack, simulator: Simulator, alice: User, carol: User
) -> None:
    phones = iphone(), android()
    await alice.register(*phones, locale="de")

    planned = await sent(carol, alice.user_id)
    came_to = await settled(carol, planned)

    assert {item["state"] for item in planned["items"]} == {"pending"}
    assert [(item["provider"], item["state"], item["text"]) for item in came_to["items"]] == [
        ("apns", "accepted", "Accepted by the provider."),
        ("fcm", "accepted", "Accepted by the provider."),
    ]
    assert (came_to["user_id"], came_to["sent_by"], came_to["skipped"]) == (alice.user_id, carol.user_id, [])
    for phone in phones:
        [line] = simulator.phone(phone.token).screen
        assert (line.title, line.times_received) == ("Testnachricht", 1)
        assert (line.data["kind"], line.data["url"]) == ("test", "fastbell://test-push")
    handle = stack.temporal.get_workflow_handle(f"test-push/{planned['test_push_id']}")
    assert await handle.result() == {"accepted": 2}
    assert (await sync(alice, phones[0].installation_id))["items"] == []
    assert not await stack.rows("SELECT 1 FROM messages WHERE id = :id", id=UUID(planned["test_push_id"]))


async def test_it_reaches_one_phone_and_it_is_noted_who_sent_it(
    stack: Stack, simulator: Simulator, alice: User, carol: User
) -> None:
    phone, other = iphone(), android()
    await alice.register(phone, other)

    planned = await sent(carol, alice.user_id, installation_id=str(phone.installation_id))
    await settled(carol, planned)

    assert simulator.phones.get(other.token) is None
    async with stack.sessions() as db:
        [action] = await support_actions.about(db, UUID(planned["test_push_id"]))
    assert (action.actor, action.action) == (carol.user_id, "test_push")
    assert action.detail == {
        "user_id": alice.user_id,
        "installations": [str(phone.installation_id)],
        "skipped": [],
        "validate_only": False,
    }
    items = await timeline(carol, alice.user_id, message_id=planned["test_push_id"])
    assert [item["event"] for item in items] == ["test_push", "planned", "attempted", "answered", "accepted"]
    assert says(items[0]["text"], carol.user_id, "test push", "1 phone.")
    assert phone.token not in str(items)


async def test_a_service_sends_one_to_a_user_and_reads_what_became_of_it(
    stack: Stack, simulator: Simulator, alice: User, bob: User
) -> None:
    phone = iphone()
    await alice.register(phone)
    async with stack.sessions.begin() as db:
        key = await api_keys.create(db, "shop", ["service"], lasts=None, actor=Actor("test"))
    shop = User(stack, "shop", {"Authorization": f"Bearer {key}"})

    told = await settled(shop, await sent(shop, alice.user_id))

    assert (told["user_id"], told["sent_by"], [each["state"] for each in told["items"]]) == (
        alice.user_id,
        "shop",
        ["accepted"],
    )
    assert len(simulator.phone(phone.token).screen) == 1
    assert (await shop.call("GET", of(alice.user_id, "timeline"))).status_code == 403
    refused = await send(bob, alice.user_id)
    assert (refused.status_code, refused.json()["type"]) == (403, "urn:fastbell:problem:not-allowed")


async def test_its_fate_is_reported_as_it_happens(stack: Stack, simulator: Simulator, alice: User, carol: User) -> None:
    phone = iphone()
    await alice.register(phone)
    refuse_once(simulator, phone)
    planned = await sent(carol, alice.user_id)

    headers = carol.headers | {"Accept": "text/event-stream"}
    path, told_of = f"{FATES}/{planned['test_push_id']}", list[dict[str, Any]]()
    async with soon(20), stack.http.stream("GET", path, headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                told_of.append(json.loads(line.removeprefix("data: ")))

    texts = [each["items"][0]["text"] for each in told_of]
    assert texts[-1] == "Accepted by the provider."
    assert "On its way: Apple answered that it is unavailable." in texts
    assert [each["is_settled"] for each in told_of] == [False] * (len(told_of) - 1) + [True]


async def test_so_many_watch_at_once_and_whoever_leaves_makes_room(stack: Stack, alice: User, carol: User) -> None:
    await alice.register(android())
    async with stack.sessions.begin() as db:
        waits = await test_pushes.send(db, TestPushRequest(alice.user_id), Actor(carol.user_id))
        later = "UPDATE outbox SET next_attempt_at = now() + interval '1 minute' WHERE subject_id = :id"
        await db.execute(text(later), {"id": waits.test_push_id})
    path, headers = f"{FATES}/{waits.test_push_id}", carol.headers | {"Accept": "text/event-stream"}

    async with AsyncExitStack() as watchers:
        watched = [
            (await watchers.enter_async_context(stack.http.stream("GET", path, headers=headers))).aiter_lines()
            for _ in range(MAX_WATCHERS)
        ]
        assert {await anext(lines) for lines in watched} == {"event: test_push"}
        refused = await stack.http.get(path, headers=headers)
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:fastbell:problem:unavailable")
        assert (await carol.call("GET", path)).json()["is_settled"] is False

    async def watches() -> bool:
        async with stack.http.stream("GET", path, headers=headers) as watching:
            return watching.status_code == 200

    await eventually(watches)


async def test_a_dry_run_asks_google_and_tells_no_phone(
    stack: Stack, simulator: Simulator, alice: User, carol: User
) -> None:
    phone, apple = android(), iphone()
    await alice.register(phone, apple)

    came_to = await settled(carol, await sent(carol, alice.user_id, validate_only=True))
    refused = await send(carol, alice.user_id, {"validate_only": True, "installation_id": str(apple.installation_id)})

    [item] = came_to["items"]
    assert (item["state"], item["reason"]) == ("accepted", "validated")
    assert came_to["skipped"] == [str(apple.installation_id)]
    assert says(item["text"], "Accepted", "Google checked the push")
    assert len(simulator.requests.for_token(phone.token)) == 1
    assert simulator.phones.get(phone.token) is None
    assert (refused.status_code, refused.json()["field"]) == (422, "validate_only")
    assert ("accepted", "validated") in await events_of(carol, alice.user_id)
    assert not await stack.rows("SELECT 1 FROM push_tasks WHERE installation_id = :id", id=apple.installation_id)


async def test_a_phone_that_changes_hands_before_the_send_is_not_told(
    stack: Stack, simulator: Simulator, alice: User, bob: User, carol: User
) -> None:
    phone = iphone()
    await alice.register(phone)

    async with stack.sessions.begin() as db:  # planned and transferred before any worker can see it
        planned = await test_pushes.send(db, TestPushRequest(alice.user_id), Actor(carol.user_id))
        await device_tokens.register(
            db, bob.user_id, phone.installation_id, Registration(Provider.APNS, phone.token, Environment.PRODUCTION)
        )
    came_to = await settled(carol, {"test_push_id": str(planned.test_push_id)})

    [item] = came_to["items"]
    assert (item["state"], item["reason"]) == ("withdrawn", "token_transferred")
    assert item["text"] == "Not sent: another account has signed in on the phone."
    assert simulator.requests.for_token(phone.token) == []


async def test_who_cannot_be_pushed_to_is_told_why(alice: User, bob: User, carol: User) -> None:
    phone, others = iphone(), android()
    await alice.register(phone)
    await bob.register(others)
    await alice.call("DELETE", f"/v1/device-tokens/{phone.installation_id}")

    nobody, signed_out, foreign, unknown = [
        await send(carol, alice.user_id, body)
        for body in (
            {},
            {"installation_id": str(phone.installation_id)},
            {"installation_id": str(others.installation_id)},
            {"installation_id": str(uuid4())},
        )
    ]

    told_why = [(each.status_code, each.json()["type"], each.json().get("reason")) for each in (nobody, signed_out)]
    problem = "urn:fastbell:problem:no-active-token"
    assert told_why == [(409, problem, "no_active_token"), (409, problem, "inactive")]
    assert (foreign.status_code, unknown.status_code) == (404, 404)
    assert (await carol.call("GET", f"{FATES}/{uuid4()}")).status_code == 404
    assert (await carol.call("GET", f"{FATES}/nonsense")).status_code == 422


@pytest.mark.parametrize("body", [{"validate_only": "yes"}, {"installation_id": "one"}, {"to": "all"}])
async def test_a_body_that_makes_no_sense_is_refused(alice: User, carol: User, body: dict[str, str]) -> None:
    assert (await send(carol, alice.user_id, body)).status_code == 422


async def test_a_person_is_tested_a_few_times_a_minute_at_most(
    stack: Stack, alice: User, bob: User, carol: User
) -> None:
    await alice.register(iphone())
    await bob.register(iphone())

    answers = await asyncio.gather(*(send(carol, alice.user_id) for _ in range(MAX_PER_MINUTE + 3)))
    other = await send(carol, bob.user_id)

    taken = [answer for answer in answers if answer.status_code == 202]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert (len(taken), len(refused), other.status_code) == (MAX_PER_MINUTE, 3, 202)
    assert refused[0].json()["type"] == "urn:fastbell:problem:too-many-requests"
    assert all(50 <= int(answer.headers["retry-after"]) <= 60 for answer in refused)
    minute = "UPDATE push_tasks SET created_at = created_at - interval '1 minute' WHERE user_id = :id"
    async with stack.sessions.begin() as db:
        await db.execute(text(minute), {"id": alice.user_id})
        await test_pushes.send(db, TestPushRequest(alice.user_id), Actor(carol.user_id))
    async with stack.sessions() as db:
        for _ in range(MAX_PER_MINUTE - 1):
            await test_pushes.send(db, TestPushRequest(alice.user_id), Actor(carol.user_id))
        with pytest.raises(LimitReached):
            await test_pushes.send(db, TestPushRequest(alice.user_id), Actor(carol.user_id))


def test_the_sweep_knows_who_sends_it() -> None:
    task_id, test_push_id = uuid4(), uuid4()

    owners = owning_workflow_ids(Kind.TEST, task_id, test_push_id, test_push_id)

    assert owners == (f"test-push/{test_push_id}", f"redrive/{task_id}")
