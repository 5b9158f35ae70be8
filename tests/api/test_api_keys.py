"""API keys: who is let in with one, for how long, and that no key is kept or logged."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from api.app import create_app
from api.http.auth import FRESH_FOR, ApiKeys, TokenCheck
from api.http.problems import ServiceUnavailable, Unauthorized
from db import api_keys
from db.engine import make_engine, make_sessions
from db.support_actions import Actor
from settings.environment import AuthSettings, service_settings
from tests.busy import soon
from tests.stack import Stack, StackPlace, bearer, make_stack

PATH = "/v1/users/alice/notification-preferences"


async def created(stack: Stack, *scopes: str, name: str = "shop", days: float | None = None) -> str:
    """Create a key."""
    lasts = None if days is None else timedelta(days=days)
    async with stack.sessions.begin() as db:
        return await api_keys.create(db, name, scopes or ("service",), lasts=lasts, actor=Actor("test"))


async def revoked(stack: Stack, which: str) -> None:
    """Revoke a key."""
    async with stack.sessions.begin() as db:
        await api_keys.revoke(db, which, actor=Actor("test"))


async def called(stack: Stack, key: str, path: str = PATH, method: str = "GET", body: object = None) -> httpx.Response:
    """Call with a bearer token."""
    return await stack.http.request(method, path, json=body, headers={"Authorization": f"Bearer {key}"})


async def test_a_key_is_used_like_any_bearer_token_and_has_its_scopes(api: Stack) -> None:
    of_service, of_support = await created(api), await created(api, "support", name="helpdesk")
    conversation = f"/v1/conversations/{uuid4()}"

    answers = {
        (name, path): (await called(api, key, path, method, body)).status_code
        for name, key in (("service", of_service), ("support", of_support))
        for method, path, body in (
            ("GET", PATH, None),
            ("PUT", conversation, {"member_ids": ["alice", "helpdesk"]}),
            ("GET", conversation, None),
            ("GET", "/v1/support/push-tasks", None),
            ("GET", "/v1/device-tokens", None),
        )
    }

    assert answers == {
        ("service", PATH): 200,
        ("service", conversation): 200,
        ("service", "/v1/support/push-tasks"): 403,
        ("service", "/v1/device-tokens"): 403,
        ("support", PATH): 403,
        ("support", conversation): 404,  # a key is no person, whatever its name
        ("support", "/v1/support/push-tasks"): 200,
        ("support", "/v1/device-tokens"): 403,
    }
    bare = await called(api, of_service, "/v1/device-tokens")
    assert bare.json()["type"] == "urn:fastbell:problem:act-for-a-user"


async def test_a_key_that_does_not_hold_is_refused_with_its_reason_and_never_read_as_a_jwt(api: Stack) -> None:
    name = f"shop-{uuid4()}"
    good, old, ended = await created(api), await created(api, days=1e-9), await created(api, name=name)
    await revoked(api, name)
    unknown, gone, over = "There is no such API key.", "This API key was revoked.", "This API key has expired."
    jwt = bearer("alice", "service")

    for key, detail in {
        f"{good}x": unknown,
        good[:-1]: unknown,
        good.swapcase(): "The bearer token is not valid (DecodeError).",
        f"fbk_{'A' * 43}": unknown,
        "fbk_": unknown,
        "fbk_" + "\u00fc" * 43: unknown,
        f"fbk_{jwt}": unknown,
        f"fbk_{'9' * 8000}": unknown,
        old: over,
        ended: gone,
    }.items():
        answer = await api.http.get(PATH, headers={b"Authorization": f"Bearer {key}".encode()})
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert answer.json()["detail"] == detail, key[:8]


async def test_without_a_secret_or_a_key_set_only_api_keys_are_accepted(detached: StackPlace) -> None:
    app = create_app(service_settings(detached.environment()), AuthSettings())
    async with make_stack(detached, app) as stack:
        by_key = await called(stack, await created(stack))
        by_jwt = await called(stack, bearer("alice", "service"))
        unsigned = await called(stack, "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIiwic2NvcGUiOiJzZXJ2aWNlIn0.")

    assert by_key.status_code == 200
    assert [(each.status_code, each.json()["detail"]) for each in (by_jwt, unsigned)] == [
        (401, "Only API keys are accepted here, which begin with fbk_.")
    ] * 2


class Clock:
    """A clock that stands until it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


