"""Fasting sessions: accepted once, changed in order, finished for good."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from tests.stack import Stack, User

HOUR = timedelta(hours=1)
SHIFT = text(
    "UPDATE fasting_sessions SET started_at = started_at - interval '1 day', ends_at = ends_at - interval '1 day'"
    " WHERE id = :id"
)
TRANSACTIONS_ARE_NOTED = (
    text("CREATE TABLE noted (at bigint GENERATED ALWAYS AS IDENTITY, tx xid8, source text, id uuid, rev int)"),
    text("""
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE new_row jsonb = to_jsonb(NEW);
        BEGIN
            INSERT INTO noted (tx, source, id, rev) VALUES (pg_current_xact_id(), TG_TABLE_NAME,
                coalesce(new_row ->> 'subject_id', new_row ->> 'id')::uuid, (new_row ->> 'rev')::int);
            RETURN NULL;
        END $$
    """),
    text("CREATE TRIGGER note AFTER INSERT OR UPDATE ON fasting_sessions FOR EACH ROW EXECUTE FUNCTION note()"),
    text("CREATE TRIGGER note AFTER INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION note()"),
)


def in_future(**length: float) -> str:
    """An instant so far from now, as a phone writes it."""
    return (datetime.now(UTC) + timedelta(**length)).isoformat()


async def put(user: User, session_id: UUID | str, **body: Any) -> httpx.Response:
    return await user.call("PUT", f"/v1/fasting-sessions/{session_id}", body)


async def started(user: User, **body: Any) -> dict[str, Any]:
    answer = await put(user, uuid4(), **({"ends_at": in_future(hours=16)} | body))
    assert answer.status_code == 201, answer.text
    session: dict[str, Any] = answer.json()
    return session


async def patch(user: User, session_id: str, **body: Any) -> httpx.Response:
    return await user.call("PATCH", f"/v1/fasting-sessions/{session_id}", body)


async def post(user: User, session_id: str, verb: str) -> httpx.Response:
    return await user.call("POST", f"/v1/fasting-sessions/{session_id}/{verb}")


async def pass_by(user: User, session_id: str) -> None:
    """Let a session's end come: it is moved into the past, as time would."""
    async with user.stack.sessions.begin() as db:
        await db.execute(SHIFT, {"id": UUID(session_id)})


async def test_a_start_is_answered_with_the_whole_session(alice: User) -> None:
    session_id = uuid4()
    started_at = datetime.now(UTC).replace(microsecond=0) - HOUR
    ends_at = started_at + 16 * HOUR

    answer = await put(
        alice,
        session_id,
        started_at=started_at.astimezone(timezone(2 * HOUR)).isoformat(),
        ends_at=_z(ends_at),
        reminder_minutes=[0, 30, 1440],
    )

    assert answer.status_code == 201
    assert answer.json() == {
        "id": str(session_id),
        "started_at": _z(started_at),
        "ends_at": _z(ends_at),
        "status": "active",
        "ended_at": None,
        "reminders": [
            {"minutes": 1440, "due_at": _z(ends_at - 24 * HOUR), "state": "skipped"},
            {"minutes": 30, "due_at": _z(ends_at - HOUR / 2), "state": "scheduled"},
            {"minutes": 0, "due_at": _z(ends_at), "state": "scheduled"},
        ],
        "labels": {},
        "rev": 1,
    }


