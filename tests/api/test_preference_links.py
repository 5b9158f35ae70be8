"""Links to the preference page: who makes them, and what each opens, once."""

import asyncio
import hashlib
import re
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from api.preference_page.session import BAD_CODES, NEW_LINKS
from db.preference_links import MAX_LINKS, MAX_SESSIONS
from tests.open_page import COOKIE, LINKS, OURS, PAGE, ask, link, value
from tests.stack import UNLIMITED, Stack, StackPlace, User, bearer, make_app, make_stack

BUTTON = re.compile(r'<form[^>]* method="post" action="(/preferences/[\w-]+)"')


async def test_a_link_is_absolute_and_lasts_as_long_as_what_it_is_for(alice: User) -> None:
    answers = [await alice.call("POST", LINKS, body) for body in (None, {}, {"for": "app"}, {"for": "email"})]

    assert [answer.status_code for answer in answers] == [201] * 4
    lifetimes = [datetime.fromisoformat(each.json()["expires_at"]) - datetime.now(UTC) for each in answers]
    for lifetime, wanted in zip(lifetimes, [timedelta(minutes=15)] * 3 + [timedelta(days=30)], strict=True):
        assert timedelta(seconds=-30) < lifetime - wanted < timedelta(seconds=30)
    assert all(set(each.json()) == {"url", "expires_at"} for each in answers)
    for answer in answers:
        assert re.fullmatch(r"http://127\.0\.0\.1:8000/preferences/[\w-]{43}", answer.json()["url"])
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("body", "field"),
    [({"for": "fax"}, "for"), ({"for": None}, "for"), ({"kind": "app"}, "kind"), ({"user_id": "bob"}, "user_id")],
)
async def test_a_link_for_something_else_is_refused(alice: User, body: object, field: str) -> None:
    answer = await alice.call("POST", LINKS, body)

    assert (answer.status_code, answer.json()["field"]) == (422, field)


async def test_a_link_needs_a_token(api: Stack) -> None:
    assert (await api.http.post(LINKS)).status_code == 401


async def test_only_the_digest_of_a_code_is_kept(alice: User) -> None:
    code = (await link(alice)).removeprefix(PAGE)

    [row] = await alice.stack.rows("SELECT * FROM preference_codes WHERE user_id = :user", user=alice.user_id)
    assert bytes(row.digest) == hashlib.sha256(code.encode()).digest()
    assert code not in str(row)


async def test_opening_a_link_swaps_it_for_a_cookie_so_that_the_code_leaves_the_address(alice: User) -> None:
    path = await link(alice)

    first = await ask(alice.stack, path)
    second = await ask(alice.stack, path)
    page = await ask(alice.stack, PAGE, cookie=f"{COOKIE}={value(first)}")

    assert (first.status_code, first.headers["location"], first.text) == (303, PAGE, "")
    name_and_value, *attributes = first.headers["set-cookie"].split("; ")
    assert re.fullmatch(COOKIE + r"=[\w-]{43}", name_and_value)
    assert {each.lower() for each in attributes} == {"httponly", "max-age=43200", "path=/preferences", "samesite=lax"}
    assert (second.status_code, page.status_code) == (404, 200)
    assert path.removeprefix(PAGE) not in page.text


async def test_behind_tls_the_cookie_is_for_tls_alone(detached: StackPlace) -> None:
    app = make_app(detached, PUBLIC_URL="https://push.example/", **UNLIMITED)
    async with make_stack(detached, app) as stack:
        alice = stack.user()
        url = (await alice.call("POST", LINKS)).json()["url"]
        opened = await ask(stack, urlsplit(url).path)
        page = await ask(stack, PAGE, cookie=f"__Secure-{COOKIE}={value(opened)}")
        unprefixed = await ask(stack, PAGE, cookie=f"{COOKIE}={value(opened)}")

    assert re.fullmatch(r"https://push\.example/preferences/[\w-]{43}", url)
    assert opened.headers["set-cookie"].startswith(f"__Secure-{COOKIE}=")
    assert "Secure" in opened.headers["set-cookie"].split("; ")
    assert (page.status_code, unprefixed.status_code) == (200, 404)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_of_all_who_open_a_link_at_once_one_does(api: Stack, detached: StackPlace, method: str) -> None:
    alice = api.user()
    async with make_stack(detached, make_app(detached, **UNLIMITED)) as beside:
        path = await link(alice, {"for": "app" if method == "GET" else "email"})
        answers = await asyncio.gather(*(ask((api, beside)[each % 2], path, method, **OURS) for each in range(8)))

    assert sorted(answer.status_code for answer in answers) == [303] + [404] * 7
    sessions = await api.rows("SELECT 1 FROM preference_sessions WHERE user_id = :user", user=alice.user_id)
    assert len(sessions) == 1


