"""Device tokens: registered, rotated, reactivated, transferred, signed out; never two owners of one token."""

import asyncio
import base64
import json
import secrets
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from sqlalchemy import text

from db import device_tokens
from db.device_tokens import DeadToken
from tests.stack import Phone, Stack, User, android, iphone


async def register(user: User, phone: Phone, **more: Any) -> dict[str, Any]:
    body = {"provider": phone.provider, "token": phone.token, **more}
    answer = await user.call("PUT", f"/v1/device-tokens/{phone.installation_id}", body)
    assert answer.status_code == 200, answer.text
    row: dict[str, Any] = answer.json()
    return row


async def sign_out(user: User, installation_id: UUID) -> None:
    answer = await user.call("DELETE", f"/v1/device-tokens/{installation_id}")
    assert (answer.status_code, answer.content) == (204, b"")


async def listed(user: User) -> list[dict[str, Any]]:
    answer = await user.call("GET", "/v1/device-tokens")
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()["items"]
    return rows


async def states(user: User) -> list[tuple[str, bool, str | None, bool]]:
    return [
        (row["token"], row["active"], row["inactive_reason"], row["refresh_required"]) for row in await listed(user)
    ]


async def events(user: User) -> list[tuple[str, str, str | None]]:
    query = (
        "SELECT right(token, 6), event, reason FROM device_token_events e JOIN device_tokens d ON d.id = e.device_id"
        " WHERE user_id = :user ORDER BY e.id"
    )
    return [(token, event, reason) for token, event, reason in await user.stack.rows(query, user=user.user_id)]


async def invalidate(stack: Stack, row: dict[str, Any], token: str, seen_dead_at: datetime | None = None) -> bool:
    dead = DeadToken(UUID(row["id"]), token, seen_dead_at or datetime.now(UTC), "Unregistered")
    async with stack.sessions.begin() as db:
        return bool(await device_tokens.invalidate_all(db, [dead]))


async def test_a_registration_is_answered_with_the_whole_row_and_six_characters_of_its_token(alice: User) -> None:
    phone = Phone("apns", "A1" * 28 + "23ABCDEF")
    told = {
        "environment": "sandbox",
        "app_id": "com.example.fast",
        "locale": "de-AT",
        "time_zone": "Europe/Vienna",
        "app_version": "1.2 (3)",
        "os_version": "18.1",
        "permission": "provisional",
    }

    row = await register(alice, phone, **told)

    assert UUID(row.pop("id"))
    assert datetime.fromisoformat(row.pop("registered_at")) <= datetime.fromisoformat(row.pop("last_seen_at"))
    assert row == told | {
        "installation_id": str(phone.installation_id),
        "provider": "apns",
        "token": "abcdef",
        "active": True,
        "inactive_reason": None,
        "refresh_required": False,
        "has_public_key": False,
    }


async def test_what_is_left_out_has_its_default(alice: User) -> None:
    row = await register(alice, android())

    assert row["environment"] == "production"
    assert {row[name] for name in ("app_id", "locale", "time_zone", "app_version", "os_version", "permission")} == {
        None
    }


async def test_a_public_key_belongs_to_the_registration_and_is_not_shown(alice: User, bob: User) -> None:
    phone, key = iphone(), X25519PrivateKey.generate().public_key().public_bytes_raw()
    base64_key = base64.b64encode(key).decode()

    async def stored() -> list[tuple[str, bytes | None]]:
        query = "SELECT user_id, public_key FROM device_tokens WHERE active AND token = :token"
        return [(row.user_id, row.public_key) for row in await alice.stack.rows(query, token=phone.token)]

    row = await register(alice, phone, public_key=base64_key)
    assert row["has_public_key"]
    assert base64_key not in str(row)
    assert await stored() == [(alice.user_id, key)]

    assert not (await register(alice, phone))["has_public_key"]
    assert await stored() == [(alice.user_id, None)]

    await register(alice, phone, public_key=base64_key)
    await register(bob, phone)
    assert await stored() == [(bob.user_id, None)]


