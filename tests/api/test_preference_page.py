"""The preference page, without a browser: what its forms change, for whom, and what they cannot."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from api.preference_page.session import POSTS
from tests.api.wishes import DEFAULTS, PREFERENCES
from tests.open_page import COOKIE, PAGE, Window, ask, fields_of, filled, link, opened, value, words
from tests.stack import UNLIMITED, Stack, StackPlace, User, android, iphone, make_app, make_stack

STOP, SIGN_OUT = "/preferences/stop", "/preferences/sign-out"
FORMS = (PAGE, STOP, SIGN_OUT)
NIGHT = {"starts": "22:00", "ends": "07:00", "time_zone": None, "mode": "silent"}


async def stored(user: User) -> Any:
    """Read somebody's preferences by the API."""
    return (await user.call("GET", PREFERENCES)).json()


async def change(stack: Stack, statement: str, **values: Any) -> None:
    """Change the database."""
    async with stack.sessions.begin() as db:
        await db.execute(text(statement), values)


async def test_what_the_form_says_is_stored_and_the_page_says_so(alice: User) -> None:
    window = await opened(alice)

    saved = await window.save(
        reminders=None,
        reminder_minutes=["5", "60"],
        message_preview="full",
        quiet="on",
        starts="22:30",
        ends="06:00",
        time_zone="Asia/Tokyo",
        mode="withhold",
    )
    page = await window.get(saved.headers["location"].removeprefix(PAGE))

    assert (saved.status_code, saved.headers["location"], saved.text) == (303, f"{PAGE}?saved", "")
    quiet = {"starts": "22:30", "ends": "06:00", "time_zone": "Asia/Tokyo", "mode": "withhold"}
    expected = {"reminders": False, "reminder_minutes": [60, 5], "message_preview": "full", "quiet_hours": quiet}
    assert await stored(alice) == DEFAULTS | expected | {"rev": 1}
    assert fields_of(page.text)["reminder_minutes"] == ["60", "5", ""]
    assert 'role="status"' in page.text
    assert 'role="status"' not in (await window.get()).text


async def test_to_look_changes_nothing_and_nor_does_to_save_what_is_there(alice: User) -> None:
    window = await opened(alice)
    for query in ("", "?saved", "?messages_stopped", "?reminders=off", "?what=messages"):
        assert (await window.get(query)).status_code == 200
    for path in (STOP, SIGN_OUT):
        assert (await ask(alice.stack, path, cookie=f"{COOKIE}={window.cookie}")).status_code == 404

    assert await stored(alice) == DEFAULTS
    assert (await window.save()).status_code == 303
    assert await stored(alice) == DEFAULTS
    assert (await window.get()).status_code == 200


async def test_a_form_that_breaks_the_rules_is_shown_again_with_what_was_typed(alice: User) -> None:
    window = await opened(alice)

    answer = await window.save(reminder_minutes=["10", "soon"], messages=None, quiet="on", starts="25:00")

    assert (answer.status_code, await stored(alice)) == (422, DEFAULTS)
    again = fields_of(answer.text)
    assert again["reminder_minutes"] == ["10", "soon", ""]
    assert (again["starts"], again["quiet"], "messages" in again) == ("25:00", "on", False)
    mended = filled(again, reminder_minutes=["10"], starts="23:00")
    assert (await window.post(PAGE, mended)).status_code == 303
    quiet = NIGHT | {"starts": "23:00"}
    assert await stored(alice) == DEFAULTS | {
        "reminder_minutes": [10],
        "messages": False,
        "quiet_hours": quiet,
        "rev": 1,
    }


async def test_what_was_changed_elsewhere_meanwhile_is_shown_and_nothing_typed_is_lost(alice: User) -> None:
    window = await opened(alice)
    form = filled(await window.fields(), reminder_minutes=["45"], quiet="on", starts="21:00")
    await alice.call("PATCH", PREFERENCES, {"messages": False, "quiet_hours": NIGHT | {"ends": "08:00"}})
    elsewhere = await stored(alice)

    refused = await window.post(PAGE, form)
    assert (refused.status_code, await stored(alice)) == (409, elsewhere)
    assert 'role="alert"' in refused.text
    again = fields_of(refused.text)
    assert "messages" not in again  # as it is now
    assert (again["ends"], again["starts"], again["rev"]) == ("08:00", "21:00", "1")
    assert again["reminder_minutes"] == ["45", ""]  # as it was typed

    assert (await window.post(PAGE, again)).status_code == 303
    quiet = NIGHT | {"starts": "21:00", "ends": "08:00"}
    expected = {"messages": False, "reminder_minutes": [45], "quiet_hours": quiet, "rev": 2}
    assert await stored(alice) == DEFAULTS | expected