async def test_an_e_mails_link_shows_a_button_and_only_that_uses_it_up(alice: User) -> None:
    path = await link(alice, {"for": "email"})

    looked_at = [await ask(alice.stack, path) for _ in range(3)]
    pressed = await ask(alice.stack, path, "POST", **OURS)
    afterwards = [await ask(alice.stack, path, method, **OURS) for method in ("GET", "POST")]

    for page in looked_at:
        assert page.status_code == 200
        assert "set-cookie" not in page.headers
        assert BUTTON.findall(page.text) == [path]
    assert (pressed.status_code, pressed.headers["location"]) == (303, PAGE)
    assert (await ask(alice.stack, PAGE, cookie=f"{COOKIE}={value(pressed)}")).status_code == 200
    assert [each.status_code for each in afterwards] == [404, 404]


@pytest.mark.parametrize("kind", ["app", "email"])
async def test_a_look_at_the_head_uses_nothing_up(alice: User, kind: str) -> None:
    path = await link(alice, {"for": kind})

    heads = [await ask(alice.stack, path, "HEAD") for _ in range(2)]
    opened = await ask(alice.stack, path, "POST", **OURS)
    afterwards = await ask(alice.stack, path, "HEAD")

    assert [(each.status_code, each.text, "set-cookie" in each.headers) for each in heads] == [(200, "", False)] * 2
    assert (opened.status_code, afterwards.status_code) == (303, 404)


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-purpose": "prefetch"},
        {"sec-purpose": "prefetch;prerender"},
        {"purpose": "prefetch"},
        {"x-moz": "prefetch"},
        {"x-purpose": "preview"},
    ],
)
async def test_a_browser_that_looks_ahead_uses_nothing_up(alice: User, headers: dict[str, str]) -> None:
    path = await link(alice)

    ahead = await ask(alice.stack, path, **headers)
    pressed = await ask(alice.stack, path, "POST", **OURS)

    assert (ahead.status_code, "set-cookie" in ahead.headers) == (200, False)
    assert BUTTON.findall(ahead.text) == [path]  # should the browser show this once somebody goes there
    assert pressed.status_code == 303


async def test_every_code_that_opens_nothing_is_answered_alike(api: Stack) -> None:
    alice = api.user()
    used, expired = await link(alice), await link(alice)
    await ask(api, used)
    async with api.sessions.begin() as db:
        digest = hashlib.sha256(expired.removeprefix(PAGE).encode()).digest()
        query = "UPDATE preference_codes SET expires_at = now() - interval '1 second' WHERE digest = :digest"
        await db.execute(text(query), {"digest": digest})
    newer = (
        "INSERT INTO preference_codes (digest, user_id, kind, expires_at) VALUES (:digest, 'x', 'fax', now() + '1h')"
    )
    async with api.sessions.begin() as db:
        await db.execute(text(newer), {"digest": hashlib.sha256(b"a-code-of-a-newer-release").digest()})
    paths = [
        used,
        expired,
        f"{PAGE}a-code-of-a-newer-release",
        PAGE + "A" * 43,
        f"{PAGE}x",
        PAGE + "x" * 5000,
        f"{PAGE}%00",
        f"{PAGE}%ff%fe",
        f"{PAGE}a/b",
        PAGE,  # without a cookie
    ]

    answers = [await ask(api, path) for path in paths]

    assert {answer.status_code for answer in answers} == {404}
    assert {answer.content for answer in answers} == {answers[0].content}
    alike = [{name: each for name, each in answer.headers.items() if name not in _OWN} for answer in answers]
    assert alike == [alike[0]] * len(paths)
    posts = [await ask(api, path, "POST", **OURS) for path in paths[:8]]
    assert {(answer.status_code, answer.content) for answer in posts} == {(404, answers[0].content)}


_OWN = {"date", "x-request-id"}


async def test_bad_codes_of_one_address_are_limited_and_a_good_one_opens_all_the_same(detached: StackPlace) -> None:
    here = {"x-forwarded-for": "10.1.2.3"}
    async with make_stack(detached, make_app(detached, **UNLIMITED)) as stack:
        path = await link(stack.user())
        answers = [await ask(stack, f"{PAGE}{'b' * 43}", **here) for _ in range(2 * BAD_CODES)]
        opened = await ask(stack, path, **here)
        elsewhere = await ask(stack, f"{PAGE}{'b' * 43}")

    assert [answer.status_code for answer in answers][:BAD_CODES] == [404] * BAD_CODES
    refused = next(answer for answer in answers if answer.status_code == 429)  # a later one may be granted again
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert (opened.status_code, elsewhere.status_code) == (303, 404)