async def test_registering_again_keeps_the_row_and_takes_what_changed(alice: User) -> None:
    phone = iphone()
    first = await register(alice, phone, locale="de", app_version="1")

    second = await register(alice, phone, locale="en")

    assert (second["id"], second["locale"], second["app_version"]) == (first["id"], "en", None)
    assert datetime.fromisoformat(second["registered_at"]) > datetime.fromisoformat(first["registered_at"])
    assert await events(alice) == [(phone.token[-6:], "registered", None)]


async def test_a_new_token_takes_the_old_ones_place_on_its_installation(alice: User) -> None:
    old = iphone()
    new = Phone("apns", secrets.token_hex(32), old.installation_id)
    await register(alice, old)

    await register(alice, new)

    assert await states(alice) == [
        (new.token[-6:], True, None, False),
        (old.token[-6:], False, "rotated", False),
    ]
    assert await events(alice) == [
        (old.token[-6:], "registered", None),
        (old.token[-6:], "rotated", None),
        (new.token[-6:], "registered", None),
    ]


async def test_an_installation_may_change_its_provider(alice: User) -> None:
    old = iphone()
    new = Phone("fcm", android().token, old.installation_id)
    await register(alice, old)

    await register(alice, new)

    assert [(row["provider"], row["active"]) for row in await listed(alice)] == [("fcm", True), ("apns", False)]


async def test_the_spelling_of_an_apns_token_makes_no_second_one(alice: User) -> None:
    phone = iphone()
    first = await register(alice, phone)

    second = await register(alice, Phone("apns", phone.token.upper(), phone.installation_id))

    assert second["id"] == first["id"]


async def test_the_same_characters_are_another_token_at_another_provider(alice: User, bob: User) -> None:
    token = secrets.token_hex(32)

    await register(alice, Phone("apns", token))
    await register(bob, Phone("fcm", token))

    assert await states(alice) == await states(bob) == [(token[-6:], True, None, False)]


async def test_signing_out_and_in_again_reactivates_the_row(alice: User) -> None:
    phone = iphone()
    first = await register(alice, phone)

    await sign_out(alice, phone.installation_id)
    assert await states(alice) == [(phone.token[-6:], False, "signed_out", False)]
    second = await register(alice, phone)

    assert second["id"] == first["id"]
    assert await states(alice) == [(phone.token[-6:], True, None, False)]
    assert [event for _, event, _ in await events(alice)] == ["registered", "signed_out", "reactivated"]


async def test_a_token_moves_to_the_account_that_registers_it_on_another_installation(alice: User, bob: User) -> None:
    phone = android()
    await register(alice, phone)

    await register(bob, Phone("fcm", phone.token))

    assert await states(alice) == [(phone.token[-6:], False, "transferred", False)]
    assert await states(bob) == [(phone.token[-6:], True, None, False)]
    assert [event for _, event, _ in await events(alice)] == ["registered", "transferred"]
    assert [event for _, event, _ in await events(bob)] == ["registered"]


async def test_a_token_moves_between_two_installations_of_one_account(alice: User) -> None:
    phone = android()
    await register(alice, phone)

    await register(alice, Phone("fcm", phone.token))

    assert await states(alice) == [
        (phone.token[-6:], True, None, False),
        (phone.token[-6:], False, "transferred", False),
    ]


async def test_an_installation_moves_to_the_account_that_signs_in_on_it(alice: User, bob: User) -> None:
    hers = iphone()
    his = Phone("apns", secrets.token_hex(32), hers.installation_id)
    await register(alice, hers)

    await register(bob, his)

    assert await states(alice) == [(hers.token[-6:], False, "transferred", False)]
    assert await states(bob) == [(his.token[-6:], True, None, False)]


async def test_a_token_that_moves_there_and_back_has_its_whole_history(alice: User, bob: User) -> None:
    phone = iphone()
    for user in (alice, bob, alice):
        await register(user, phone)

    assert [event for _, event, _ in await events(alice)] == ["registered", "transferred", "reactivated"]
    assert [event for _, event, _ in await events(bob)] == ["registered", "transferred"]


