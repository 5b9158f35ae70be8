"""Nobody sees a page or does anything without a sign-in of their own, and no other site does it for them."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from sqlalchemy import text
from starlette.datastructures import State

from api.console.app import make_console
from api.console.rendering import SCRIPT
from api.console.session import COOKIE, MAX_SIGN_INS, ConsoleServices
from api.http.rates import Rate
from commands.sign_in import sign_in_code
from db.console_sessions import code_from, read_code
from db.support_actions import Actor
from tests.console.visits import Visit, an_address, visit, words
from tests.stack import Stack, bearer, make_app, make_stack, uncommitted

NOBODYS = "6f0c4a52-0c3e-4b0e-9d0c-1f4f6d7a2b10"  # the same wherever tests are collected


OPEN_TO_ALL = {("/sign-in", "GET"), ("/sign-in", "POST"), ("/style.css", "GET")}
DECODE = "/payloads/decode"  # of the Web UI, which has no form: tests/dispatch/test_payload_encryption.py
OPEN_TO_ALL |= {(DECODE, "OPTIONS"), (DECODE, "POST")}
OURS = {"sec-fetch-site": "same-origin"}


def routes() -> list[tuple[str, str]]:
    """List every route that needs a session, with ids filled in."""
    console = make_console(State())
    found = {(r.path, method) for r in iter_route_contexts(console.routes) for method in r.methods or () if r.path}
    behind = sorted(found - OPEN_TO_ALL)
    assert len(behind) >= 12
    return [(re.sub(r"{\w+}", NOBODYS, f"/console{path}"), method) for path, method in behind]


@pytest.mark.parametrize("table", ["console_codes", "console_sessions"])
async def test_somebody_signs_in_though_a_row_that_is_over_is_held(stack: Stack, table: str) -> None:
    more = ", csrf_token) VALUES (:digest, 'dave', '-infinity', '')"
    row = f"INSERT INTO {table} (digest, user_id, expires_at"
    digest = uuid4().bytes
    async with stack.sessions.begin() as db:
        one = more if table == "console_sessions" else ") VALUES (:digest, 'dave', '-infinity')"
        await db.execute(text(row + one), {"digest": digest})

    async with uncommitted(stack, f"SELECT 1 FROM {table} WHERE digest = :digest FOR UPDATE", digest=digest):
        code = await sign_in_code(stack.sessions, Actor("carol"), timedelta(minutes=5))
        answer = await _sign_in(stack, code=code)

    assert answer.status_code == 303
    assert COOKIE in answer.headers["set-cookie"]


@pytest.mark.parametrize(("path", "method"), routes())
async def test_no_route_is_open_to_somebody_who_is_not_signed_in(stack: Stack, path: str, method: str) -> None:
    for cookie in ("", f"{COOKIE}=", f"{COOKIE}={'A' * 43}"):
        answer = await stack.http.request(method, path, headers={**OURS, "cookie": cookie})

        assert answer.status_code == 303
        assert urlsplit(answer.headers["location"]).path == "/console/sign-in"
        assert answer.text == ""


@pytest.mark.parametrize("path", [path for path, method in routes() if method == "POST"])
async def test_a_form_needs_the_csrf_token_of_its_own_sign_in(stack: Stack, carol: Visit, path: str) -> None:
    dave = await visit(stack)
    wrong = {"missing": None, "empty": "", "wrong": "A" * 43, "of somebody else": await dave.csrf_token(), "odd": "é"}

    for csrf_token in wrong.values():
        form = {} if csrf_token is None else {"csrf_token": csrf_token}
        answer = await stack.http.post(path, data=form, headers=carol.headers(**OURS))
        assert answer.status_code == 403
        assert "This form does not belong to your session." in words(answer)
    assert (await carol.get("/console/person")).status_code == 200  # still signed in, whatever was sent


@pytest.mark.parametrize("path", [path for path, method in routes() if method == "POST"])
@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "https://elsewhere.example"},
        {"origin": "null"},
    ],
)
async def test_a_form_of_another_site_is_refused_even_with_the_right_token(
    stack: Stack, carol: Visit, path: str, headers: dict[str, str]
) -> None:
    form = {"csrf_token": await carol.csrf_token()}

    answer = await stack.http.post(path, data=form, headers=carol.headers(**headers))

    assert answer.status_code == 403
    assert "This form was sent from another site." in words(answer)


async def test_a_sign_in_form_of_another_site_is_refused(stack: Stack) -> None:
    code = await sign_in_code(stack.sessions, Actor("carol"), timedelta(minutes=1))

    answer = await stack.http.post("/console/sign-in", data={"code": code}, headers={"sec-fetch-site": "cross-site"})

    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
    assert (await _sign_in(stack, code=code)).status_code == 303  # nor is the code used up


async def test_no_code_is_spent_where_a_browser_would_not_keep_the_sign_in(stack: Stack) -> None:
    code = await sign_in_code(stack.sessions, Actor("carol"), timedelta(minutes=1))

    async def sent(**headers: str) -> httpx.Response:
        headers = {"host": "ops.example", "origin": "null"} | headers
        return await stack.http.post("/console/sign-in", data={"code": code}, headers=headers)

    plain = await sent()  # what a browser sends over http
    behind_a_proxy = await sent(**OURS)

    assert plain.status_code == 403
    assert "not encrypted, so your browser would drop" in words(plain)
    assert behind_a_proxy.status_code == 303
    assert "Secure" in behind_a_proxy.headers["set-cookie"]


async def test_a_code_signs_in_once_however_it_was_typed(stack: Stack) -> None:
    code = await sign_in_code(stack.sessions, Actor("carol"), timedelta(minutes=1))
    assert re.fullmatch(r"([0-9A-HJKMNP-TV-Z]{4}-){3}[0-9A-HJKMNP-TV-Z]{4}", code)
    typed = f"  {code.lower().replace('-', ' ').replace('0', 'o').replace('1', 'l')} "

    first = await _sign_in(stack, code=typed)
    second = await _sign_in(stack, code=code)

    assert (first.status_code, first.headers["location"]) == (303, "/console/")
    assert second.status_code == 401
    assert "This code is not valid." in words(second)
    assert "set-cookie" not in second.headers


async def test_what_no_form_of_ours_sends_is_refused(stack: Stack, carol: Visit) -> None:
    headers = carol.headers(**OURS, **{"content-type": "multipart/form-data; boundary=b; charset=unicode_escape"})
    sent = b'--b\r\nContent-Disposition: form-data; name="token"\r\n\r\n\\ud800\r\n--b--\r\n'

    for path in ("/console/sign-in", "/console/sign-out"):
        answer = await stack.http.post(path, content=sent, headers=headers)

        assert answer.status_code == 403
        assert "This is not a form of these pages." in words(answer)


async def test_a_code_ends(stack: Stack) -> None:
    code = await sign_in_code(stack.sessions, Actor("carol"), timedelta(0))

    assert (await _sign_in(stack, code=code)).status_code == 401


@pytest.mark.parametrize(
    "typed", ["", "-", "0000-0000-0000-0000", "x" * 5000, "\0", "ÄÖÜß-ÄÖÜß-ÄÖÜß-ÄÖÜß", "' OR 1=1 --"]
)
async def test_what_is_no_code_signs_nobody_in(stack: Stack, typed: str) -> None:
    answer = await _sign_in(stack, "10.0.0.1", code=typed)

    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


def test_a_code_holds_all_of_its_randomness() -> None:
    codes = [code_from(number.to_bytes(10)) for number in (0, 1, 31, 2**80 - 1)]

    assert codes == ["0000-0000-0000-0000", "0000-0000-0000-0001", "0000-0000-0000-000Z", "ZZZZ-ZZZZ-ZZZZ-ZZZZ"]
    assert [read_code(code) for code in codes] == [code.replace("-", "") for code in codes]
    assert read_code("ABCD-EFGH-JKMN-PQR") is None
    assert read_code("ABCD-EFGH-JKMN-PQRU") is None


async def test_the_cookie_is_for_the_console_alone_and_out_of_the_reach_of_scripts(stack: Stack) -> None:
    code = await sign_in_code(stack.sessions, Actor("carol"), timedelta(minutes=1))
    another = await sign_in_code(stack.sessions, Actor("carol"), timedelta(minutes=1))

    here = await _sign_in(stack, code=code)
    named = await _sign_in(stack, code=another, host="console.example")

    name_and_value, *attributes = here.headers["set-cookie"].split("; ")
    assert re.fullmatch(COOKIE + r"=[\w-]{43}", name_and_value)
    assert {each.lower() for each in attributes} == {"httponly", "max-age=28799", "path=/console", "samesite=strict"}
    assert "Secure" in named.headers["set-cookie"].split("; ")


async def test_a_token_with_the_scope_signs_in_for_no_longer_than_it_is_valid(stack: Stack) -> None:
    token = bearer("carol", "support", expires_in=timedelta(minutes=5))

    answer = await _sign_in(stack, token=token)

    assert answer.status_code == 303
    [lasts] = re.findall(r"Max-Age=(\d+)", answer.headers["set-cookie"])
    assert 280 < int(lasts) <= 300
    [row] = await stack.rows("SELECT * FROM console_sessions WHERE user_id = 'carol' ORDER BY created_at DESC LIMIT 1")
    assert row.expires_at <= datetime.now(UTC) + timedelta(minutes=5)


@pytest.mark.parametrize(
    ("scopes", "status", "said"),
    [((), 403, "scope support"), (("service",), 403, "scope support"), (("supporter",), 403, "scope support")],
)
async def test_a_token_without_the_scope_signs_nobody_in(
    stack: Stack, scopes: tuple[str, ...], status: int, said: str
) -> None:
    answer = await _sign_in(stack, token=bearer("mallory", *scopes))

    assert answer.status_code == status
    assert said in words(answer)
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "token", ["nonsense", "a.b.c", "é", bearer("carol", "support", expires_in=timedelta(hours=-1))]
)
async def test_a_token_that_is_not_valid_signs_nobody_in_and_is_not_shown(stack: Stack, token: str) -> None:
    answer = await _sign_in(stack, token=token)

    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert token not in answer.text


async def test_a_bearer_token_alone_opens_no_page(stack: Stack) -> None:
    answer = await stack.user(None, "support").call("GET", "/console/dead")

    assert answer.status_code == 303


async def test_the_cookie_of_somebody_who_signed_out_is_worth_nothing(carol: Visit) -> None:
    answer = await carol.post("/console/sign-out")

    assert (answer.status_code, answer.headers["location"]) == (303, "/console/sign-in")
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert (await carol.get("/console/")).status_code == 303


async def test_a_sign_in_ends_by_itself(stack: Stack, carol: Visit) -> None:
    async with stack.sessions.begin() as db:
        await db.execute(
            text("UPDATE console_sessions SET expires_at = now() - interval '1 ms' WHERE user_id = :user"),
            {"user": carol.user_id},
        )

    assert (await carol.get("/console/")).status_code == 303


async def test_the_database_knows_neither_cookie_nor_code(stack: Stack, carol: Visit) -> None:
    code = await sign_in_code(stack.sessions, Actor(carol.user_id), timedelta(minutes=1))

    tables = ("console_sessions", "console_codes", "support_actions")
    kept = str([await stack.rows(f"SELECT CAST(t AS text) FROM {table} t") for table in tables])

    for secret in (carol.value, code, code.replace("-", "")):
        assert secret not in kept
        assert secret.encode().hex() not in kept


async def test_it_is_on_record_who_signed_in_by_what_and_out(stack: Stack, carol: Visit) -> None:
    await carol.post("/console/sign-out")

    deeds = await stack.rows("SELECT * FROM support_actions WHERE actor = :user ORDER BY id", user=carol.user_id)
    assert [(deed.action, deed.subject_kind, deed.detail) for deed in deeds] == [
        ("sign_in", "console_session", {"way": "code"}),
        ("sign_out", "console_session", {}),
    ]
    assert deeds[0].subject_id == deeds[1].subject_id


async def test_attempts_to_sign_in_from_one_address_are_limited(stack: Stack) -> None:
    app = make_app(stack.place)
    async with make_stack(stack.place, app) as still:
        console: ConsoleServices = app.state.console
        app.state.console = replace(console, sign_ins=Rate(MAX_SIGN_INS, clock=lambda: 0.0))  # no minute begins
        answers = [await _sign_in(still, "10.0.0.2", code="0000-0000-0000-0000") for _ in range(21)]
        code = await sign_in_code(stack.sessions, Actor("carol"), timedelta(minutes=1))
        by_code = [await _sign_in(still, each, code=code) for each in ("10.0.0.2", "10.0.0.3")]

    assert [answer.status_code for answer in answers] == [401] * 20 + [429]
    assert 0 < int(answers[-1].headers["retry-after"]) <= 60
    assert "Too many requests" in words(answers[-1])
    assert [answer.status_code for answer in by_code] == [429, 303]


@pytest.mark.parametrize(
    ("wanted", "place"),
    [
        ("/console/person?user=alice%2Fb", "/console/person?user=alice%2Fb"),
        ("/console/dead?reason=BadTopic&kind=reminder", "/console/dead?reason=BadTopic&kind=reminder"),
        ("https://elsewhere.example/", "/console/"),
        ("//elsewhere.example", "/console/"),
        ("/console//elsewhere.example", "/console/"),
        ("/console/../v1/support/gates", "/console/"),
        ("/console/\r\nset-cookie: a=b", "/console/"),
        ("/consolation", "/console/"),
    ],
)
async def test_after_the_sign_in_one_is_where_one_wanted_to_be_but_nowhere_else(
    stack: Stack, wanted: str, place: str
) -> None:
    code = await sign_in_code(stack.sessions, Actor("carol"), timedelta(minutes=1))

    answer = await _sign_in(stack, "10.0.0.4", code=code, next=wanted)

    assert answer.headers["location"] == place


async def test_a_page_that_was_asked_for_is_remembered_by_the_sign_in(stack: Stack) -> None:
    answer = await stack.http.get("/console/person?user=a%20%26%20b", headers=OURS)

    asked = urlsplit(answer.headers["location"])
    assert parse_qs(asked.query) == {"next": ["/console/person?user=a%20%26%20b"]}
    assert 'name="next" value="/console/person?user=a%20%26%20b"' in (await stack.http.get(str(asked.geturl()))).text


async def test_whoever_follows_a_link_from_another_site_comes_in_at_the_second_step(stack: Stack, carol: Visit) -> None:
    answer = await stack.http.get("/console/dead?kind=reminder", headers={"sec-fetch-site": "cross-site"})

    assert answer.status_code == 200
    step = "/console/sign-in?next=%2Fconsole%2Fdead%3Fkind%3Dreminder"
    assert f'<meta http-equiv="refresh" content="0; url={step}">' in answer.text
    assert (await stack.http.get(step)).status_code == 200  # which asks for a sign-in where there is none
    second = await carol.get(step)
    assert (second.status_code, second.headers["location"]) == (303, "/console/dead?kind=reminder")


@pytest.mark.parametrize(
    ("path", "to_carol", "to_a_stranger"),
    [
        ("/", 200, 303),
        ("/sign-in", 303, 200),
        ("/style.css", 200, 200),
        ("/dead", 200, 303),
        ("/person?user=x", 200, 303),
        ("/nothing", 404, 404),
        ("/dead?kind=x", 422, 303),
    ],
)
async def test_every_answer_keeps_the_browser_on_a_short_leash(
    stack: Stack, carol: Visit, path: str, to_carol: int, to_a_stranger: int
) -> None:
    for answer, status in (
        (await carol.get(f"/console{path}"), to_carol),
        (await stack.http.get(f"/console{path}"), to_a_stranger),
    ):
        assert answer.status_code == status
        headers = answer.headers
        assert headers["content-security-policy"] == (
            f"default-src 'none'; style-src 'self'; img-src 'self' data:; script-src '{SCRIPT}'; form-action 'self';"
            " frame-ancestors 'none'; base-uri 'none'"
        )
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == ("private, max-age=31536000, immutable" if "css" in path else "no-store")


async def test_the_console_is_found_without_its_last_slash(stack: Stack) -> None:
    answer = await stack.http.get("/console")

    assert (answer.status_code, answer.headers["location"]) == (303, "/console/")


async def test_trouble_is_reported_in_a_page(carol: Visit) -> None:
    for path, status, said in (
        ("/console/nothing", 404, "Not found"),
        (f"/console/push/{NOBODYS}", 404, "There is no such push task."),
        ("/console/push/nonsense", 422, "task_id: "),
        ("/console/dead?kind=nonsense", 422, "kind: "),
        ("/console/dead?cursor=nonsense", 422, "This is not a cursor of this API"),
        ("/console/analytics?days=400", 422, "days: "),
        ("/console/person?user=x&cursor=nonsense", 422, "This is not a cursor of this API"),
        (f"/console/person?user={'x' * 201}", 422, "user: "),
        ("/console/person?user=%00", 422, "user: must be printable"),
        ("/console/analytics?app_id=%00", 422, "app_id: "),
        ("/console/dead?user_id=%00", 422, "user_id: must be printable"),
    ):
        answer = await carol.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8"), path
        assert said in words(answer), path


async def _sign_in(stack: Stack, address: str = "", *, host: str = "", **form: str) -> Any:
    headers = {**OURS, "x-forwarded-for": address or an_address(), **({"host": host} if host else {})}
    return await stack.http.post("/console/sign-in", data=form, headers=headers)
