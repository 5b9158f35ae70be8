"""A service acts for users below /v1/users/{user_id}/, by the handlers that users have, and never as itself."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx
import pytest

from tests.busy import soon
from tests.stack import Stack, User, iphone, make_app, uncommitted
from tests.talk import conversation_of, posted

NO_ROUTE_OF_USERS = re.compile(
    r"/v1/(users|support|sign-outs|events|webhooks|erasures)\b|/v1/conversations/\{conversation_id\}$|.*/batch$"
)


@pytest.fixture
def backend(api: Stack) -> User:
    """A backend."""
    return api.user("backend", "service")


def below(user_id: str, path: str) -> str:
    """Give the path of a user's route for a service."""
    return f"/v1/users/{quote(user_id, safe='')}/{path}"


def in_an_hour() -> dict[str, Any]:
    """Give what starts a fast of an hour."""
    return {"ends_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat(), "reminder_minutes": [30]}


async def test_every_route_of_users_refuses_a_service_and_names_the_one_for_it(api: Stack, backend: User) -> None:
    paths = make_app(api.place).openapi()["paths"]
    bare = [(path, way) for path in paths for way in paths[path] if is_of_users(path)]
    assert len(bare) >= 18

    for path, way in bare:
        answer = await backend.call(way.upper(), re.sub(r"\{\w+\}", str(uuid4()), path))
        there = path.replace("/v1/", "/v1/users/{user_id}/").replace("/stream", "/sync")

        problem = answer.json()
        assert (answer.status_code, problem["type"]) == (403, "urn:fastbell:problem:act-for-a-user"), (path, way)
        assert problem["detail"] == f"A bearer token with the scope service acts for users: use {there}."
        assert way in paths[there]
        assert paths[there][way]["operationId"].endswith("_for_user")
        assert paths[path][way]["responses"].keys() >= {"401", "403"}


def is_of_users(path: str) -> bool:
    """Tell whether people call this route for themselves."""
    return path.startswith("/v1/") and not NO_ROUTE_OF_USERS.match(path)


async def test_what_a_service_does_for_a_user_is_the_users(api: Stack, backend: User) -> None:
    erin, phone, session_id = api.user(f"auth0|Zoë/日本 100%?#-{uuid4()}"), iphone(), uuid4()
    device = {"provider": phone.provider, "token": phone.token}
    fast = below(erin.user_id, f"fasting-sessions/{session_id}")

    registered = await backend.call("PUT", below(erin.user_id, f"device-tokens/{phone.installation_id}"), device)
    started = [(await backend.call("PUT", fast, body)).status_code for body in (in_an_hour(), {})]
    conversation_id = await conversation_of(erin, api.user())
    there = below(erin.user_id, f"conversations/{conversation_id}/messages")
    said = await backend.call("PUT", f"{there}/{uuid4()}", {"body": "Hello"})
    link = await backend.call("POST", below(erin.user_id, "preference-links"))
    changed = await backend.call("PATCH", below(erin.user_id, "notification-preferences"), {"messages": False})
    ended = await backend.call("POST", f"{fast}/cancel")

    assert [registered.status_code, *started, said.status_code, link.status_code] == [200, 201, 422, 201, 201]
    assert (changed.json()["messages"], ended.json()["status"]) == (False, "cancelled")
    assert said.json()["sender_id"] == erin.user_id
    for path in (
        "device-tokens",
        "fasting-sessions",
        f"fasting-sessions/{session_id}",
        "conversations",
        f"conversations/{conversation_id}/messages",
        "notification-preferences",
        f"sync?installation_id={phone.installation_id}",
    ):
        own, by_service = await erin.call("GET", f"/v1/{path}"), await backend.call("GET", below(erin.user_id, path))
        assert (own.status_code, own.json()) == (by_service.status_code, by_service.json()), path
        assert own.status_code == 200
        assert own.json() != {"items": [], "next_cursor": None}
    left = await backend.call("DELETE", below(erin.user_id, f"device-tokens/{phone.installation_id}"))
    assert left.status_code == 204
    assert not (await erin.call("GET", "/v1/device-tokens")).json()["items"][0]["active"]


async def test_for_one_user_a_service_reaches_nothing_of_another(api: Stack, backend: User) -> None:
    alice, bob = api.user(), api.user()
    session_id = await alice.start_fast(due_in=3600)
    conversation_id = await conversation_of(alice)
    await posted(alice, conversation_id)
    their_messages = below(bob.user_id, f"conversations/{conversation_id}/messages")

    answers = [
        await backend.call("GET", below(bob.user_id, f"fasting-sessions/{session_id}")),
        await backend.call("POST", below(bob.user_id, f"fasting-sessions/{session_id}/end")),
        await backend.call("PUT", below(bob.user_id, f"fasting-sessions/{session_id}"), in_an_hour()),
        await backend.call("GET", their_messages),
        await backend.call("PUT", f"{their_messages}/{uuid4()}", {"body": "x"}),
    ]

    assert [answer.status_code for answer in answers] == [404] * 5


@pytest.mark.parametrize(
    "user_id",
    [
        "a/b",
        "/",
        "..",
        "a%2Fb",
        "%",
        "+ ",
        "notification-preferences",
        "alice/fasting-sessions/5f0c3c0e-6d5b-4c6c-9d59-3f0f0a4f7a01/end",
        ("auth0|Zoë-日本/%" * 20)[:200],
        "\N{PILE OF POO}" * 200,
    ],
)
async def test_a_user_id_is_one_segment_of_the_path_whatever_it_contains(
    api: Stack, backend: User, user_id: str
) -> None:
    named = f"{user_id[: 200 - 9]}{uuid4().hex[:9]}"

    changed = await backend.call("PATCH", below(named, "notification-preferences"), {"reminder_minutes": [7]})
    listed = await backend.call("GET", below(named, "fasting-sessions"))

    assert (changed.status_code, listed.status_code) == (200, 200)
    rows = await api.rows("SELECT reminder_minutes FROM preferences WHERE user_id = :user_id", user_id=named)
    assert rows == [([7],)]


@pytest.mark.parametrize(
    ("path", "status", "field"),
    [
        ("/v1/users/a/b/notification-preferences", 404, None),
        ("/v1/users/notification-preferences", 405, None),
        ("/v1/users//notification-preferences", 404, None),
        ("/v1/users%2Fa/notification-preferences", 404, None),
        ("/v1%2Fusers/a/notification-preferences", 404, None),
        ("/v1/users/a%2Fnotification-preferences", 405, None),
        ("/v1/users/a/fasting-sessions/batch", 422, "session_id"),
        ("/v1/users/a/stream", 404, None),
        ("/v1/users/%00/notification-preferences", 422, "user_id"),
        ("/v1/users/a%0a/notification-preferences", 422, "user_id"),
        ("/v1/users/%ff/notification-preferences", 422, "user_id"),
        ("/v1/users/%ed%a0%80/notification-preferences", 422, "user_id"),
        (f"/v1/users/{'a' * 201}/notification-preferences", 422, "user_id"),
        (f"/v1/users/{'a' * 8000}/notification-preferences", 422, "user_id"),
    ],
)
async def test_a_path_that_names_no_user_reaches_nobody(
    backend: User, path: str, status: int, field: str | None
) -> None:
    answer = await backend.call("GET", path)

    assert (answer.status_code, answer.json().get("field")) == (status, field)


async def test_only_a_service_acts_for_users(api: Stack, alice: User) -> None:
    own = below(alice.user_id, "device-tokens")
    callers = {"alice": alice, "support": api.user(None, "support"), "odd": api.user(None, "Service", "services")}

    answers = {name: await caller.call("GET", own) for name, caller in callers.items()}

    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(callers, 403)
    assert answers["alice"].json()["detail"] == "This needs a bearer token with the scope service."
    assert (await api.http.get(own)).status_code == 401
    assert (await api.user(alice.user_id, "service").call("GET", own)).status_code == 200  # a name is nobody's


HELD = "SELECT 1 FROM fasting_sessions WHERE id = ANY(:ids) FOR UPDATE"


async def test_a_user_whose_requests_wait_holds_up_no_other_of_the_service(api: Stack, backend: User) -> None:
    alice, bob = api.user(), api.user()
    fasts = [await alice.start_fast(due_in=3600) for _ in range(8)]

    async def moved(fast: UUID) -> httpx.Response:
        return await backend.done("PATCH", below(alice.user_id, f"fasting-sessions/{fast}"), {"reminder_minutes": [3]})

    async with uncommitted(api, HELD, ids=fasts):
        moving = [asyncio.create_task(moved(each)) for each in fasts]
        while len(moving) < 40:  # more than run at once for her
            moving.append(asyncio.create_task(backend.call("GET", below(alice.user_id, "device-tokens"))))
        await asyncio.sleep(0)
        async with soon(1.5):
            others: list[httpx.Response] = [
                await backend.call("GET", below(bob.user_id, "device-tokens")) for _ in range(3)
            ]
    hers = [(await each).status_code for each in moving]

    assert [answer.status_code for answer in others] == [200] * 3
    assert hers[:8] == [200] * 8
    assert set(hers[8:]) <= {200, 429}