async def test_a_late_sign_out_cannot_hurt_the_next_owner(alice: User, bob: User) -> None:
    phone = iphone()
    await register(alice, phone)
    await register(bob, phone)

    await sign_out(alice, phone.installation_id)

    assert await states(bob) == [(phone.token[-6:], True, None, False)]
    assert await states(alice) == [(phone.token[-6:], False, "transferred", False)]


async def test_signing_out_is_always_answered_with_204(alice: User) -> None:
    phone = iphone()
    await register(alice, phone)

    for _ in range(2):
        await sign_out(alice, phone.installation_id)
    await sign_out(alice, uuid4())

    assert [event for _, event, _ in await events(alice)] == ["registered", "signed_out"]


async def test_an_invalidated_token_asks_for_a_refresh_until_its_installation_registers_again(
    api: Stack, alice: User
) -> None:
    dead = iphone()
    row = await register(alice, dead)

    assert await invalidate(api, row, dead.token)
    assert await states(alice) == [(dead.token[-6:], False, "invalidated", True)]
    fresh = Phone("apns", secrets.token_hex(32), dead.installation_id)
    await register(alice, fresh)

    assert await states(alice) == [
        (fresh.token[-6:], True, None, False),
        (dead.token[-6:], False, "invalidated", False),
    ]
    assert await events(alice) == [
        (dead.token[-6:], "registered", None),
        (dead.token[-6:], "invalidated", "Unregistered"),
        (fresh.token[-6:], "registered", None),
    ]


async def test_a_token_that_was_registered_again_survives_a_providers_late_word(api: Stack, alice: User) -> None:
    phone = iphone()
    row = await register(alice, phone)
    seen_dead_at = datetime.fromisoformat(row["registered_at"])
    await register(alice, phone)

    assert not await invalidate(api, row, phone.token, seen_dead_at)
    assert await states(alice) == [(phone.token[-6:], True, None, False)]


async def test_of_many_tokens_called_dead_at_once_each_goes_for_its_own_reason_and_what_is_newer_stays(
    api: Stack, alice: User, bob: User
) -> None:
    gone, moved, again = iphone(), iphone(), iphone()
    rows = [await register(alice, gone), await register(bob, moved), await register(bob, again)]
    seen_dead_at = datetime.now(UTC)
    await register(bob, again)

    async with api.sessions.begin() as db:
        reasons = ["Unregistered", "ExpiredToken", "ExpiredToken"]
        dead = [
            device_tokens.DeadToken(UUID(row["id"]), phone.token, seen_dead_at, reason)
            for row, phone, reason in zip(rows, (gone, moved, again), reasons, strict=True)
        ]
        hit = await device_tokens.invalidate_all(db, dead)

    assert set(hit) == {UUID(row["id"]) for row in rows[:2]}
    assert await states(alice) == [(gone.token[-6:], False, "invalidated", True)]
    assert {token: active for token, active, *_ in await states(bob)} == {
        moved.token[-6:]: False,
        again.token[-6:]: True,
    }
    assert (await events(alice))[-1] == (gone.token[-6:], "invalidated", "Unregistered")
    assert (await events(bob))[-1] == (moved.token[-6:], "invalidated", "ExpiredToken")


async def test_the_list_comes_in_pages_the_last_seen_first_and_shows_nobody_elses(alice: User, bob: User) -> None:
    phones = [iphone() for _ in range(5)]
    for phone in phones:
        await register(alice, phone)
    await register(bob, iphone())

    pages: list[list[str]] = []
    more = ""
    while len(pages) < 9:
        page = (await alice.call("GET", f"/v1/device-tokens?limit=2{more}")).json()
        pages.append([item["token"] for item in page["items"]])
        if page["next_cursor"] is None:
            break
        more = f"&cursor={page['next_cursor']}"

    fifth, fourth, third, second, first = [phone.token[-6:] for phone in reversed(phones)]
    assert pages == [[fifth, fourth], [third, second], [first]]


KEY_FORM = "must be an X25519 public key: 32 bytes in base64, not of low order"
APNS_FORM = "An APNs token is hexadecimal, of even length, and has 64 to 200 digits."
FCM_FORM = "An FCM token has 32 to 4096 characters, all of them letters, digits or one of _ : . % -."
VARIETY = "A token has 8 different characters or more."
FCM_TOKEN = "f:" + "APA91bGk" * 17


