"""Notification preferences: replaced, changed, and changed by two at once."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from tests.stack import UNLIMITED, Place, Stack, User, make_app, make_stack

PREFERENCES = "/v1/notification-preferences"
DEFAULTS = {
    "reminders": True,
    "reminder_minutes": [30],
    "messages": True,
    "reminder_preview": "full",
    "message_preview": "generic",
    "quiet_hours": None,
    "rev": 0,
}
NIGHT: dict[str, Any] = {"starts": "22:00", "ends": "06:00", "time_zone": "Europe/Berlin"}


@pytest.fixture(scope="module")
async def beside(detached: Place) -> AsyncIterator[Stack]:
    """Another API process on the same database."""
    async with make_stack(detached, make_app(detached, **UNLIMITED)) as stack:
        yield stack


async def store(user: User, method: str, body: object, if_match: str | None = None) -> httpx.Response:
    """Store preferences, on the condition that a revision is the newest."""
    condition = {} if if_match is None else {"If-Match": if_match}
    return await user.stack.http.request(method, PREFERENCES, json=body, headers=user.headers | condition)


async def stored(user: User, method: str, body: object) -> dict[str, Any]:
    """Store preferences; gives the answer."""
    answer = await store(user, method, body)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    assert (await user.call("GET", PREFERENCES)).json() == told
    return told


async def test_preferences_are_the_defaults_until_they_are_set_and_then_what_was_set(alice: User, bob: User) -> None:
    wanted = {
        "reminders": False,
        "reminder_minutes": [60, 5],
        "messages": False,
        "reminder_preview": "generic",
        "message_preview": "full",
        "quiet_hours": {"starts": "22:00", "ends": "06:30", "time_zone": "Europe/Berlin", "mode": "withhold"},
    }

    before = await alice.call("GET", PREFERENCES)
    answer = await alice.call("PUT", PREFERENCES, wanted | {"reminder_minutes": [5, 60]})
    after = await alice.call("GET", PREFERENCES)
    repeated = await alice.call("PUT", PREFERENCES, after.json())
    reset = await alice.call("PUT", PREFERENCES, {})

    answers = (before, answer, after, repeated, reset)
    stored = wanted | {"rev": 1}
    assert [each.json() for each in answers] == [DEFAULTS, stored, stored, stored, DEFAULTS | {"rev": 2}]
    assert [each.headers["etag"] for each in answers] == ['"0"', '"1"', '"1"', '"1"', '"2"']
    assert (await bob.call("GET", PREFERENCES)).json() == DEFAULTS


@pytest.mark.parametrize(
    ("told", "stored"), [("GMT+02:00", "Etc/GMT-2"), ("GMT+0200", "Etc/GMT-2"), ("europe/berlin", "Europe/Berlin")]
)
async def test_quiet_hours_take_a_time_zone_as_phones_name_it(alice: User, told: str, stored: str) -> None:
    quiet = {"starts": "22:00", "ends": "06:00"}

    answer = await alice.call("PUT", PREFERENCES, {"quiet_hours": quiet | {"time_zone": told}})

    expected = quiet | {"time_zone": stored, "mode": "silent"}
    assert (answer.status_code, answer.json()["quiet_hours"]) == (200, expected)


CLOCK_FORM = "String should match pattern '^([01][0-9]|2[0-3]):[0-5][0-9]$'"


@pytest.mark.parametrize(
    ("body", "field", "detail"),
    [
        ({"reminders": "yes"}, "reminders", "Input should be a valid boolean"),
        ({"messages": 1}, "messages", "Input should be a valid boolean"),
        ({"message_preview": "all"}, "message_preview", "Input should be 'full' or 'generic'"),
        (
            {"reminder_minutes": [1, 1]},
            "reminder_minutes",
            "must not contain the same number of minutes twice",
        ),
        (
            {"quiet_hours": {"starts": "22:00", "ends": "22:00", "time_zone": "UTC"}},
            "quiet_hours.ends",
            "Quiet hours must end at another time than they start.",
        ),
        (
            {"quiet_hours": {"starts": "24:00", "ends": "06:00", "time_zone": "UTC"}},
            "quiet_hours.starts",
            CLOCK_FORM,
        ),
        (
            {"quiet_hours": {"starts": "1\u0663:00", "ends": "06:00", "time_zone": "UTC"}},  # an Arabic three
            "quiet_hours.starts",
            CLOCK_FORM,
        ),
        (
            {"quiet_hours": {"starts": "22:00", "ends": "06:00", "time_zone": "localtime"}},  # of whose machine?
            "quiet_hours.time_zone",
            "must be an IANA time zone such as Europe/Berlin",
        ),
        (
            {"quiet_hours": {"starts": "22:00", "ends": "06:00", "time_zone": "Factory"}},  # whose zone was never set
            "quiet_hours.time_zone",
            "must be an IANA time zone such as Europe/Berlin",
        ),
        (
            {"quiet_hours": {"starts": "22:00", "ends": "06:00", "time_zone": "../etc/passwd"}},
            "quiet_hours.time_zone",
            "must be an IANA time zone such as Europe/Berlin",
        ),
        ({"quiet_hours": {"starts": "22:00", "ends": "06:00"}}, "quiet_hours.time_zone", "Field required"),
        ({"quiet_hours": {"ends": "06:00", "time_zone": None}}, "quiet_hours.starts", "Field required"),
        ({"quiet_hours": NIGHT | {"mode": "loud"}}, "quiet_hours.mode", "Input should be 'silent' or 'withhold'"),
        ({"quiet_hours": NIGHT | {"mode": None}}, "quiet_hours.mode", "Input should be 'silent' or 'withhold'"),
        ({"quiet_hours": NIGHT | {"snooze": 5}}, "quiet_hours.snooze", "There is no such field."),
        ({"reminders": None}, "reminders", "Input should be a valid boolean"),
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_preferences_against_the_rules_are_refused_and_the_field_is_named(
    alice: User, method: str, body: dict[str, Any], field: str, detail: str
) -> None:
    answer = await alice.call(method, PREFERENCES, body)

    assert answer.status_code == 422
    assert (answer.json()["field"], answer.json()["errors"]) == (field, [{"field": field, "detail": detail}])
    assert (await alice.call("GET", PREFERENCES)).json() == DEFAULTS


async def test_a_change_leaves_the_rest_as_it_is(alice: User) -> None:
    assert await stored(alice, "PATCH", {}) == DEFAULTS
    first = await stored(alice, "PATCH", {"messages": False})
    quiet = await stored(alice, "PATCH", {"quiet_hours": NIGHT | {"time_zone": None, "mode": "withhold"}})
    later = await stored(alice, "PATCH", {"quiet_hours": {"starts": "23:30"}})
    here = await stored(alice, "PATCH", {"quiet_hours": {"time_zone": "Asia/Tokyo"}, "reminder_minutes": [5, 60]})
    nothing = await stored(alice, "PATCH", {})
    none = await stored(alice, "PATCH", {"quiet_hours": None})

    assert first == DEFAULTS | {"messages": False, "rev": 1}
    hours = NIGHT | {"time_zone": None, "mode": "withhold"}
    assert quiet == first | {"quiet_hours": hours, "rev": 2}
    assert later == first | {"quiet_hours": hours | {"starts": "23:30"}, "rev": 3}
    moved = hours | {"starts": "23:30", "time_zone": "Asia/Tokyo"}
    assert here == first | {"quiet_hours": moved, "reminder_minutes": [60, 5], "rev": 4}
    assert nothing == here
    assert none == first | {"reminder_minutes": [60, 5], "rev": 5}


async def test_a_change_that_makes_quiet_hours_empty_is_refused_by_what_is_stored(alice: User) -> None:
    await stored(alice, "PATCH", {"quiet_hours": NIGHT | {"mode": "withhold"}})

    answer = await store(alice, "PATCH", {"quiet_hours": {"ends": "22:00"}})

    assert (answer.status_code, answer.json()["field"]) == (422, "quiet_hours.ends")


async def test_an_older_client_that_replaces_all_leaves_the_mode_that_it_does_not_know(alice: User) -> None:
    first = await stored(alice, "PUT", {"quiet_hours": NIGHT})
    await stored(alice, "PATCH", {"quiet_hours": {"mode": "withhold"}})
    older = await stored(alice, "PUT", {"messages": False, "quiet_hours": NIGHT | {"starts": "21:00"}})
    newer = await stored(alice, "PUT", {"quiet_hours": NIGHT | {"mode": "silent", "time_zone": None}})
    await stored(alice, "PUT", {})
    again = await stored(alice, "PUT", {"quiet_hours": NIGHT})

    assert first["quiet_hours"] == NIGHT | {"mode": "silent"}
    assert older["quiet_hours"] == NIGHT | {"starts": "21:00", "mode": "withhold"}
    assert newer["quiet_hours"] == NIGHT | {"mode": "silent", "time_zone": None}
    assert again["quiet_hours"] == NIGHT | {"mode": "silent"}


async def test_quiet_hours_of_the_release_before_withhold_until_somebody_says_otherwise(api: Stack) -> None:
    alice = api.user()
    async with api.sessions.begin() as db:
        await db.execute(
            text(
                "INSERT INTO preferences (user_id, reminders, reminder_minutes, messages, reminder_preview,"
                " message_preview, quiet_starts, quiet_ends, quiet_time_zone)"
                " VALUES (:user, true, '{30}', true, 'full', 'generic', '22:00', '06:00', 'Europe/Berlin')"
            ),
            {"user": alice.user_id},
        )

    before = (await alice.call("GET", PREFERENCES)).json()
    older = await stored(alice, "PUT", {"messages": False, "quiet_hours": NIGHT})
    newer = await stored(alice, "PATCH", {"quiet_hours": {"mode": "silent"}})

    withholding = NIGHT | {"mode": "withhold"}
    assert before == DEFAULTS | {"quiet_hours": withholding, "rev": 1}
    assert older == before | {"messages": False, "rev": 2}
    assert newer == older | {"quiet_hours": NIGHT | {"mode": "silent"}, "rev": 3}


async def test_a_change_leaves_alone_what_this_release_cannot_read(api: Stack) -> None:
    alice = api.user()
    await stored(alice, "PUT", {"quiet_hours": NIGHT})
    odd = {"quiet_time_zone": "Mars/Olympus", "quiet_mode": "whisper", "reminder_preview": "hologram"}
    async with api.sessions.begin() as db:
        values = ", ".join(f"{name} = :{name}" for name in odd)
        await db.execute(text(f"UPDATE preferences SET {values} WHERE user_id = :user"), odd | {"user": alice.user_id})

    await stored(alice, "PATCH", {"messages": False})

    query = f"SELECT messages, rev, {', '.join(odd)} FROM preferences WHERE user_id = :user"
    assert await api.rows(query, user=alice.user_id) == [(False, 2, *odd.values())]


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_who_names_a_revision_that_is_not_the_newest_changes_nothing(alice: User, method: str) -> None:
    known = await store(alice, method, {"messages": False}, '"0"')
    stale = await store(alice, method, {"messages": True}, '"0"')
    malformed = [await store(alice, method, {"messages": True}, tag) for tag in ("1", "", '"1', '"1" "2"')]
    weak = await store(alice, method, {"messages": True}, 'W/"1"')
    listed = await store(alice, method, {"reminders": False}, '"0", "1"')
    any_one = await store(alice, method, {"reminders": True}, "*")

    assert (known.status_code, known.json()["rev"]) == (200, 1)
    assert (stale.status_code, stale.headers["content-type"]) == (412, "application/problem+json")
    assert stale.json() == {
        "type": "urn:fastbell:problem:preferences-changed",
        "title": "Changed meanwhile",
        "status": 412,
        "detail": "The newest revision is 1. Read it, then change that.",
    }
    assert {(each.status_code, each.json()["field"]) for each in malformed} == {(422, "If-Match")}
    assert weak.status_code == 412
    assert [(each.status_code, each.json()["rev"]) for each in (listed, any_one)] == [(200, 2), (200, 3)]


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_a_request_that_is_repeated_is_answered_as_it_was(alice: User, method: str) -> None:
    await stored(alice, "PUT", {"messages": False})
    wanted = {"reminder_minutes": [60, 5], "quiet_hours": NIGHT}

    first = await store(alice, method, wanted, '"1"')
    again = [await store(alice, method, wanted, tag) for tag in ('"1"', '"0"', 'W/"2"')]
    otherwise = await store(alice, method, wanted | {"reminders": False}, '"1"')

    assert (first.status_code, first.json()["rev"]) == (200, 2)
    assert [(each.status_code, each.json()) for each in again] == [(200, first.json())] * 3
    assert {each.headers["etag"] for each in again} == {'"2"'}
    assert (otherwise.status_code, (await alice.call("GET", PREFERENCES)).json()) == (412, first.json())


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_repeats_that_arrive_at_once_are_all_answered_as_stored(api: Stack, beside: Stack, method: str) -> None:
    alice = api.user()
    doors = [alice, User(beside, alice.user_id, alice.headers)]

    answers = await asyncio.gather(*(store(doors[each % 2], method, {"messages": False}, '"0"') for each in range(6)))

    assert [(each.status_code, each.json()["rev"]) for each in answers] == [(200, 1)] * 6


async def test_a_repeat_after_a_change_elsewhere_is_told_of_it_where_it_would_take_it_back(alice: User) -> None:
    await store(alice, "PATCH", {"quiet_hours": NIGHT}, '"0"')
    await stored(alice, "PATCH", {"messages": False})

    patched = await store(alice, "PATCH", {"quiet_hours": NIGHT}, '"0"')
    replaced = await store(alice, "PUT", {"quiet_hours": NIGHT}, '"0"')  # would switch messages on again
    await stored(alice, "PATCH", {"quiet_hours": None})
    of_none = await store(alice, "PATCH", {"quiet_hours": {"mode": "withhold"}}, '"2"')

    assert (patched.status_code, patched.json()["rev"], patched.json()["messages"]) == (200, 2, False)
    assert (replaced.status_code, of_none.status_code) == (412, 412)


async def test_a_word_that_this_release_cannot_read_is_nothing_that_is_stored_already(api: Stack) -> None:
    alice = api.user()
    await stored(alice, "PUT", {"messages": False})
    async with api.sessions.begin() as db:
        statement = "UPDATE preferences SET reminder_preview = 'hologram' WHERE user_id = :user"
        await db.execute(text(statement), {"user": alice.user_id})

    stale = await store(alice, "PATCH", {"reminder_preview": "generic"}, '"0"')  # as which it is read

    assert stale.status_code == 412
    query = "SELECT reminder_preview, rev FROM preferences WHERE user_id = :user"
    assert await api.rows(query, user=alice.user_id) == [("hologram", 1)]


async def test_an_older_clients_put_and_a_newer_ones_patch_go_side_by_side(api: Stack, beside: Stack) -> None:
    old = api.user()
    new = User(beside, old.user_id, old.headers)
    await stored(old, "PUT", {"quiet_hours": NIGHT})
    puts = [store(old, "PUT", {"reminder_minutes": [each], "quiet_hours": NIGHT}) for each in range(1, 11)]
    patches = [store(new, "PATCH", {"quiet_hours": {"mode": "withhold"}}) for _ in range(5)]

    answers = await asyncio.gather(*puts[:5], *patches, *puts[5:])

    assert {answer.status_code for answer in answers} == {200}
    kept = (await old.call("GET", PREFERENCES)).json()
    assert kept["quiet_hours"] == NIGHT | {"mode": "withhold"}
    assert kept["rev"] == 1 + 10 + 1  # ten replaced it with something new, one of five changed the mode


async def test_of_all_who_read_the_same_revision_one_changes_it(api: Stack, beside: Stack) -> None:
    alice = api.user()
    doors = [alice, User(beside, alice.user_id, alice.headers)]

    for rev in (0, 1):  # nothing is stored yet, and then something is
        changes = [
            store(doors[each % 2], ("PUT", "PATCH")[each // 2 % 2], {"reminder_minutes": [10 * rev + each]}, f'"{rev}"')
            for each in range(8)
        ]
        answers = await asyncio.gather(*changes)

        assert sorted(answer.status_code for answer in answers) == [200] + [412] * 7
        assert (await alice.call("GET", PREFERENCES)).json()["rev"] == rev + 1


async def start(user: User, *, hours: float = 8, **more: object) -> UUID:
    """Start a fast that ends in so many hours."""
    session_id = uuid4()
    ends_at = datetime.now(UTC) + timedelta(hours=hours)
    answer = await user.call("PUT", f"/v1/fasting-sessions/{session_id}", {"ends_at": ends_at.isoformat(), **more})
    assert answer.status_code == 201, answer.text
    return session_id


async def minutes(user: User, session_id: UUID) -> list[tuple[int, str]]:
    """Read the reminders of a fast."""
    answer = await user.call("GET", f"/v1/fasting-sessions/{session_id}")
    return [(each["minutes"], each["state"]) for each in answer.json()["reminders"]]


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
async def test_a_running_fast_without_minutes_of_its_own_has_those_of_the_preferences(
    api: Stack, alice: User, bob: User, method: str
) -> None:
    follows, own, changed, same, ended, soon = [
        await start(alice, **more) for more in ({}, {"reminder_minutes": [30]}, {}, {}, {}, {"hours": 0.5})
    ]
    bobs = await start(bob)
    for session_id, chosen in ((changed, [20]), (same, [30])):
        await alice.call("PATCH", f"/v1/fasting-sessions/{session_id}", {"reminder_minutes": chosen})
    await alice.end(ended)

    answer = await store(alice, method, {"reminder_minutes": [45, 5]})
    again = await store(alice, method, {"reminder_minutes": [5, 45]})

    assert (answer.status_code, again.json()["rev"]) == (200, answer.json()["rev"])
    new = [(45, "scheduled"), (5, "scheduled")]
    assert [await minutes(alice, each) for each in (follows, same)] == [new, new]
    assert await minutes(alice, soon) == [(45, "skipped"), (5, "scheduled")]  # too late for one of them
    kept = [await minutes(alice, each) for each in (own, changed)]
    assert kept == [[(30, "scheduled")], [(20, "scheduled")]]
    assert [minutes for minutes, _ in await minutes(alice, ended)] == [30]
    assert await minutes(bob, bobs) == [(30, "scheduled")]
    [row] = await api.rows("SELECT rev FROM fasting_sessions WHERE id = :id", id=follows)
    assert row.rev == 2  # once, by the first of both


async def test_a_fast_that_is_started_while_the_minutes_change_has_the_new_ones(api: Stack, beside: Stack) -> None:
    alice = api.user()
    elsewhere = User(beside, alice.user_id, alice.headers)

    for chosen in range(5):
        fasts = await asyncio.gather(
            start(alice),
            store(elsewhere, "PATCH", {"reminder_minutes": [chosen]}),
            start(elsewhere),
            start(alice),
        )
        for session_id in (each for each in fasts if isinstance(each, UUID)):
            assert await minutes(alice, session_id) == [(chosen, "scheduled")]
            await alice.cancel(session_id)
