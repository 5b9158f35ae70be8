"""A person leaves whose user id is also the name of an API key or of a service: those go on, and keep their names."""

import json
from uuid import uuid4

import httpx
import pytest

from db import api_keys, console_sessions, erasures
from db.support_actions import Actor
from tests.console.visits import an_address
from tests.erasure.leaving import change, done, leave, path_of
from tests.stack import Stack, User, iphone
from tests.support.dead import dead_task, redrive
from tests.support.timelines import of


async def key_of(stack: Stack, name: str, *scopes: str) -> User:
    """Give who calls with an API key of this name."""
    async with stack.sessions.begin() as db:
        key = await api_keys.create(db, name, scopes, lasts=None, actor=Actor("cli:test", is_person=False))
    return User(stack, name, {"Authorization": f"Bearer {key}"})


async def sign_in(stack: Stack, user: User) -> httpx.Response:
    """Sign in to the console with a bearer token."""
    token = user.headers["Authorization"].removeprefix("Bearer ")
    headers = {"sec-fetch-site": "same-origin", "x-forwarded-for": an_address()}
    return await stack.http.post("/console/sign-in", data={"token": token}, headers=headers)


async def test_what_is_named_like_somebody_who_is_erased_goes_on_and_keeps_its_name(
    stack: Stack, alice: User, bob: User
) -> None:
    [*dead] = await dead_task(bob, *(iphone() for _ in range(4)))
    await alice.register(iphone())
    namesakes = [
        await key_of(stack, alice.user_id, "service"),
        await key_of(stack, alice.user_id, "service", "support"),
        stack.user(alice.user_id, "service"),
    ]
    supports, herself = await key_of(stack, alice.user_id, "support"), stack.user(alice.user_id, "support")
    assert (await redrive(herself, dead[0])).status_code == 202
    erasure_id = await leave(stack, alice.user_id)

    tests = [await each.call("POST", of(bob.user_id, "test-push"), {}) for each in namesakes]
    assert [(each.status_code, each.json()["sent_by"]) for each in tests] == [(202, alice.user_id)] * 3
    assert (await redrive(supports, dead[1])).status_code == 202
    assert (await redrive(supports, uuid4())).status_code == 404
    assert (await sign_in(stack, supports)).status_code == 303
    refused = [await redrive(herself, dead[2]), await redrive(herself, uuid4()), await sign_in(stack, herself)]
    assert [each.status_code for each in refused] == [409] * 3
    await done(stack, erasure_id)

    acted = await stack.rows(
        "SELECT subject_id, actor FROM support_actions WHERE subject_id = ANY(:ids) ORDER BY id", ids=dead
    )
    assert [(each.subject_id, each.actor) for each in acted] == [(dead[0], erasures.NOBODY), (dead[1], alice.user_id)]
    signed_in = await stack.rows("SELECT by_person FROM console_sessions WHERE user_id = :id", id=alice.user_id)
    assert [each.by_person for each in signed_in] == [False]


async def test_an_export_has_what_the_person_did_and_nothing_of_a_namesake(
    stack: Stack, alice: User, bob: User
) -> None:
    [one, other] = await dead_task(bob, iphone(), iphone())
    supports, herself = await key_of(stack, alice.user_id, "support"), stack.user(alice.user_id, "support")
    assert [(await redrive(who, task)).status_code for who, task in ((herself, one), (supports, other))] == [202, 202]
    assert [(await sign_in(stack, each)).status_code for each in (herself, supports)] == [303, 303]

    exported = (await stack.user("backend", "service").call("GET", path_of(alice.user_id, "/export"))).text

    lines = [json.loads(each) for each in exported.splitlines()]
    assert sorted((each["type"], each["data"].get("action"), each["data"]["by_person"]) for each in lines) == [
        ("console_session", None, True),
        ("own_action", "redrive", True),
        ("own_action", "sign_in", True),
    ]


@pytest.mark.parametrize(("named_like_a_key", "is_refused"), [(True, False), (False, True)])
async def test_of_what_the_release_before_writes_the_name_decides(
    stack: Stack, alice: User, named_like_a_key: bool, is_refused: bool
) -> None:
    if named_like_a_key:
        await key_of(stack, alice.user_id, "service")
    erasure_id = await leave(stack, alice.user_id)
    act = (
        "INSERT INTO support_actions (actor, action, subject_kind, subject_id, detail)"
        " VALUES (:name, 'redrive', 'push_task', :id, '{}')"
    )
    subject_id = uuid4()

    if is_refused:
        with pytest.raises(Exception, match="being erased"):
            await change(stack, act, name=alice.user_id, id=subject_id)
    else:
        await change(stack, act, name=alice.user_id, id=subject_id)
    await done(stack, erasure_id)

    acted = await stack.rows("SELECT actor FROM support_actions WHERE subject_id = :id", id=subject_id)
    assert [each.actor for each in acted] == ([] if is_refused else [alice.user_id])


async def test_a_revoked_key_has_no_console_either_and_its_namesake_stays_signed_in(stack: Stack, alice: User) -> None:
    supports, herself = await key_of(stack, alice.user_id, "support"), stack.user(alice.user_id, "support")
    assert [(await sign_in(stack, each)).status_code for each in (herself, supports)] == [303, 303]

    async with stack.sessions.begin() as db:
        await api_keys.revoke(db, alice.user_id, actor=Actor("cli:test", is_person=False))

    left = await stack.rows("SELECT by_person FROM console_sessions WHERE user_id = :id", id=alice.user_id)
    assert [each.by_person for each in left] == [True]


async def test_the_command_line_is_nobody_who_can_be_erased(stack: Stack) -> None:
    name = "cli:root"
    erasure_id = await leave(stack, name)

    async with stack.sessions.begin() as db:
        code = await console_sessions.issue(db, Actor(name, is_person=False), console_sessions.CODE_LIFETIME)
    await done(stack, erasure_id)

    async with stack.sessions.begin() as db:
        assert await console_sessions.redeem(db, code) == Actor(name, is_person=False)