@pytest.mark.parametrize(
    ("body", "field", "detail"),
    [
        ({"provider": "apns", "token": "abc"}, "token", APNS_FORM),
        ({"provider": "apns", "token": "ab" * 31}, "token", APNS_FORM),
        ({"provider": "apns", "token": "ab" * 32 + "a"}, "token", APNS_FORM),
        ({"provider": "apns", "token": "xy" * 32}, "token", APNS_FORM),
        ({"provider": "apns", "token": "ab" * 32 + "\n"}, "token", APNS_FORM),
        ({"provider": "apns", "token": "\u0661" * 64}, "token", APNS_FORM),  # Arabic ones
        ({"provider": "apns", "token": "ab" * 101}, "token", APNS_FORM),
        ({"provider": "apns", "token": ""}, "token", "String should have at least 1 character"),
        ({"provider": "fcm", "token": "a" * 31}, "token", FCM_FORM),
        ({"provider": "fcm", "token": FCM_TOKEN + " b"}, "token", FCM_FORM),
        ({"provider": "fcm", "token": FCM_TOKEN + "\n"}, "token", FCM_FORM),
        ({"provider": "fcm", "token": FCM_TOKEN + "\0"}, "token", FCM_FORM),
        ({"provider": "fcm", "token": FCM_TOKEN + "ü"}, "token", FCM_FORM),
        ({"provider": "fcm", "token": FCM_TOKEN + "/x"}, "token", FCM_FORM),
        ({"provider": "fcm", "token": "a" * 4097}, "token", "String should have at most 4096 characters"),
        ({"provider": "apns", "token": "0" * 64}, "token", VARIETY),
        ({"provider": "apns", "token": "0123456" * 10}, "token", VARIETY),
        ({"provider": "apns", "token": "abcdABCD" * 8}, "token", VARIETY),  # the same digits
        ({"provider": "fcm", "token": "0" * 32}, "token", VARIETY),
        ({"provider": "fcm", "token": "null" * 10}, "token", VARIETY),
        ({"provider": "fcm", "token": "undefined" * 4}, "token", VARIETY),
        ({"provider": "fcm", "token": 7}, "token", "Input should be a valid string"),
        ({"provider": "fcm", "token": None}, "token", "Input should be a valid string"),
        ({"provider": "fcm"}, "token", "Field required"),
        (
            {"provider": "fcm", "token": FCM_TOKEN, "environment": "sandbox"},
            "environment",
            "FCM knows only production.",
        ),
        ({"provider": "wns", "token": "a"}, "provider", "Input should be 'apns' or 'fcm'"),
        ({"token": "a"}, "provider", "Field required"),
        ({"provider": "fcm", "token": "a", "user_id": "bob"}, "user_id", "There is no such field."),
        ({"provider": "fcm", "token": "a", "public_key": "AAAA"}, "public_key", KEY_FORM),
        ({"provider": "fcm", "token": "a", "public_key": "A" * 43 + "="}, "public_key", KEY_FORM),  # of low order
        ({"provider": "fcm", "token": "a", "public_key": "A" * 42 + "é="}, "public_key", KEY_FORM),
        ({"provider": "fcm", "token": "a", "public_key": f"{'A' * 42}E=\n"}, "public_key", KEY_FORM),
        ({"provider": "fcm", "token": "a", "public_key": 7}, "public_key", "Input should be a valid string"),
    ],
)
async def test_a_registration_of_wrong_form_is_refused_and_named(
    alice: User, body: dict[str, Any], field: str, detail: str
) -> None:
    answer = await alice.call("PUT", f"/v1/device-tokens/{uuid4()}", body)

    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert (answer.json()["field"], answer.json()["errors"]) == (field, [{"field": field, "detail": detail}])
    assert await listed(alice) == []