async def test_a_form_that_is_sent_twice_is_saved(alice: User) -> None:
    window = await opened(alice)
    form = filled(await window.fields(), messages=None, reminder_minutes=["5", "60"], quiet="on", starts="21.30")

    first = await window.post(PAGE, form)
    again = await window.post(PAGE, form)
    at_once = await asyncio.gather(*(window.post(PAGE, form) for _ in range(3)))

    saved = (303, f"{PAGE}?saved")
    assert {(each.status_code, each.headers.get("location")) for each in (first, again, *at_once)} == {saved}
    expected = {"messages": False, "reminder_minutes": [60, 5], "quiet_hours": NIGHT | {"starts": "21:30"}, "rev": 1}
    assert await stored(alice) == DEFAULTS | expected


async def test_two_clicks_on_save_are_one_change(alice: User) -> None:
    window = await opened(alice)
    form = filled(await window.fields(), messages=None)

    clicks = await asyncio.gather(*(window.post(PAGE, form) for _ in range(4)))

    assert [each.status_code for each in clicks] == [303] * 4
    assert await stored(alice) == DEFAULTS | {"messages": False, "rev": 1}


@pytest.mark.parametrize("rev", ["", "1", "-1", "x", '0", "1', "*", "\u0660", "9" * 500])
async def test_a_form_of_no_revision_changes_nothing(alice: User, rev: str) -> None:
    window = await opened(alice)

    answer = await window.save(messages=None, rev=rev, base=["nonsense", "[" * 100][len(rev) % 2])

    assert (answer.status_code, await stored(alice)) == (409, DEFAULTS)


async def test_of_two_windows_that_save_at_once_one_is_told_of_the_other(alice: User) -> None:
    windows = [await opened(alice) for _ in range(4)]
    forms = [filled(await window.fields(), reminder_minutes=[str(each)]) for each, window in enumerate(windows)]

    answers = await asyncio.gather(*(w.post(PAGE, form) for w, form in zip(windows, forms, strict=True)))

    assert sorted(answer.status_code for answer in answers) == [303, 409, 409, 409]
    assert (await stored(alice))["rev"] == 1


async def test_one_press_stops_reminders_or_messages_whatever_was_changed_meanwhile(alice: User) -> None:
    window = await opened(alice)
    token = (await window.fields())["csrf_token"]
    await alice.call("PATCH", PREFERENCES, {"reminder_minutes": [5]})

    answers = [
        await window.post(STOP, {"csrf_token": token, "what": what}) for what in ("messages", "reminders", "messages")
    ]
    page = await window.get("?messages_stopped")

    places = [f"{PAGE}?{what}_stopped" for what in ("messages", "reminders", "messages")]
    assert [(each.status_code, each.headers["location"]) for each in answers] == [(303, place) for place in places]
    assert 'role="status"' in page.text
    off = {"reminders": False, "messages": False, "reminder_minutes": [5], "rev": 3}
    assert await stored(alice) == DEFAULTS | off
    for what in ("", "everything", "quiet_hours"):
        assert (await window.post(STOP, {"csrf_token": token, "what": what})).status_code == 403


async def test_a_form_needs_the_token_of_its_own_page(alice: User, bob: User) -> None:
    window, other = await opened(alice), await opened(bob)
    form = filled(await window.fields(), messages=None, what="messages")
    wrong = [None, "", "A" * 43, str((await other.fields())["csrf_token"]), "é"]

    for path in FORMS:
        for token in wrong:
            answer = await window.post(path, filled(form, csrf_token=token))
            assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)

    assert [await stored(user) for user in (alice, bob)] == [DEFAULTS, DEFAULTS]
    assert (await window.get()).status_code == 200  # open still, whatever was sent


