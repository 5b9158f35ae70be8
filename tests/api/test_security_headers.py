"""What every answer tells browsers."""

import secrets
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text
from starlette.types import Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from api.http.browsers import SecurityHeaders
from tests.stack import Stack, StackPlace, User, make_app, make_stack

PREFERENCES = "/v1/notification-preferences"
ALWAYS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "fastbell": "1",
}
STRICT = {"content-security-policy": "default-src 'none'; frame-ancestors 'none'"}
ORIGIN = "https://app.example"


def headers(answer: httpx.Response, *names: str) -> dict[str, str]:
    """Read these headers of an answer."""
    return {name: answer.headers[name] for name in names if name in answer.headers}


async def test_every_answer_of_the_api_has_them_whatever_it_says(alice: User) -> None:
    http = alice.stack.http
    sign_out = {"installation_id": str(uuid4()), "ticket": "t" * 32}
    answers = {
        204: await http.post("/v1/sign-outs", json=sign_out),
        200: await alice.call("GET", PREFERENCES),
        401: await http.get(PREFERENCES),
        404: await http.get("/v1/nothing"),
        405: await alice.call("DELETE", PREFERENCES),
        413: await http.put(PREFERENCES, content=b" " * 70_000, headers=alice.headers),
        422: await alice.call("PUT", PREFERENCES, {"nothing": 1}),
        500: await _broken(alice),
    }

    for status, answer in answers.items():
        assert answer.status_code == status
        expected = ALWAYS | STRICT | {"cache-control": "no-store"}
        assert headers(answer, *expected) == expected, status


async def test_what_is_not_about_a_person_may_be_stored(api: Stack) -> None:
    answer = await api.http.get("/openapi.json")

    assert headers(answer, *ALWAYS, *STRICT, "cache-control") == ALWAYS | STRICT


async def test_the_page_of_the_documentation_may_run_its_scripts(api: Stack) -> None:
    answer = await api.http.get("/docs")

    assert headers(answer, *ALWAYS) == ALWAYS
    assert "script-src 'unsafe-inline' 'self';" in answer.headers["content-security-policy"]


async def test_an_answer_keeps_its_own() -> None:
    async def app(_: Scope, __: Receive, send: Send) -> None:
        own = [(b"Content-Security-Policy", b"default-src 'self'"), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": own})
        await send({"type": "http.response.body", "body": b""})

    async with httpx.AsyncClient(transport=httpx.ASGITransport(SecurityHeaders(app)), base_url="http://a") as http:
        answer = await http.get("/v1/anything")

    assert answer.headers.get_list("content-security-policy") == ["default-src 'self'"]
    assert answer.headers.get_list("cache-control") == ["no-cache"]


@pytest.mark.parametrize(("trusted", "told"), [("127.0.0.1", "max-age=31536000"), ("10.0.0.5", None)])
async def test_encryption_is_insisted_on_where_a_proxy_that_is_believed_says_that_it_encrypts(
    api: Stack, trusted: str, told: str | None
) -> None:
    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    served: Any = ProxyHeadersMiddleware(SecurityHeaders(app), trusted_hosts=trusted)  # type: ignore[arg-type] # its own ASGI types
    transport = httpx.ASGITransport(served, client=("127.0.0.1", 9))
    async with httpx.AsyncClient(transport=transport, base_url="http://a") as http:
        answer = await http.get("/livez", headers={"X-Forwarded-Proto": "https"})
    plain = await api.http.get("/livez", headers={"X-Forwarded-Proto": "http"})

    assert answer.headers.get("strict-transport-security") == told
    assert "strict-transport-security" not in plain.headers


async def test_no_page_of_another_origin_may_call_unless_it_is_set(api: Stack, detached: StackPlace) -> None:
    asked = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "authorization",
    }
    app = make_app(detached, CORS_ORIGINS=ORIGIN)
    async with make_stack(detached, app) as open_house:
        granted = await open_house.http.options(PREFERENCES, headers=asked)
        read = await open_house.http.get(PREFERENCES, headers={"Origin": ORIGIN})
        stranger = await open_house.http.options(PREFERENCES, headers=asked | {"Origin": "https://evil.example"})
    unset = await api.http.options(PREFERENCES, headers=asked)

    assert (granted.status_code, granted.headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert (read.status_code, read.headers["access-control-allow-origin"]) == (401, ORIGIN)
    assert "access-control-allow-credentials" not in granted.headers
    for refused in (stranger, unset):
        assert "access-control-allow-origin" not in refused.headers
    assert unset.status_code == 405


async def _broken(user: User) -> httpx.Response:
    away = f"away_{secrets.token_hex(4)}"
    async with user.stack.sessions.begin() as db:
        await db.execute(text(f"ALTER TABLE preferences RENAME TO {away}"))
    try:
        return await user.call("GET", PREFERENCES)
    finally:
        async with user.stack.sessions.begin() as db:
            await db.execute(text(f"ALTER TABLE {away} RENAME TO preferences"))