@pytest.mark.parametrize(
    ("provider", "token"),
    [
        ("apns", "01234567" * 25),
        ("fcm", "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz0123456789:_-") for _ in range(4096))),
        ("fcm", "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_:.%-"),
        ("apns", "89abcdef" * 8),
        ("fcm", secrets.token_hex(16)),
    ],
    ids=["the longest of APNs", "the longest of FCM", "every character", "the shortest of APNs", "the shortest of FCM"],
)
async def test_a_token_at_the_limit_of_its_form_registers_and_registers_again(
    alice: User, provider: str, token: str
) -> None:
    phone = Phone(provider, token)

    rows = [await register(alice, phone) for _ in range(2)]

    assert [row["token"] for row in rows] == [token[-6:]] * 2
    [stored] = await alice.stack.rows("SELECT token FROM device_tokens WHERE user_id = :user", user=alice.user_id)
    assert stored.token == token


async def test_a_token_so_short_that_six_characters_would_give_it_away_is_not_shown(alice: User) -> None:
    row = await register(alice, android())  # a release before took shorter ones
    short = text("UPDATE device_tokens SET token = :token WHERE id = :id")
    async with alice.stack.sessions.begin() as db:
        await db.execute(short, {"token": secrets.token_hex(6), "id": UUID(row["id"])})

    [shown] = await listed(alice)

    assert shown["token"] == ""


@pytest.mark.parametrize(
    "token",
    ["null", "undefined", "(null)", "[object Object]", "nil", "None", "BLACKLISTED", "0", "token", "Optional(nil)"],
)
@pytest.mark.parametrize("provider", ["apns", "fcm"])
async def test_what_an_app_says_for_lack_of_a_token_is_refused_so_that_nobody_takes_it_from_another(
    alice: User, bob: User, provider: str, token: str
) -> None:
    for user in (alice, bob):
        answer = await user.call("PUT", f"/v1/device-tokens/{uuid4()}", {"provider": provider, "token": token})

        assert (answer.status_code, answer.json()["field"]) == (422, "token")
        assert await listed(user) == []


@pytest.mark.parametrize(
    ("told", "stored"),
    [
        ({"locale": "en_US@rg=gbzzzz"}, "en-US"),
        ({"locale": "de_DE@currency=eur"}, "de-DE"),
        ({"locale": "zh-Hans_CN"}, "zh-Hans-CN"),
        ({"locale": "zh_CN_#Hans"}, "zh-CN"),
        ({"locale": "de_DE.UTF-8"}, "de-DE"),
        ({"locale": "de AT"}, "de"),
        ({"locale": "de-" + "x" * 500}, "de"),
        ({"locale": "sr-Latn-RS-x-a-very-long-private-use-part"}, "sr-Latn-RS-x-a-very-long-private"),
        ({"locale": "d\0e"}, None),
        ({"locale": ""}, None),
        ({"locale": "C"}, None),
        ({"locale": "POSIX"}, None),
        ({"locale": "\U0001f1e9\U0001f1ea"}, None),
        ({"locale": "\ud800"}, None),
        ({"locale": 7}, None),
        ({"locale": ["de"]}, None),
        ({"time_zone": "GMT+02:00"}, "Etc/GMT-2"),
        ({"time_zone": "GMT+0200"}, "Etc/GMT-2"),
        ({"time_zone": "UTC+2"}, "Etc/GMT-2"),
        ({"time_zone": "GMT-03:00"}, "Etc/GMT+3"),
        ({"time_zone": "Etc/GMT-2"}, "Etc/GMT-2"),
        ({"time_zone": "EST5EDT"}, "EST5EDT"),
        ({"time_zone": "europe/berlin"}, "Europe/Berlin"),
        ({"time_zone": "GMT"}, "GMT"),
        ({"time_zone": "GMT+00:00"}, "Etc/GMT"),
        ({"time_zone": "GMT+05:30"}, None),
        ({"time_zone": "GMT+99"}, None),
        ({"time_zone": "Mars/Olympus"}, None),
        ({"time_zone": "../../etc/passwd"}, None),
        ({"time_zone": "localtime"}, None),  # of whose machine?
        ({"time_zone": "Factory"}, None),  # of a machine whose zone was never set
        ({"time_zone": "Europe"}, None),
        ({"time_zone": "Europe/Berlin\0"}, None),
        ({"time_zone": "x" * 10_000}, None),
        ({"time_zone": {"name": "UTC"}}, None),
        ({"app_version": "1.2 (3)"}, "1.2 (3)"),
        ({"app_version": "v1\n\0\ud800 \u200b\U0001f600"}, "v1 \U0001f600"),
        ({"app_version": "1" * 51}, "1" * 50),
        ({"app_version": "\0"}, None),
        ({"app_version": 12}, None),
        ({"app_version": True}, None),
    ],
    ids=lambda each: ascii(each)[:40],
)
async def test_what_only_describes_a_phone_is_put_in_order_or_left_out_and_the_token_is_active(
    alice: User, told: dict[str, Any], stored: str | None
) -> None:
    [(field, value)] = told.items()
    phone = iphone()
    body = json.dumps({"provider": phone.provider, "token": phone.token, field: value})

    answer = await alice.stack.http.put(
        f"/v1/device-tokens/{phone.installation_id}",
        content=body,
        headers=alice.headers | {"content-type": "application/json"},
    )

    assert answer.status_code == 200, answer.text
    assert (answer.json()["active"], answer.json()[field]) == (True, stored)