async def test_of_too_many_links_of_a_kind_the_oldest_go(api: Stack) -> None:
    alice, bob = api.user(), api.user()
    mail, bobs = await link(alice, {"for": "email"}), await link(bob)

    paths = [await link(alice) for _ in range(MAX_LINKS + 2)]

    kept = await api.rows("SELECT kind FROM preference_codes WHERE user_id = :user", user=alice.user_id)
    assert sorted(row.kind for row in kept) == ["app"] * MAX_LINKS + ["email"]
    heads = [(await ask(api, path, "HEAD")).status_code for path in [*paths, mail, bobs]]
    assert heads == [404] * 2 + [200] * (MAX_LINKS + 2)


async def test_of_too_many_open_pages_the_oldest_are_closed(api: Stack) -> None:
    alice = api.user()
    async with api.sessions.begin() as db:
        query = (
            "INSERT INTO preference_sessions (digest, user_id, csrf_token, created_at, expires_at) SELECT"
            " sha256(CAST(:user || n AS bytea)), :user, 'x', now() - n * interval '1 minute', now() + interval '1 hour'"
            " FROM generate_series(1, 12) AS n"
        )
        await db.execute(text(query), {"user": alice.user_id})

    opened = await ask(api, await link(alice))

    left = await api.rows("SELECT 1 FROM preference_sessions WHERE user_id = :user", user=alice.user_id)
    assert len(left) == MAX_SESSIONS
    assert (await ask(api, PAGE, cookie=f"{COOKIE}={value(opened)}")).status_code == 200


async def test_new_links_of_one_person_are_limited_and_nobody_elses(api: Stack) -> None:
    alice, bob = api.user(), api.user()

    answers = [await alice.call("POST", LINKS) for _ in range(2 * NEW_LINKS)]

    assert [answer.status_code for answer in answers][:NEW_LINKS] == [201] * NEW_LINKS
    refused = next(answer for answer in answers if answer.status_code != 201)
    assert (refused.status_code, refused.json()["type"]) == (429, "urn:fastbell:problem:too-many-requests")
    assert (await bob.call("POST", LINKS)).status_code == 201


async def test_neither_logs_nor_metrics_hold_a_code_or_a_cookie(api: Stack) -> None:
    alice = api.user()
    app_link, mail = await link(alice), await link(alice, {"for": "email"})
    with capture_logs() as logged:
        opened = await ask(api, app_link)
        await ask(api, app_link)
        await ask(api, mail)
        await ask(api, mail, "HEAD")
        await ask(api, f"{mail}/more")
        await ask(api, PAGE, cookie=f"{COOKIE}={value(opened)}")
        async with api.sessions.begin() as db:
            await db.execute(text("ALTER TABLE preference_codes RENAME TO preference_codes_away"))
        try:
            broken = await ask(api, mail)
        finally:
            async with api.sessions.begin() as db:
                await db.execute(text("ALTER TABLE preference_codes_away RENAME TO preference_codes"))

    assert (broken.status_code, broken.headers["content-type"]) == (500, "text/html; charset=utf-8")
    routes = [event.get("route") for event in logged if event["event"] == "request"]
    assert routes == ["/preferences/{code}"] * 4 + ["unmatched", PAGE, "/preferences/{code}"]
    told = f"{logged} {(await api.http.get('/metrics')).text}"
    for secret in (app_link, mail, value(opened)):
        assert secret.removeprefix(PAGE) not in told


async def test_links_that_were_made_opened_and_refused_are_counted(api: Stack) -> None:
    async def counted() -> list[float]:
        found = (await api.http.get("/metrics")).text
        names = [f'fastbell_preference_links_total{{outcome="{each}"}}' for each in ("made", "opened", "refused")]
        return [float(found.partition(f"{name} ")[2].partition("\n")[0]) for name in names]

    before = await counted()
    path = await link(api.user())
    for _ in range(2):
        await ask(api, path)

    assert [after - earlier for after, earlier in zip(await counted(), before, strict=True)] == [1, 1, 1]


async def test_the_cookie_opens_nothing_but_the_page(api: Stack) -> None:
    alice = api.user()
    cookie = value(await ask(api, await link(alice)))

    as_bearer = await api.http.get("/v1/notification-preferences", headers={"authorization": f"Bearer {cookie}"})
    as_cookie = await ask(api, "/v1/notification-preferences", cookie=f"{COOKIE}={cookie}")
    console = [await ask(api, "/console/dead", cookie=f"{name}={cookie}") for name in (COOKIE, "fastbell_console")]
    by_token = await ask(api, PAGE, authorization=f"Bearer {bearer(alice.user_id)}")
    code = await ask(api, f"{PAGE}{cookie}")

    assert (as_bearer.status_code, as_cookie.status_code) == (401, 401)
    assert [each.status_code for each in console] == [303, 303]  # to its own sign-in
    assert (by_token.status_code, code.status_code) == (404, 404)