async def test_another_persons_link_takes_the_browser_over_and_no_form_of_before_counts(alice: User, bob: User) -> None:
    stack = alice.stack
    before = await opened(alice)
    form = filled(await before.fields(), messages=None, what="messages")

    followed = await ask(stack, await link(bob), cookie=f"{COOKIE}={before.cookie}")
    window = Window(stack, value(followed))
    await window.save(reminder_minutes=["7"])

    for path in FORMS:  # alice's page is still on the screen in another tab
        assert (await window.post(path, form)).status_code == 403
    assert await stored(alice) == DEFAULTS
    assert await stored(bob) == DEFAULTS | {"reminder_minutes": [7], "rev": 1}
    assert (await before.get()).status_code == 404  # nor does her cookie open anything any more
    assert fields_of((await window.get()).text)["reminder_minutes"] == ["7", ""]


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "cross-site", "origin": "null"},
        {"origin": "https://elsewhere.example"},
        {"origin": "http://[", "sec-fetch-site": "cross-site"},
    ],
)
async def test_a_form_of_another_site_is_refused_even_with_the_right_token(
    alice: User, headers: dict[str, str]
) -> None:
    window = await opened(alice)
    form = filled(await window.fields(), messages=None, what="messages")
    sent = {"cookie": f"{COOKIE}={window.cookie}", **headers}
    mail = await link(alice, {"for": "email"})

    for path in (*FORMS, mail):
        answer = await ask(alice.stack, path, "POST", form, **sent)
        assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)

    assert await stored(alice) == DEFAULTS
    assert (await ask(alice.stack, mail, "HEAD")).status_code == 200  # it is not used up


@pytest.mark.parametrize("headers", [{}, {"origin": "null"}])
async def test_an_older_browser_that_tells_no_site_may_save(alice: User, headers: dict[str, str]) -> None:
    """Safari before 16.4: under our referrer policy its origin is null. The form's token tells enough."""
    window = await opened(alice)
    form = filled(await window.fields(), messages=None)

    answer = await ask(alice.stack, PAGE, "POST", form, cookie=f"{COOKIE}={window.cookie}", **headers)

    assert (answer.status_code, (await stored(alice))["messages"]) == (303, False)


async def test_an_older_browser_may_save_behind_a_proxy_that_writes_another_host(detached: StackPlace) -> None:
    """It tells no site, and where it names its origin that is none of ours but by `PUBLIC_URL`."""
    app = make_app(detached, PUBLIC_URL="https://push.example", **UNLIMITED)
    async with make_stack(detached, app) as stack:
        alice = stack.user()
        mail = await link(alice, {"for": "email"})
        answers = [await ask(stack, mail, "POST", origin=f"https://{each}.example") for each in ("evil.push", "push")]
        cookie = f"__Secure-{COOKIE}={value(answers[-1])}"
        form = filled(fields_of((await ask(stack, PAGE, cookie=cookie)).text), messages=None)
        origins = (
            "https://elsewhere.example",
            "http://push.example",
            "https://push.example:8443",
            "https://push.example",
        )
        answers += [await ask(stack, PAGE, "POST", form, cookie=cookie, origin=each) for each in origins]
        preferences = await stored(alice)

    assert [each.status_code for each in answers] == [403, 303, 403, 403, 403, 303]
    assert preferences == DEFAULTS | {"messages": False, "rev": 1}


@pytest.mark.parametrize("sent", ["multipart/form-data; boundary=b", "application/json", "text/plain"])
async def test_what_no_form_of_ours_sends_is_refused(alice: User, sent: str) -> None:
    window = await opened(alice)
    token = (await window.fields())["csrf_token"]
    part = f'--b\r\nContent-Disposition: form-data; name="csrf_token"\r\n\r\n{token}\r\n--b--\r\n'.encode()
    headers = {"cookie": f"{COOKIE}={window.cookie}", "sec-fetch-site": "same-origin", "content-type": sent}

    for path in FORMS:
        assert (await alice.stack.http.post(path, content=part, headers=headers)).status_code == 403
    too_large = await window.save(starts="x" * 70_000)

    assert too_large.status_code == 413
    assert await stored(alice) == DEFAULTS


async def test_closing_the_page_takes_the_cookie_and_its_worth(alice: User) -> None:
    window, other = await opened(alice), await opened(alice)
    form = await window.fields()

    answer = await window.post(SIGN_OUT, form)

    assert (answer.status_code, "Max-Age=0" in answer.headers["set-cookie"]) == (200, True)
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert "Path=/preferences" in answer.headers["set-cookie"]
    assert (await window.get()).status_code == 404
    assert (await window.post(PAGE, form)).status_code == 404
    assert (await other.get()).status_code == 200  # another browser of hers