async def active_owners(stack: Stack, token: str) -> list[str]:
    return [
        row.user_id
        for row in await stack.rows("SELECT user_id FROM device_tokens WHERE active AND token = :t", t=token)
    ]


async def test_two_accounts_that_register_one_token_at_once_leave_it_exactly_one_owner(
    api: Stack, alice: User, bob: User
) -> None:
    tokens = [secrets.token_hex(32) for _ in range(200)]

    for token in tokens:
        phones = Phone("apns", token), Phone("apns", token)
        await asyncio.gather(*(register(user, phone) for user, phone in zip((alice, bob), phones, strict=True)))

    owners = "SELECT token, count(*) FROM device_tokens WHERE active AND token = ANY(:tokens) GROUP BY token"
    assert dict(await api.rows(owners, tokens=tokens)) == dict.fromkeys(tokens, 1)
    transferred = await api.rows(
        "SELECT 1 FROM device_token_events e JOIN device_tokens d ON d.id = e.device_id"
        " WHERE event = 'transferred' AND user_id IN (:alice, :bob)",
        alice=alice.user_id,
        bob=bob.user_id,
    )
    assert len(transferred) == 200  # each round had a loser, and its row says so
    takers = await api.rows(
        "SELECT DISTINCT e.taken_by, d.user_id FROM device_token_events e JOIN device_tokens d ON d.id = e.device_id"
        " WHERE event = 'transferred' AND user_id IN (:alice, :bob)",
        alice=alice.user_id,
        bob=bob.user_id,
    )
    assert {tuple(each) for each in takers} <= {(alice.user_id, bob.user_id), (bob.user_id, alice.user_id)}


async def test_a_crowd_that_swaps_tokens_and_installations_leaves_one_owner_of_each(api: Stack) -> None:
    users = [api.user() for _ in range(4)]
    tokens = [secrets.token_hex(32) for _ in range(3)]
    installations = [uuid4() for _ in range(3)]

    async def meddle(turn: int) -> None:
        user, installation_id = users[turn % 4], installations[turn // 4 % 3]
        body, path = {"provider": "apns", "token": tokens[turn % 3]}, f"/v1/device-tokens/{installation_id}"
        while (await user.call("PUT", path, body)).status_code != 200:
            pass  # 503: gave up on a lock; an app that repeats does no harm
        while turn % 5 == 0 and (await user.call("DELETE", path)).status_code != 204:
            pass

    async with asyncio.TaskGroup() as crowd:  # if one fails the others end: their writes would be noise in later tests
        for turn in range(60):
            crowd.create_task(meddle(turn))

    for token in tokens:
        assert len(await active_owners(api, token)) <= 1
    await asyncio.gather(*(register(users[0], Phone("apns", tokens[i], installations[i])) for i in range(3)))
    assert [await active_owners(api, token) for token in tokens] == [[users[0].user_id]] * 3