def _z(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


async def test_a_fast_starts_now_with_one_reminder_half_an_hour_before_its_end_unless_told_otherwise(
    alice: User,
) -> None:
    session = await started(alice)

    assert abs(datetime.fromisoformat(session["started_at"]) - datetime.now(UTC)) < timedelta(seconds=10)
    assert [reminder["minutes"] for reminder in session["reminders"]] == [30]


async def test_reminders_come_from_the_preferences_where_the_start_names_none(alice: User) -> None:
    await alice.call("PUT", "/v1/notification-preferences", {"reminder_minutes": [5, 60]})

    by_preference, by_request, none = (
        await started(alice),
        await started(alice, reminder_minutes=[10]),
        await started(alice, reminder_minutes=[]),
    )

    assert [reminder["minutes"] for reminder in by_preference["reminders"]] == [60, 5]
    assert [reminder["minutes"] for reminder in by_request["reminders"]] == [10]
    assert none["reminders"] == []


async def test_the_same_start_again_is_answered_with_200_and_changes_nothing(alice: User) -> None:
    session_id, body = uuid4(), {"ends_at": in_future(hours=16)}

    first, second = await put(alice, session_id, **body), await put(alice, session_id, **body)

    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()


async def test_a_start_that_spells_out_what_the_session_is_is_the_same_start(alice: User) -> None:
    session = await started(alice)

    answer = await put(
        alice,
        session["id"],
        started_at=session["started_at"],
        ends_at=session["ends_at"].replace("Z", "+00:00"),
        reminder_minutes=[30],
    )

    assert (answer.status_code, answer.json()) == (200, session)


async def test_the_original_start_may_be_repeated_after_a_change_and_after_the_end(alice: User) -> None:
    session_id, body = uuid4(), {"ends_at": in_future(hours=16), "reminder_minutes": [30, 10]}
    await put(alice, session_id, **body)

    changed = (await patch(alice, str(session_id), ends_at=in_future(hours=18))).json()
    after_change = await put(alice, session_id, **body)
    ended = (await post(alice, str(session_id), "end")).json()
    after_end = await put(alice, session_id, **body | {"reminder_minutes": [10, 30]})

    assert (after_change.status_code, after_change.json()) == (200, changed)
    assert (after_end.status_code, after_end.json()) == (200, ended)


async def test_a_start_with_other_content_under_a_taken_id_is_a_conflict(alice: User) -> None:
    session = await started(alice)

    answer = await put(alice, session["id"], ends_at=in_future(hours=20))

    assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json")
    assert answer.json() == {
        "type": "urn:fastbell:problem:session-exists",
        "title": "Conflict",
        "status": 409,
        "detail": "This fasting session was started with other content. Use PATCH to change it.",
    }


async def test_another_beginning_or_other_reminders_are_other_content(alice: User) -> None:
    session = await started(alice)

    for other in ({"started_at": in_future(hours=-2)}, {"reminder_minutes": [29]}):
        answer = await put(alice, session["id"], ends_at=session["ends_at"], **other)

        assert (answer.status_code, answer.json()["type"]) == (409, "urn:fastbell:problem:session-exists")


async def test_a_session_can_be_read_again(alice: User) -> None:
    session = await started(alice)

    answer = await alice.call("GET", f"/v1/fasting-sessions/{session['id']}")

    assert (answer.status_code, answer.json()) == (200, session)


async def test_the_goal_and_the_reminders_can_be_moved_together_or_alone(alice: User) -> None:
    session = await started(alice)
    ends_at = datetime.now(UTC) + 2 * HOUR

    moved = (await patch(alice, session["id"], ends_at=ends_at.isoformat())).json()
    both = (await patch(alice, session["id"], ends_at=in_future(hours=3), reminder_minutes=[240, 15])).json()
    none = (await patch(alice, session["id"], reminder_minutes=[])).json()

    assert moved == session | {
        "ends_at": _z(ends_at),
        "reminders": [{"minutes": 30, "due_at": _z(ends_at - HOUR / 2), "state": "scheduled"}],
        "rev": 2,
    }
    assert [(each["minutes"], each["state"]) for each in both["reminders"]] == [(240, "skipped"), (15, "scheduled")]
    assert (none["reminders"], none["ends_at"], none["rev"]) == ([], both["ends_at"], 4)


@pytest.mark.parametrize("body", [{}, {"ends_at": None}, {"reminder_minutes": [30]}], ids=str)
async def test_a_change_that_changes_nothing_raises_no_rev(alice: User, body: dict[str, Any]) -> None:
    session = await started(alice)

    answer = await patch(alice, session["id"], **body)

    assert (answer.status_code, answer.json()) == (200, session)


async def test_a_fast_that_is_ended_early_is_broken_and_its_reminders_are_withdrawn(alice: User) -> None:
    session = await started(alice, reminder_minutes=[1440, 30])

    ended = await post(alice, session["id"], "end")

    assert ended.status_code == 200
    ended_at = ended.json()["ended_at"]
    assert abs(datetime.fromisoformat(ended_at) - datetime.now(UTC)) < timedelta(seconds=10)
    assert ended.json() == session | {
        "status": "broken",
        "ended_at": ended_at,
        "rev": 2,
        "reminders": [
            session["reminders"][0],  # skipped
            session["reminders"][1] | {"state": "withdrawn"},
        ],
    }


async def test_a_fast_that_is_ended_after_its_goal_is_completed(alice: User) -> None:
    session = await started(alice)
    await pass_by(alice, session["id"])

    ended = await post(alice, session["id"], "end")

    assert (ended.status_code, ended.json()["status"]) == (200, "completed")


async def test_reminders_can_be_changed_after_the_goal_was_reached(alice: User) -> None:
    session = await started(alice)
    await pass_by(alice, session["id"])

    answer = await patch(alice, session["id"], reminder_minutes=[])

    assert (answer.status_code, answer.json()["reminders"]) == (200, [])


async def test_a_fast_can_be_cancelled(alice: User) -> None:
    session = await started(alice)

    cancelled = await post(alice, session["id"], "cancel")

    assert (cancelled.status_code, cancelled.json()["status"], cancelled.json()["rev"]) == (200, "cancelled", 2)


@pytest.mark.parametrize("verb", ["end", "cancel"])
async def test_finishing_twice_in_the_same_way_is_harmless(alice: User, verb: str) -> None:
    session = await started(alice)

    first, second = await post(alice, session["id"], verb), await post(alice, session["id"], verb)

    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json() == second.json()


@pytest.mark.parametrize(
    ("finish", "status", "later"),
    [
        ("end", "broken", lambda user, session: post(user, session, "cancel")),
        ("cancel", "cancelled", lambda user, session: post(user, session, "end")),
        ("end", "broken", lambda user, session: patch(user, session, ends_at=in_future(hours=1))),
        ("cancel", "cancelled", lambda user, session: patch(user, session, reminder_minutes=[])),
    ],
    ids=["cancel after end", "end after cancel", "move after end", "move after cancel"],
)
async def test_a_finished_session_takes_no_more_changes(
    alice: User, finish: str, status: str, later: Callable[[User, str], Awaitable[httpx.Response]]
) -> None:
    session = await started(alice)
    await post(alice, session["id"], finish)

    answer = await later(alice, session["id"])

    assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json")
    assert answer.json() == {
        "type": "urn:fastbell:problem:session-finished",
        "title": "Conflict",
        "status": 409,
        "detail": f"This fasting session is {status}. It can no longer be changed.",
    }


async def test_another_users_session_is_not_there(alice: User, bob: User) -> None:
    session = await started(alice)
    path = f"/v1/fasting-sessions/{session['id']}"

    answers = [
        await bob.call("GET", path),
        await bob.call("PUT", path, {"ends_at": session["ends_at"]}),
        await bob.call("PATCH", path, {"ends_at": in_future(hours=1)}),
        await bob.call("POST", f"{path}/end"),
        await bob.call("POST", f"{path}/cancel"),
        await bob.call("GET", f"/v1/fasting-sessions/{uuid4()}"),  # nobody's
    ]

    assert [answer.status_code for answer in answers] == [404] * 6
    assert {answer.text for answer in answers} == {answers[-1].text}
    assert answers[-1].json() == {
        "type": "urn:fastbell:problem:not-found",
        "title": "Not found",
        "status": 404,
        "detail": "There is no such fasting session.",
    }
    assert (await alice.call("GET", path)).json() == session


async def test_the_list_comes_in_pages_the_latest_started_first_and_shows_nobody_elses(alice: User, bob: User) -> None:
    same_start = in_future(hours=-1)
    mine = [await started(alice, started_at=same_start) for _ in range(3)] + [await started(alice) for _ in range(2)]
    await started(bob)

    first = (await alice.call("GET", "/v1/fasting-sessions?limit=3")).json()
    second = (await alice.call("GET", f"/v1/fasting-sessions?limit=3&cursor={first['next_cursor']}")).json()

    found = first["items"] + second["items"]
    assert (len(first["items"]), len(second["items"]), second["next_cursor"]) == (3, 2, None)
    assert found[:2] == [mine[4], mine[3]]
    assert sorted(found, key=str) == sorted(mine, key=str)


@pytest.mark.parametrize(
    ("body", "field", "detail"),
    [
        ({}, "ends_at", "Field required"),
        ({"ends_at": None}, "ends_at", "must be an RFC 3339 instant such as 2026-01-31T18:00:00Z"),
        ({"ends_at": 1893456000}, "ends_at", "must be an RFC 3339 instant such as 2026-01-31T18:00:00Z"),
        ({"ends_at": "1893456000"}, "ends_at", "must be an RFC 3339 instant such as 2026-01-31T18:00:00Z"),
        ({"ends_at": "tomorrow"}, "ends_at", "must be an RFC 3339 instant such as 2026-01-31T18:00:00Z"),
        ({"ends_at": "2099-01-01T00:00:00"}, "ends_at", "Input should have timezone info"),
        ({"ends_at": "2026-01-01T00:00:00Z"}, "ends_at", "A fast must end in the future."),
        ({"ends_at": "9999-12-31T23:59:59Z"}, "ends_at", "A fast lasts at most 21 days."),
        ({"ends_at": "9999-12-31T23:59:59-01:00"}, "ends_at", "is out of range"),
        ({"ends_at": "+1h", "started_at": "+2h"}, "ends_at", "A fast must end after it starts."),
        ({"ends_at": "+1h", "started_at": "0001-01-01T00:00:00Z"}, "ends_at", "A fast lasts at most 21 days."),
        ({"ends_at": "+505h", "started_at": "+0h"}, "ends_at", "A fast lasts at most 21 days."),
        ({"ends_at": "+30h", "started_at": "+25h"}, "started_at", "A fast may be planned at most 24 hours ahead."),
        ({"ends_at": "+1h", "started_at": "2026-01-01T00:00:00"}, "started_at", "Input should have timezone info"),
        (
            {"ends_at": "+1h", "reminder_minutes": [-1]},
            "reminder_minutes.0",
            "Input should be greater than or equal to 0",
        ),
        (
            {"ends_at": "+1h", "reminder_minutes": [5, 1441]},
            "reminder_minutes.1",
            "Input should be less than or equal to 1440",
        ),
        ({"ends_at": "+1h", "reminder_minutes": ["5"]}, "reminder_minutes.0", "Input should be a valid integer"),
        ({"ends_at": "+1h", "reminder_minutes": [True]}, "reminder_minutes.0", "Input should be a valid integer"),
        ({"ends_at": "+1h", "reminder_minutes": 5}, "reminder_minutes", "Input should be a valid list"),
        (
            {"ends_at": "+1h", "reminder_minutes": [1, 2, 3, 4, 5, 6]},
            "reminder_minutes",
            "List should have at most 5 items after validation, not 6",
        ),
        (
            {"ends_at": "+1h", "reminder_minutes": [5, 5]},
            "reminder_minutes",
            "must not contain the same number of minutes twice",
        ),
        ({"ends_at": "+1h", "rev": 7}, "rev", "There is no such field."),
    ],
    ids=str,
)
async def test_a_start_against_the_rules_is_refused_and_the_field_is_named(
    alice: User, body: dict[str, Any], field: str, detail: str
) -> None:
    session_id = uuid4()

    answer = await put(alice, session_id, **{name: _at(value) for name, value in body.items()})

    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert (answer.json()["field"], answer.json()["errors"]) == (field, [{"field": field, "detail": detail}])
    assert (await alice.call("GET", f"/v1/fasting-sessions/{session_id}")).status_code == 404


def _at(value: Any) -> Any:
    """Read `+3h` as three hours from now."""
    return in_future(hours=float(value[1:-1])) if str(value).startswith("+") else value


async def test_a_fast_of_21_days_with_five_reminders_is_within_the_rules(alice: User) -> None:
    start = datetime.now(UTC)

    session = await started(
        alice,
        started_at=start.isoformat(),
        ends_at=(start + timedelta(days=21)).isoformat(),
        reminder_minutes=[0, 1, 60, 720, 1440],
    )

    assert [reminder["minutes"] for reminder in session["reminders"]] == [1440, 720, 60, 1, 0]


@pytest.mark.parametrize(
    ("body", "field", "detail"),
    [
        ({"ends_at": "2026-01-01T00:00:00Z"}, "ends_at", "A fast must end in the future."),
        ({"ends_at": "+600h"}, "ends_at", "A fast lasts at most 21 days."),
        ({"started_at": "+0h"}, "started_at", "There is no such field."),
    ],
    ids=str,
)
async def test_a_change_against_the_rules_is_refused_and_changes_nothing(
    alice: User, body: dict[str, Any], field: str, detail: str
) -> None:
    session = await started(alice)

    answer = await patch(alice, session["id"], **{name: _at(value) for name, value in body.items()})

    assert answer.status_code == 422
    assert (answer.json()["field"], answer.json()["errors"]) == (field, [{"field": field, "detail": detail}])
    assert (await alice.call("GET", f"/v1/fasting-sessions/{session['id']}")).json() == session


async def test_each_accepted_write_raises_rev_and_owes_temporal_a_dispatch_in_the_same_transaction(
    api: Stack, alice: User
) -> None:
    async with api.sessions.begin() as db:
        for statement in TRANSACTIONS_ARE_NOTED:
            await db.execute(statement)

    session = await started(alice)
    await patch(alice, session["id"], reminder_minutes=[10])
    await patch(alice, session["id"], reminder_minutes=[10])  # changes nothing
    await post(alice, session["id"], "end")
    await post(alice, session["id"], "end")  # changes nothing

    noted = await api.rows(
        "SELECT tx, source, rev FROM noted WHERE id = :id ORDER BY at, source", id=UUID(session["id"])
    )
    assert [(source, rev) for _, source, rev in noted] == [
        ("fasting_sessions", 1),
        ("outbox", None),
        ("fasting_sessions", 2),
        ("outbox", None),
        ("fasting_sessions", 3),
        ("outbox", None),
    ]
    transactions = [tx for tx, _, _ in noted]
    assert transactions[::2] == transactions[1::2]
    assert len(set(transactions)) == 3


async def test_of_many_starts_of_one_id_at_once_exactly_one_is_the_first(alice: User, bob: User) -> None:
    for _ in range(10):
        session_id, body = uuid4(), {"ends_at": in_future(hours=16)}

        answers = await asyncio.gather(*(put(alice, session_id, **body) for _ in range(6)))

        assert sorted(answer.status_code for answer in answers) == [200] * 5 + [201]
        assert len({answer.text for answer in answers}) == 1

    session_id = uuid4()
    answers = await asyncio.gather(*(put(user, session_id, **body) for user in (alice, bob)))
    assert sorted(answer.status_code for answer in answers) == [201, 404]


async def test_changes_at_once_each_get_a_rev_of_their_own(alice: User) -> None:
    session = await started(alice)

    eight = range(1, 9)  # what one user may have running; who waits for that is refused after two seconds
    answers = await asyncio.gather(*(patch(alice, session["id"], reminder_minutes=[m]) for m in eight))

    assert {answer.status_code for answer in answers} == {200}
    assert sorted(answer.json()["rev"] for answer in answers) == list(range(2, 10))


async def test_end_and_cancel_at_once_leave_one_of_them_true(alice: User) -> None:
    for _ in range(10):
        session = await started(alice)

        ended, cancelled = await asyncio.gather(post(alice, session["id"], "end"), post(alice, session["id"], "cancel"))

        assert sorted([ended.status_code, cancelled.status_code]) == [200, 409]
        winner = ended if ended.status_code == 200 else cancelled
        assert (await alice.call("GET", f"/v1/fasting-sessions/{session['id']}")).json() == winner.json()