async def test_an_open_page_lasts_an_hour_from_the_last_visit_and_twelve_in_all(alice: User) -> None:
    stack = alice.stack
    visited, left, old = [await opened(alice) for _ in range(3)]

    async def lasts(window: Window) -> timedelta:
        assert (await window.get()).status_code == 200
        [row] = await stack.rows(
            "SELECT expires_at FROM preference_sessions WHERE digest = sha256(CAST(:value AS bytea))",
            value=window.cookie.encode(),
        )
        rest: timedelta = row.expires_at - datetime.now(UTC)
        return rest

    aged = "UPDATE preference_sessions SET {} WHERE digest = sha256(CAST(:value AS bytea))"
    soon = aged.format("expires_at = now() + interval '10 minutes'")
    await change(stack, soon, value=visited.cookie.encode())
    await change(stack, aged.format("expires_at = now() - interval '1 ms'"), value=left.cookie.encode())
    longest = "created_at = now() - interval '11 hours 50 minutes', expires_at = now() + interval '2 minutes'"
    await change(stack, aged.format(longest), value=old.cookie.encode())

    assert timedelta(minutes=59) < await lasts(visited) <= timedelta(hours=1)
    assert timedelta(minutes=9) < await lasts(old) <= timedelta(minutes=10)
    assert (await left.get()).status_code == 404


async def test_forms_of_one_person_are_limited_and_nobody_elses(alice: User, bob: User) -> None:
    window, other = await opened(alice), await opened(bob)
    form = await window.fields()

    answers = [await window.post(PAGE, form) for _ in range(2 * POSTS)]

    assert [answer.status_code for answer in answers][:POSTS] == [303] * POSTS
    refused = next(answer for answer in answers if answer.status_code != 303)
    assert (refused.status_code, int(refused.headers["retry-after"]) >= 1) == (429, True)
    assert (await other.save()).status_code == 303
    assert (await window.get()).status_code == 200


async def test_every_answer_keeps_the_browser_on_a_short_leash(alice: User) -> None:
    window = await opened(alice)
    form = await window.fields()
    stack, cookie = alice.stack, {"cookie": f"{COOKIE}={window.cookie}"}
    style = re.findall(r'<link rel="stylesheet" href="([^"]+)"', (await window.get()).text)
    answers = {
        "page": await window.get(),
        "saved": await window.save(),
        "refused": await window.save(reminder_minutes="x"),
        "conflict": await window.save(rev="9", messages=None),
        "other form": await window.post(PAGE, {}),
        "gone": await ask(stack, PAGE),
        "bad code": await ask(stack, f"{PAGE}x"),
        "opened": await ask(stack, await link(alice)),
        "mail": await ask(stack, await link(alice, {"for": "email"})),
        "no method": await ask(stack, PAGE, "DELETE", **cookie),
        "signed out": await window.post(SIGN_OUT, form),
        "style": await ask(stack, style[0]),
    }

    statuses = [200, 303, 422, 409, 403, 404, 404, 303, 200, 405, 200, 200]
    assert [answer.status_code for answer in answers.values()] == statuses
    for name, answer in answers.items():
        headers = answer.headers
        assert headers["content-security-policy"] == (
            "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
        ), name
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == ("public, max-age=31536000, immutable" if name == "style" else "no-store")
        assert "<script" not in answer.text


async def test_the_page_is_found_without_its_last_slash(api: Stack) -> None:
    answer = await ask(api, "/preferences")

    assert (answer.status_code, answer.headers["location"]) == (303, PAGE)


@pytest.mark.parametrize(
    ("asked", "phone", "shown"),
    [
        (None, None, "en"),
        (None, "de_AT", "de-AT"),
        ("fi, de-CH;q=0.7, en;q=0.5", None, "de-CH"),
        ("en;q=0.1, de;q=0.9", "en", "de"),
        ("de;q=0, en", None, "en"),
        ("fi, tlh;q=0.5, *;q=0.1", "de", "de"),
        ("fi", "el", "en"),
        ("de;q=much", "en-GB", "en-GB"),
        ("<b>, ?!, de-" + "x" * 3000, None, "de"),
        (", ;q=1,,", None, "en"),
    ],
)
async def test_the_page_is_in_the_browsers_language_else_in_the_phones(
    alice: User, asked: str | None, phone: str | None, shown: str
) -> None:
    await alice.register(iphone(), **({"locale": phone} if phone else {}))
    window = await opened(alice)
    headers = {} if asked is None else {"accept-language": asked}

    page = await window.get(**headers)

    assert re.findall(r'<html lang="([^"]*)"', page.text) == [shown]


