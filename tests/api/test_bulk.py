"""Batches: each item gets the answer of its single route, in order; one that is refused fails alone."""

import asyncio
import json
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from api.bounds import LARGEST_BATCH
from api.dependencies import MAX_BATCHES_OF_ONE
from api.http.problems import Detail
from api.writes import PATIENCE
from tests.busy import soon
from tests.stack import Phone, Stack, StackPlace, User, android, eventually, iphone, make_app, make_stack, uncommitted
from tests.support.dead import dead_task

FASTS, TOKENS = "/v1/fasting-sessions/batch", "/v1/device-tokens/batch"


@pytest.fixture
def backend(api: Stack) -> User:
    """A backend."""
    return api.user("backend", "service")


def start(user_id: str, session_id: UUID | str | None = None, **more: Any) -> dict[str, Any]:
    """Make an item that starts a fast of an hour."""
    ends_at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    item = {"user_id": user_id, "session_id": str(session_id or uuid4()), "op": "start", "ends_at": ends_at}
    return item | {"reminder_minutes": [30]} | more


def about(started: dict[str, Any], op: str, **more: Any) -> dict[str, Any]:
    """Make a later item about the same fast."""
    return {"user_id": started["user_id"], "session_id": started["session_id"], "op": op, **more}


def register(user_id: str, phone: Phone, **more: Any) -> dict[str, Any]:
    """Make an item that registers a phone."""
    own = {"user_id": user_id, "installation_id": str(phone.installation_id), "op": "register"}
    return own | {"provider": phone.provider, "token": phone.token} | more


async def results(backend: User, path: str, *items: object) -> list[dict[str, Any]]:
    """Send a batch that is accepted; gives its results."""
    answer = await backend.call("POST", path, {"items": items})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