async def test_a_revoked_key_is_refused_within_five_seconds(api: Stack) -> None:
    name, clock = f"shop-{uuid4()}", Clock()
    keys = [await created(api, name=name) for _ in range(2)]
    check = TokenCheck(AuthSettings(), ApiKeys(api.sessions, clock))
    callers = [await check.caller(key) for key in keys]
    await revoked(api, name)
    assert FRESH_FOR < 5

    clock.now += FRESH_FOR

    assert {caller.user_id for caller in callers} == {name}
    for key in keys:
        with pytest.raises(Unauthorized, match="revoked"):
            await check.caller(key)


async def test_a_key_that_expires_is_refused_at_once(api: Stack) -> None:
    check = TokenCheck(AuthSettings(), ApiKeys(api.sessions))
    seconds, caller = 0.2, None
    while caller is None:  # a busy machine may need longer than the key lasts
        seconds *= 2
        key = await created(api, days=seconds / 86400)
        with suppress(Unauthorized):
            caller = await check.caller(key)

    while datetime.now(UTC) < caller.expires_at:
        await asyncio.sleep(0.01)

    with pytest.raises(Unauthorized, match="expired"):
        await check.caller(key)


async def test_the_last_use_is_recorded_once_a_minute_and_waits_for_nobody(api: Stack) -> None:
    name, clock = f"shop-{uuid4()}", Clock()
    key, check = await created(api, name=name), ApiKeys(api.sessions, clock)

    async def used_after(seconds: float) -> datetime | None:
        clock.now += FRESH_FOR
        async with api.sessions.begin() as db:
            past = text("UPDATE api_keys SET last_used_at = last_used_at - CAST(:past AS interval) WHERE name = :name")
            await db.execute(past, {"past": timedelta(seconds=seconds), "name": name})
        before = (await api.rows("SELECT last_used_at FROM api_keys WHERE name = :name", name=name))[0][0]
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(check.find(key))
        after = (await api.rows("SELECT last_used_at FROM api_keys WHERE name = :name", name=name))[0][0]
        return None if after == before else after

    assert await used_after(0) is not None
    assert await used_after(30) is None
    assert await used_after(60) is not None
    async with api.sessions.begin() as db:  # somebody holds the row
        await db.execute(text("SELECT 1 FROM api_keys WHERE name = :name FOR UPDATE"), {"name": name})
        clock.now += FRESH_FOR
        async with soon(1):
            assert await check.find(key) is not None


@pytest.fixture
async def nowhere() -> AsyncIterator[ApiKeys]:
    """Keys whose database is away."""
    engine = make_engine("postgresql://127.0.0.1:9/nowhere")
    yield ApiKeys(make_sessions(engine))
    await engine.dispose()


async def test_while_the_database_is_away_keys_are_not_called_wrong(nowhere: ApiKeys) -> None:
    with pytest.raises(ServiceUnavailable):
        await nowhere.find(f"fbk_{'A' * 43}")
    assert await nowhere.find("fbk_no-key") is None


async def test_no_key_is_stored_or_logged(
    api: Stack, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    good, bad = await created(api, name=f"{uuid4()}"), f"fbk_{'B' * 43}"

    for key in (good, bad, f"{good}?"):
        await called(api, key)
        await called(api, key, "/v1/nothing")
        await called(api, key, PATH, "PUT", {"no": "field"})

    logs = "".join(capsys.readouterr()) + caplog.text
    rows = await api.rows("SELECT to_jsonb(api_keys), encode(digest, 'escape') FROM api_keys")
    actions = await api.rows("SELECT to_jsonb(support_actions) FROM support_actions")
    assert logs
    assert [word for word in (good[4:], bad[4:]) if word in logs + str(rows) + str(actions)] == []