async def test_the_page_tells_of_fasts_and_phones_and_of_what_a_system_blocks(alice: User) -> None:
    await alice.register(iphone(), time_zone="Asia/Tokyo", permission="denied", os_version="18.1", app_version="2.3")
    await alice.register(android(), time_zone="Europe/Berlin", permission="granted")
    window = await opened(alice)
    before = words(await window.get())
    session_id = await alice.start_fast(due_in=7200, minutes=(45, 90))

    page = words(await window.get())
    await alice.cancel(session_id)

    assert "45 minutes" in page
    assert "45 minutes" not in before
    assert "1 hour, 30 minutes" in page
    for told in ("iPhone", "18.1", "2.3", "Android"):
        assert told in page
    assert words(await window.get()) == before


async def test_what_cannot_be_read_of_one_row_keeps_nobody_from_the_page(alice: User) -> None:
    stack, phones = alice.stack, (iphone(), android(), iphone())
    await alice.register(*phones, locale="de", time_zone="Europe/Berlin")
    await alice.call("PATCH", PREFERENCES, {"quiet_hours": NIGHT})
    window = await opened(alice)
    fasts = [await alice.start_fast(due_in=3600) for _ in range(2)]
    odd = {
        "time_zone": "Mars/Olympus",
        "locale": "\u202e<b>",
        "permission": "perhaps",
        "app_version": "<script>alert(1)</script>",
        "last_seen_at": datetime(9999, 12, 31, tzinfo=UTC),
    }
    values = ", ".join(f"{name} = :{name}" for name in odd)
    broken = f"UPDATE device_tokens SET {values} WHERE token = :token"
    await change(stack, broken, token=phones[0].token, **odd)
    await change(stack, "UPDATE device_tokens SET provider = 'carrier-pigeon' WHERE token = :t", t=phones[1].token)
    await change(stack, "UPDATE fasting_sessions SET ends_at = 'infinity' WHERE id = :id", id=fasts[0])
    words_of_tomorrow = "reminder_preview = 'hologram', quiet_mode = 'whisper', reminder_minutes = '{30, 99999}'"
    await change(stack, f"UPDATE preferences SET {words_of_tomorrow} WHERE user_id = :user", user=alice.user_id)

    page = await window.get()
    saved = await window.save(messages=None)

    assert page.status_code == 200
    assert "<script>" not in page.text
    assert saved.status_code == 303
    query = "SELECT messages, reminder_preview, quiet_mode, reminder_minutes FROM preferences WHERE user_id = :user"
    assert await stack.rows(query, user=alice.user_id) == [(False, "hologram", "whisper", [30, 99999])]


async def test_a_zone_that_this_machine_does_not_know_stays_while_nobody_chooses_another(alice: User) -> None:
    await alice.call("PATCH", PREFERENCES, {"quiet_hours": NIGHT})
    query = "UPDATE preferences SET quiet_time_zone = 'Mars/Olympus' WHERE user_id = :user"
    await change(alice.stack, query, user=alice.user_id)
    session_id = await alice.start_fast(due_in=3600)
    window = await opened(alice)

    page = words(await window.get())
    saved = await window.save(messages=None)
    await alice.cancel(session_id)

    assert "(UTC)." in page  # where no clock is known
    assert saved.status_code == 303
    zone = await alice.stack.rows("SELECT quiet_time_zone FROM preferences WHERE user_id = :u", u=alice.user_id)
    assert zone == [("Mars/Olympus",)]


async def test_a_database_that_is_away_is_reported_in_a_page(detached: StackPlace) -> None:
    async with make_stack(detached, make_app(detached, **UNLIMITED)) as stack:
        window = await opened(stack.user())
        async with stack.sessions.begin() as db:
            await db.execute(text("LOCK TABLE preference_sessions IN ACCESS EXCLUSIVE MODE"))
            answer = await window.get()
        assert (await window.get()).status_code == 200

    assert (answer.status_code, answer.headers["content-type"]) == (503, "text/html; charset=utf-8")