def said(found: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Give statuses, with the type and field of each problem."""
    return [
        (each["status"], each["problem"]["type"].rpartition(":")[2], each["problem"].get("field"))
        if "problem" in each
        else (each["status"],)
        for each in found
    ]


async def test_each_item_gets_the_answer_of_its_single_route(api: Stack, backend: User) -> None:
    alice, bob = api.user(), api.user()
    running = await alice.start_fast(due_in=3600)
    over = await alice.start_fast(due_in=3600)
    await alice.cancel(over)
    fresh, again = start(alice.user_id), start(bob.user_id)
    of_alice = {"user_id": alice.user_id, "session_id": str(running)}
    later = (datetime.now(UTC) + timedelta(hours=5)).isoformat()

    found = await results(
        backend,
        FASTS,
        fresh,
        again,
        again,
        about(again, "move", reminder_minutes=[5, 10]),
        again | {"ends_at": later},
        of_alice | {"op": "move", "ends_at": later},
        of_alice | {"op": "end"},
        of_alice | {"op": "end"},
        of_alice | {"op": "cancel"},
        {"user_id": bob.user_id, "session_id": str(running), "op": "end"},
        start(bob.user_id, running),
        about(fresh, "end") | {"session_id": str(uuid4())},
        {"user_id": alice.user_id, "session_id": str(over), "op": "move", "ends_at": later},
        start(alice.user_id, ends_at="2020-01-01T00:00:00Z"),
        start(alice.user_id, ends_at=later, started_at="2020-01-01T00:00:00Z"),
        start(alice.user_id) | {"reminder_minutes": None},
    )

    assert said(found) == [
        (201,),
        (201,),
        (200,),
        (200,),
        (409, "session-exists", None),
        (200,),
        (200,),
        (200,),
        (409, "session-finished", None),
        (404, "not-found", None),
        (404, "not-found", None),
        (404, "not-found", None),
        (409, "session-finished", None),
        (422, "invalid-request", "ends_at"),
        (422, "invalid-request", "ends_at"),
        (201,),
    ]
    assert [each["session_id"] for each in found[:2]] == [fresh["session_id"], again["session_id"]]
    shown = (await bob.call("GET", f"/v1/fasting-sessions/{again['session_id']}")).json()
    assert ([each["minutes"] for each in shown["reminders"]], shown["rev"]) == ([10, 5], 2)
    assert (await alice.call("GET", f"/v1/fasting-sessions/{running}")).json()["status"] == "broken"
    single = await alice.call("PUT", f"/v1/fasting-sessions/{fresh['session_id']}", body_of(fresh))
    assert single.status_code == 200  # the same request, whichever way it came
    owed = "SELECT count(*) FROM outbox WHERE subject_id = :id"
    assert (await api.rows(owed, id=again["session_id"]))[0][0] <= 1


def body_of(item: dict[str, Any]) -> dict[str, Any]:
    """Give the body of the single route."""
    return {name: value for name, value in item.items() if name not in {"user_id", "session_id", "op"}}


MALFORMED: dict[str, tuple[Any, str, str]] = {  # the item, the echo of its id, the field that is wrong
    "null": (None, "", "items[1]"),
    "a list": ([], "", "items[3]"),
    "a text": ("start", "", "items[5]"),
    "nothing": ({}, "", "op"),
    "no op": ({"session_id": "a", "user_id": "u"}, "a", "op"),
    "wrong op": ({"session_id": 7, "op": "begin"}, "7", "op"),
    "op of a wrong type": ({"session_id": None, "op": ["start"]}, "null", "op"),
    "odd id": ({"session_id": "no-uuid", "user_id": "u", "op": "end"}, "no-uuid", "session_id"),
    "NUL in the id": ({"session_id": "\0", "user_id": "u", "op": "end"}, "\0", "session_id"),
    "half a surrogate": ({"session_id": "\ud800", "user_id": "u", "op": "end"}, "?", "session_id"),
    "huge id": ({"session_id": "x" * 9000, "user_id": "u", "op": "end"}, "x" * 200, "session_id"),
    "id with content": ({"session_id": {"a": [1]}, "user_id": "u", "op": "end"}, '{"a": [1]}', "session_id"),
    "NUL in the user": ({"session_id": str(UUID(int=1)), "user_id": "a\0", "op": "end"}, str(UUID(int=1)), "user_id"),
    "long user": ({"session_id": str(UUID(int=1)), "user_id": "a" * 201, "op": "end"}, str(UUID(int=1)), "user_id"),
    "no user": ({"session_id": str(UUID(int=1)), "op": "cancel"}, str(UUID(int=1)), "user_id"),
    "unknown field": (
        {"session_id": str(UUID(int=1)), "user_id": "u", "op": "end", "ends_at": 1},
        str(UUID(int=1)),
        "ends_at",
    ),
    "huge field": (start("u", UUID(int=1), **{"f" * 9000: 1}), str(UUID(int=1)), "f" * 200),
    "no end": ({"session_id": str(UUID(int=1)), "user_id": "u", "op": "start"}, str(UUID(int=1)), "ends_at"),
    "huge number": (start("u", UUID(int=1), reminder_minutes=[10**400]), str(UUID(int=1)), "reminder_minutes.0"),
    "end beyond time": (start("u", UUID(int=1), ends_at="9999-12-31T23:59:59Z"), str(UUID(int=1)), "ends_at"),
}


async def test_a_malformed_item_is_its_own_result_and_the_others_are_done(api: Stack, backend: User) -> None:
    good = [start(api.user().user_id) for _ in MALFORMED]
    mixed = [item for pair in zip(good, [each for each, _, _ in MALFORMED.values()], strict=True) for item in pair]

    content = json.dumps({"items": mixed}).encode()
    headers = backend.headers | {"Content-Type": "application/json"}
    answer = await api.http.post(FASTS, content=content, headers=headers)

    assert answer.status_code == 200, answer.text
    found = answer.json()["items"]
    assert [each["status"] for each in found[::2]] == [201] * len(good)
    told = [(each["session_id"], each["problem"]["field"]) for each in found[1::2]]
    assert dict(zip(MALFORMED, told, strict=True)) == {
        name: (echo, field) for name, (_, echo, field) in MALFORMED.items()
    }
    assert {each["status"] for each in found[1::2]} == {422}


UNREADABLE = {  # an item as it is sent, the echo of its id, what is wrong
    "levels of lists": (b'{"session_id": "a", "op": ' + b"[" * 9000 + b"]" * 9000 + b"}", "a", Detail.ITEM_TOO_DEEP),
    "levels of objects": (b'{"a":' * 9000 + b"1" + b"}" * 9000, "", Detail.ITEM_TOO_DEEP),
    "thousands of digits": (b'{"session_id": "a", "op": ' + b"9" * 5000 + b"}", "a", Detail.NUMBER_TOO_LONG),
    "NaN": (b'{"session_id": "a", "op": NaN}', "a", Detail.ITEM_NOT_JSON),
    "Infinity": (b"-Infinity", "", Detail.ITEM_NOT_JSON),
    "a word": (b'{"op": undefined, "session_id": "a, [}"}', "a, [}", Detail.ITEM_NOT_JSON),
    "two numbers in one": (b"01", "", Detail.ITEM_NOT_JSON),
    "a field twice": (b'{"session_id": "a", "user_id": "u", "user_id": "v"}', "a", Detail.FIELD_TWICE),
    "a field twice inside": (b'{"labels": {"a": "x", "a": "y"}, "session_id": "a"}', "a", Detail.FIELD_TWICE),
    "bytes that are not UTF-8": (b'{"session_id": "a\xff", "op": "end"}', "a?", Detail.ITEM_NOT_UTF_8),
    "half a letter": (b'{"session_id": "a\xc3", "op": "end"}', "a?", Detail.ITEM_NOT_UTF_8),
    "a surrogate in UTF-8": (b'"\xed\xa0\x80"', "", Detail.ITEM_NOT_UTF_8),
    "a line break in a text": (b'{"session_id": "a\nb"}', "a\nb", Detail.ITEM_NOT_JSON),
    "an escape that is none": (b'{"session_id": "a", "op": "\\x"}', "a", Detail.ITEM_NOT_JSON),
    "half a surrogate": (b'{"session_id": "a", "user_id": "u", "op": "end", "\\ud800": 1}', "a", Detail.ITEM_NOT_UTF_8),
}  # fmt: skip


async def sent(api: Stack, backend: User, path: str, content: bytes) -> httpx.Response:
    """Send a body as it is."""
    return await api.http.post(path, content=content, headers=backend.headers | {"Content-Type": "application/json"})


@pytest.mark.parametrize(("item", "echo", "detail"), UNREADABLE.values(), ids=UNREADABLE)
async def test_an_item_that_cannot_be_read_fails_alone(
    api: Stack, backend: User, item: bytes, echo: str, detail: str
) -> None:
    fasts = [json.dumps(start(api.user().user_id)).encode() for _ in range(2)]
    phones = [json.dumps(register(api.user().user_id, iphone())).encode() for _ in range(2)]

    found = await sent(api, backend, FASTS, b'{"items": [%s, %s ,\n%s]}' % (fasts[0], item, fasts[1]))
    tokens = await sent(api, backend, TOKENS, b'{"items": [%s,%s,%s]}' % (phones[0], item, phones[1]))

    assert (found.status_code, tokens.status_code) == (200, 200), found.text + tokens.text
    first, bad, last = found.json()["items"]
    assert (first["status"], bad["status"], bad["session_id"], last["status"]) == (201, 422, echo, 201)
    assert (bad["problem"]["field"], bad["problem"]["detail"]) == ("items[1]", detail)
    assert [each["status"] for each in tokens.json()["items"]] == [200, 422, 200]


@pytest.mark.parametrize(
    "item",
    [
        *(
            b'{"session_id": "a',
            b"{",
            b"}",
            b"[}",
            b'{"a" "b"}',
            b'{"a": 1,}',
            b"{'a': 'b'}",
            b"/* x */ {}",
            b"1 2",
            b"",
        ),
        *(b'{"a": "b"} {}', b'{"a": }', b'"', b"]", b'{"a": x", "b": 1}', b"[" * 9000, b'{"a": NaN'),
    ],
)
async def test_where_it_is_not_certain_where_an_item_ends_nothing_is_done(
    api: Stack, backend: User, item: bytes
) -> None:
    alice = api.user()
    good = json.dumps(start(alice.user_id)).encode()

    answer = await sent(api, backend, FASTS, b'{"items": [%s, NaN, %s, %s]}' % (good, item, good))

    assert answer.status_code == 422
    assert answer.json()["field"] in {"items[2]", "body"}
    assert answer.json()["detail"].endswith("Nothing of the batch was done.")
    assert (await alice.call("GET", "/v1/fasting-sessions")).json()["items"] == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"items": [NaN], "items": []}', "body"),
        (b'{"items": [NaN], "more": 1}', "body"),
        (b'{"items": NaN}', "body"),
        (b'{"items": [NaN]} x', "body"),
        (b"", "body"),
        (b"[" * 9000, "body"),
        (b'{"items": [' + b"NaN," * 500 + b"NaN]}", "items"),
    ],
)
async def test_a_body_that_is_no_batch_is_refused_and_named(api: Stack, backend: User, body: bytes, field: str) -> None:
    answer = await sent(api, backend, FASTS, body)

    assert (answer.status_code, answer.json()["field"]) == (422, field)
    stranger = await sent(api, api.user(), FASTS, body)
    assert stranger.status_code == 403  # before the body is looked through


@pytest.mark.parametrize("path", [FASTS, TOKENS])
@pytest.mark.parametrize(
    "body", [{}, {"items": []}, {"items": [{}] * 501}, {"items": {}}, {"items": None}, {"items": [{}], "more": 1}, []]
)
async def test_a_batch_that_is_none_is_refused_as_a_whole(backend: User, path: str, body: object) -> None:
    answer = await backend.call("POST", path, body)

    assert (answer.status_code, answer.json()["type"]) == (422, "urn:fastbell:problem:invalid-request")


async def test_only_a_service_sends_batches(api: Stack) -> None:
    for path in (FASTS, TOKENS):
        for caller in (api.user(), api.user(None, "support")):
            answer = await caller.call("POST", path, {"items": [{}]})
            assert (answer.status_code, answer.json()["type"]) == (403, "urn:fastbell:problem:not-allowed")


async def test_a_quota_holds_within_a_batch_and_a_repeat_does_not_count(detached: StackPlace) -> None:
    async with make_stack(detached, make_app(detached, MAX_ACTIVE_FASTS_PER_USER="3")) as strict:
        backend, alice, bob = strict.user("backend", "service"), strict.user(), strict.user()
        items = [start(alice.user_id) for _ in range(5)]

        first = await results(backend, FASTS, *items, start(bob.user_id))
        again = await results(backend, FASTS, *items)
        freed = await results(backend, FASTS, about(items[0], "end"), items[4])

    too_many = (409, "too-many-active-fasts", None)
    assert said(first) == [(201,)] * 3 + [too_many] * 2 + [(201,)]
    assert said(again) == [(200,)] * 3 + [too_many] * 2
    assert said(freed) == [(200,), (201,)]


async def test_batches_that_come_twice_at_once_start_each_fast_once(api: Stack, backend: User) -> None:
    items = [start(f"twin-{number}-{uuid4()}") for number in range(100)]

    found = await asyncio.gather(*(results(backend, FASTS, *items) for _ in range(3)))

    by_item = zip(*(said(each) for each in found), strict=True)
    assert all(sorted(each) == [(200,), (200,), (201,)] for each in by_item)
    ids = [item["session_id"] for item in items]
    assert (await api.rows("SELECT count(*) FROM fasting_sessions WHERE id = ANY(:ids)", ids=ids))[0][0] == 100


async def test_of_a_batch_only_what_is_needed_soon_is_dispatched_at_once(api: Stack, backend: User) -> None:
    soon = start(api.user().user_id, ends_at=(datetime.now(UTC) + timedelta(minutes=30.9)).isoformat())
    later = [start(api.user().user_id) for _ in range(30)]

    assert said(await results(backend, FASTS, soon, *later)) == [(201,)] * 31

    async def owed(*items: dict[str, Any]) -> int:
        ids = [item["session_id"] for item in items]
        return len(await api.rows("SELECT 1 FROM outbox WHERE subject_id = ANY(:ids)", ids=ids))

    async def is_dispatched() -> bool:
        return await owed(soon) == 0

    await eventually(is_dispatched)
    assert await owed(*later) == 30  # for sweepers, which this stack does not have


async def test_a_fast_that_others_hold_fails_alone(api: Stack, backend: User) -> None:
    alice = api.user()
    held = await alice.start_fast(due_in=3600)
    items = [start(api.user().user_id) for _ in range(20)]
    end = {"user_id": alice.user_id, "session_id": str(held), "op": "end"}

    async with uncommitted(api, "SELECT 1 FROM fasting_sessions WHERE id = :id FOR UPDATE", id=held):
        sent, began = asyncio.create_task(results(backend, FASTS, *items, end)), time.monotonic()
        ids = [item["session_id"] for item in items]
        async with soon(2.5):  # they are there long before the answer
            while (await api.rows("SELECT count(*) FROM fasting_sessions WHERE id = ANY(:ids)", ids=ids))[0][0] < 20:
                await asyncio.sleep(0.02)
        took = time.monotonic() - began
    *others, of_alice = said(await sent)
    assert others == [(201,)] * 20
    assert of_alice == (200,) or took > 0.8 * PATIENCE  # a busy machine needed so long for the others


async def test_what_the_database_refuses_fails_alone(api: Stack, backend: User) -> None:
    victim = f"victim-{uuid4()}"
    items = [start(victim if number == 7 else f"other-{number}-{uuid4()}") for number in range(16)]
    refuse = (
        "CREATE FUNCTION refuse_victim() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF NEW.user_id = '{victim}' THEN RAISE check_violation; END IF; RETURN NEW; END $$"
    )
    trigger = "CREATE TRIGGER victim BEFORE INSERT ON fasting_sessions FOR EACH ROW EXECUTE FUNCTION refuse_victim()"
    async with api.sessions.begin() as db:
        await db.execute(text(refuse))
        await db.execute(text(trigger))
    try:
        found = await results(backend, FASTS, *items)
    finally:
        async with api.sessions.begin() as db:
            await db.execute(text("DROP FUNCTION refuse_victim CASCADE"))

    assert said(found) == [(500, "internal-error", None) if number == 7 else (201,) for number in range(16)]
    assert victim not in json.dumps(found)


async def test_somebody_who_is_being_erased_fails_alone(api: Stack, backend: User) -> None:
    gone, stays = api.user(), api.user()
    assert (await backend.call("DELETE", f"/v1/users/{gone.user_id}")).status_code == 202

    fasts = await results(backend, FASTS, start(gone.user_id), start(stays.user_id))
    tokens = await results(backend, TOKENS, register(gone.user_id, iphone()), register(stays.user_id, iphone()))

    assert said(fasts) == [(409, "being-erased", None), (201,)]
    assert said(tokens) == [(409, "being-erased", None), (200,)]


async def test_tokens_are_imported_and_each_gets_the_answer_of_its_single_route(api: Stack, backend: User) -> None:
    alice, bob, taken = api.user(), api.user(), iphone()
    await alice.register(taken)
    known, several = android(), [iphone() for _ in range(3)]
    await bob.register(known)
    moved = Phone(taken.provider, taken.token)  # under another installation id
    pairs: list[tuple[object, tuple[Any, ...]]] = [(register(alice.user_id, each), (200,)) for each in several]
    pairs += [
        (register(bob.user_id, moved, locale="de", time_zone="Europe/Vienna"), (200,)),
        (register(bob.user_id, known), (200,)),
        ({name: value for name, value in register(bob.user_id, android()).items() if name != "op"}, (200,)),
        (register(bob.user_id, iphone(), token="no token"), (422, "invalid-request", "token")),
        (register(bob.user_id, iphone(), app_id="no app"), (422, "invalid-request", "app_id")),
        (register(bob.user_id, iphone(), provider="mail"), (422, "invalid-request", "provider")),
        (register(bob.user_id, android(), environment="sandbox"), (422, "invalid-request", "environment")),
        (register("a\0b", iphone()), (422, "invalid-request", "user_id")),
        (register(bob.user_id, iphone(), installation_id=1), (422, "invalid-request", "installation_id")),
        ("register", (422, "invalid-request", "items[12]")),
        (register(bob.user_id, iphone(), op="forget"), (422, "invalid-request", "op")),
        (
            {"user_id": alice.user_id, "installation_id": str(several[0].installation_id), "op": "sign_out"},
            (204,),
        ),
    ]

    found = await results(backend, TOKENS, *(item for item, _ in pairs))
    again = await results(backend, TOKENS, *(item for item, _ in pairs[:5]))

    assert said(found) == [answer for _, answer in pairs]
    assert said(again) == [(200,)] * 5
    active = "SELECT installation_id FROM device_tokens WHERE active AND user_id = :user_id"
    assert {row[0] for row in await api.rows(active, user_id=alice.user_id)} == {
        each.installation_id for each in several
    }
    [imported] = await api.rows("SELECT * FROM device_tokens WHERE installation_id = :id", id=moved.installation_id)
    assert (imported.active, imported.user_id, imported.locale) == (True, bob.user_id, "de")
    events = (
        "SELECT event FROM device_token_events JOIN device_tokens d ON d.id = device_id WHERE installation_id = :id"
    )
    assert await api.rows(events, id=several[1].installation_id) == [("registered",)]
    assert await api.rows(f"{events} ORDER BY at", id=taken.installation_id) == [("registered",), ("transferred",)]


async def test_an_import_takes_nothing_from_a_phone_that_has_registered_or_signed_out_itself(
    api: Stack, backend: User
) -> None:
    alice, bob, carol = api.user(), api.user(), api.user()
    first, moved, taken, gone, rotated = (iphone() for _ in range(5))
    listed = [register(alice.user_id, each, op="import") for each in (first, moved, taken, gone, rotated)]
    assert said(await results(backend, TOKENS, *listed)) == [(200,)] * 5
    own = Phone("apns", moved.token)
    await alice.register(own, locale="de")  # by the app, under an installation id of its own
    await bob.register(taken)  # somebody else signs in there
    await alice.call("DELETE", f"/v1/device-tokens/{gone.installation_id}")
    renewed = Phone("apns", iphone().token, rotated.installation_id)
    await alice.register(renewed)
    state = (
        "SELECT user_id, installation_id, token, active, inactive_reason, locale, registered_at FROM device_tokens"
        " WHERE user_id IN (:a, :b, :c) ORDER BY id"
    )
    before = await api.rows(state, a=alice.user_id, b=bob.user_id, c=carol.user_id)

    again = await results(backend, TOKENS, *listed)
    twice = await results(backend, TOKENS, *listed, *listed)  # one by one
    of_carol = await results(backend, TOKENS, register(carol.user_id, Phone("apns", own.token), op="import"))

    assert said(again + twice + of_carol) == [(200,)] * 16
    assert await api.rows(state, a=alice.user_id, b=bob.user_id, c=carol.user_id) == before
    assert {row.token for row in before if row.active} == {first.token, own.token, taken.token, renewed.token}


async def test_registrations_that_are_repeated_together_are_what_they_are_one_by_one(api: Stack, backend: User) -> None:
    alice, bob = api.user(), api.user()
    plain, denied, missed = iphone(), android(), iphone()
    await alice.register(plain, locale="de", app_version="1", sign_out_digest="a" * 64)
    await alice.register(denied, permission="denied")
    [task_id] = await dead_task(bob, missed)
    withdrawn = "state = 'withdrawn', last_reason = 'no_active_token', expires_at = now() + interval '1 hour'"
    async with api.sessions.begin() as db:
        await db.execute(text(f"UPDATE push_tasks SET {withdrawn} WHERE task_id = :id"), {"id": task_id})
    again = [
        register(alice.user_id, plain, locale="fr", time_zone="Europe/Paris"),
        register(alice.user_id, denied, permission="granted"),
        register(bob.user_id, missed),
    ]

    assert said(await results(backend, TOKENS, *again)) == [(200,)] * 3

    [row] = await api.rows("SELECT * FROM device_tokens WHERE installation_id = :id", id=plain.installation_id)
    assert (row.locale, row.time_zone, row.app_version, row.sign_out_digest) == ("fr", "Europe/Paris", None, None)
    noted = (
        "SELECT e.event, e.reason FROM device_token_events e JOIN device_tokens d ON d.id = device_id"
        " WHERE installation_id = :id ORDER BY e.id"
    )
    assert await api.rows(noted, id=plain.installation_id) == [("registered", None)]
    assert (await api.rows(noted, id=denied.installation_id))[-1] == ("permission_told", "granted")
    assert await api.rows("SELECT state FROM push_tasks WHERE task_id = :id", id=task_id) == [("pending",)]


async def test_a_batch_takes_few_of_the_locks_that_all_share(api: Stack, backend: User) -> None:
    """PostgreSQL has room for some thousands. Where it is full, anybody's write fails."""
    fasts = [start(f"many-{uuid4()}", reminder_minutes=None) for _ in range(500)]
    tokens = [register(f"many-{uuid4()}", iphone()) for _ in range(500)]
    ours = "database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    most, held = 0, f"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND {ours}"

    for path, items in ((FASTS, fasts), (TOKENS, tokens), (TOKENS, tokens)):
        sent = asyncio.create_task(results(backend, path, *items))
        while not sent.done():
            most = max(most, (await api.rows(held))[0][0])
        assert {each["status"] for each in await sent} <= {200, 201}

    assert 0 < most < 500


async def test_a_service_with_many_batches_leaves_room_for_another(detached: StackPlace) -> None:
    app = make_app(detached)
    async with make_stack(detached, app) as stack:
        running = app.state.services.batches
        one, other = stack.user("one", "service"), stack.user("other", "service")
        async with running.at_once, running.at_once:  # two are worked on
            waiting = [
                asyncio.create_task(one.call("POST", FASTS, {"items": [start(f"{uuid4()}")]}))
                for _ in range(MAX_BATCHES_OF_ONE)
            ]
            await eventually(lambda: _waits(running.accepted, "one", MAX_BATCHES_OF_ONE))
            refused = await one.call("POST", TOKENS, {"items": [{}]})
            waiting.append(asyncio.create_task(other.call("POST", FASTS, {"items": [start(f"{uuid4()}")]})))
            await eventually(lambda: _waits(running.accepted, "other", 1))
        answers = [(await each).status_code for each in waiting]

    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert answers == [200] * (MAX_BATCHES_OF_ONE + 1)
    assert not running.accepted


async def _waits(accepted: Counter[str], service: str, count: int) -> bool:
    return accepted[service] == count


async def test_of_items_about_one_installation_the_last_one_holds(api: Stack, backend: User) -> None:
    alice, bob, phone = api.user(), api.user(), iphone()
    renewed = Phone("apns", iphone().token, phone.installation_id)
    out = {"user_id": alice.user_id, "installation_id": str(phone.installation_id), "op": "sign_out"}

    found = await results(
        backend,
        TOKENS,
        register(alice.user_id, phone),
        out,
        register(alice.user_id, renewed),
        register(bob.user_id, Phone("apns", renewed.token)),
    )

    assert said(found) == [(200,), (204,), (200,), (200,)]
    rows = await api.rows("SELECT user_id, token FROM device_tokens WHERE active AND user_id IN (:a, :b)",
                          a=alice.user_id, b=bob.user_id)  # fmt: skip
    assert rows == [(bob.user_id, renewed.token)]


async def test_a_user_with_too_many_imported_installations_keeps_the_last(detached: StackPlace) -> None:
    async with make_stack(detached, make_app(detached, MAX_INSTALLATIONS_PER_USER="2")) as strict:
        backend, alice, phones = strict.user("backend", "service"), strict.user(), [iphone() for _ in range(4)]

        found = await results(backend, TOKENS, *(register(alice.user_id, phone) for phone in phones))
        rows = await strict.rows(
            "SELECT installation_id FROM device_tokens WHERE active AND user_id = :user_id", user_id=alice.user_id
        )

    assert said(found) == [(200,)] * 4
    assert {row[0] for row in rows} == {phone.installation_id for phone in phones[2:]}


async def test_a_batch_of_500_long_items_fits_and_only_a_service_may_send_so_much(api: Stack, backend: User) -> None:
    long = "fcm-" + "x1y2z3:_" * 511
    items = [register(f"import-{uuid4()}", Phone("fcm", f"{long[:4050]}{uuid4().hex}")) for _ in range(500)]
    assert len(json.dumps({"items": items})) > 2_000_000

    whole = await results(backend, TOKENS, *items)
    refused: list[httpx.Response] = [
        await api.user().call("POST", TOKENS, {"items": items[:20]}),
        await api.http.post(TOKENS, json={"items": items[:20]}),
        await backend.call("PUT", "/v1/users/a/notification-preferences", {"items": items[:20]}),
        await api.http.post(TOKENS, content=b" " * (LARGEST_BATCH + 1), headers=backend.headers),
    ]

    assert said(whole) == [(200,)] * 500
    assert [answer.status_code for answer in refused] == [413] * 4
