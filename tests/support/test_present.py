"""What a push waits for stands on top of a timeline, in words that are true at that moment."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from domain.kinds import Kind
from domain.push import Provider
from domain.timeline import (
    A_MOMENT,
    CALL_LASTS,
    Cutoff,
    Event,
    Happening,
    RouteNow,
    Unsettled,
    WaitsFor,
    next_try,
    waits_for,
)
from domain.timeline_words import in_words
from tests.stack import Stack, User, iphone
from tests.support.dead import dead_task, redrive
from tests.support.test_timeline import prefer
from tests.support.timelines import of
from tests.talk import conversation_of, handed_off, posted

NOW = datetime(2026, 11, 29, 18, tzinfo=UTC)
SECOND = timedelta(seconds=1)
CUTOFF = RouteNow(cutoff=Cutoff("b", NOW, 20, 25, "BadDeviceToken"))
RESTING = RouteNow(reason="ServiceUnavailable", until=NOW + 9 * SECOND)
DUE = Unsettled(
    now=NOW,
    due_at=NOW - SECOND,
    expires_at=NOW + timedelta(minutes=1),
    next_attempt_at=NOW - SECOND,
    last_reason=None,
    is_dead=False,
    refused=None,
    call_since=None,
    owed_since=None,
    workers=1,
    temporal_answers=True,
    route=RouteNow(),
)


@pytest.mark.parametrize(
    ("change", "obstacle"),
    [
        ({}, WaitsFor.NOTHING),
        ({"due_at": NOW + SECOND, "next_attempt_at": NOW + SECOND}, WaitsFor.DUE),
        ({"due_at": NOW - A_MOMENT, "next_attempt_at": NOW - A_MOMENT}, WaitsFor.TURN),
        ({"due_at": NOW - A_MOMENT, "next_attempt_at": NOW - SECOND}, WaitsFor.NOTHING),  # its retry has just come
        ({"next_attempt_at": NOW + SECOND, "last_reason": "TooManyRequests"}, WaitsFor.RETRY),
        ({"holder_is_lost": True}, WaitsFor.TAKEOVER),
        ({"holder_is_lost": True, "workers": 0}, WaitsFor.WORKER),
        ({"holder_is_lost": True, "due_at": NOW + SECOND, "next_attempt_at": NOW + SECOND}, WaitsFor.DUE),
        ({"owed_since": NOW - SECOND}, WaitsFor.NOTHING),
        ({"owed_since": NOW - A_MOMENT}, WaitsFor.TEMPORAL),
        ({"temporal_answers": False}, WaitsFor.TEMPORAL),
        ({"temporal_answers": False, "workers": 0}, WaitsFor.WORKER),
        ({"route": RESTING}, WaitsFor.ROUTE),
        ({"route": RESTING, "due_at": NOW + 10 * SECOND}, WaitsFor.DUE),  # it will have opened
        ({"route": CUTOFF, "workers": 0}, WaitsFor.RESUME),
        ({"route": CUTOFF, "is_dead": True}, WaitsFor.RESUME),
        ({"is_dead": True}, WaitsFor.REDRIVE),
        ({"call_since": NOW - SECOND, "route": RESTING}, WaitsFor.ANSWER),
        ({"call_since": NOW - CALL_LASTS}, WaitsFor.NOTHING),  # its worker is lost
        ({"call_since": NOW + timedelta(days=36_500)}, WaitsFor.NOTHING),
        ({"refused": "session_ended", "route": CUTOFF}, WaitsFor.CHECK),
        ({"expires_at": NOW, "refused": "session_ended"}, WaitsFor.EXPIRY),
    ],
)
def test_the_obstacle_that_has_to_go_first_is_named(change: dict[str, Any], obstacle: WaitsFor) -> None:
    assert waits_for(replace(DUE, **change)) is obstacle


@pytest.mark.parametrize(
    ("planned", "told"),
    [
        (NOW + SECOND, NOW + SECOND),
        (NOW, None),  # it has passed
        (NOW + timedelta(minutes=1), None),  # it expires before that
        (None, None),
    ],
)
def test_no_next_try_is_told_that_has_passed_or_comes_too_late(planned: datetime | None, told: datetime | None) -> None:
    assert next_try(replace(DUE, next_attempt_at=planned)) == told


@pytest.mark.parametrize(
    ("planned", "rests_for", "told"),
    [
        (timedelta(seconds=9), timedelta(seconds=9), " The next try is at 2026-11-29 18:00:09 UTC."),
        (timedelta(seconds=6), timedelta(seconds=9), " After that it is tried again."),  # then it only looks in
        (timedelta(0), timedelta(seconds=9), " After that it is tried again."),
        (timedelta(seconds=6), timedelta(minutes=2), " There is no other try before it expires."),
    ],
)
def test_no_next_try_is_reported_while_its_route_rests(planned: timedelta, rests_for: timedelta, told: str) -> None:
    resting = RouteNow(reason="ServiceUnavailable", until=NOW + rests_for)
    push = replace(DUE, next_attempt_at=NOW + planned, last_reason="ServiceUnavailable", route=resting)
    instants = {"due_at": push.due_at, "expires_at": push.expires_at, "route_until": resting.until}
    detail: dict[str, Any] = {name: at and at.isoformat() for name, at in instants.items()}
    at = next_try(push)
    detail |= {"waits_for": waits_for(push).value, "is_dead": False, "next_attempt_at": at and at.isoformat()}

    said = in_words(Happening(Event.WAITS, Kind.REMINDER, Provider.APNS, uuid4(), 1, "ServiceUnavailable", detail, NOW))

    assert f" UTC: Apple answered that it is unavailable.{told} It expires at 2026-11-29 18:01:00 UTC." in said


def test_a_message_that_open_apps_get_first_is_not_called_late() -> None:
    detail = {"waits_for": "due", "is_dead": False, "due_at": NOW.isoformat(), "expires_at": NOW.isoformat()}

    said = in_words(Happening(Event.WAITS, Kind.MESSAGE, None, None, None, None, detail, NOW + SECOND))

    assert said.startswith("The message was accepted at 2026-11-29 18:00:00 UTC.")
    assert "has been due" not in said


async def test_what_lies_ahead_is_reported_and_what_will_keep_it_from_going_out(
    stack: Stack, alice: User, carol: User
) -> None:
    phone = iphone()
    await alice.register(phone)
    session_id = await alice.start_fast(due_in=3600)
    await stack.started(session_id)
    told = [await _present(carol, alice)]
    ends = (datetime.now(UTC) + timedelta(hours=2)).strftime("%H:%M")
    starts = datetime.now(UTC).strftime("%H:%M")
    quiet = {"starts": starts, "ends": ends, "time_zone": "UTC"}
    await prefer(alice, quiet_hours=quiet)
    told.append(await _present(carol, alice))
    await prefer(alice, quiet_hours=quiet | {"mode": "withhold"})
    told.append(await _present(carol, alice))
    await prefer(alice, quiet_hours=None, reminders=False)
    told.append(await _present(carol, alice))
    await prefer(alice, reminders=True)
    await alice.call("DELETE", f"/v1/device-tokens/{phone.installation_id}")
    told.append(await _present(carol, alice))
    await alice.end(session_id)

    assert [(each["detail"]["waits_for"], each["reason"]) for [each] in told] == [
        ("due", None),
        ("due", None),  # it will be silent
        ("check", "quiet_hours"),
        ("check", "reminders_off"),
        ("check", "no_active_token"),
    ]
    due, silent, withheld, _, no_phone = (each["text"] for [each] in told)
    assert due.startswith("The reminder 1 minute before the end is due at ")
    assert "No obstacle is known. It expires at " in due
    assert "No obstacle is known. It expires at " in silent
    assert withheld.endswith(f" to {ends}, UTC.")
    assert no_phone.endswith("It will not be sent: no phone of theirs has an active token.")
    assert await _present(carol, alice) == []


async def test_each_page_after_the_first_and_each_part_tell_their_own(alice: User, carol: User) -> None:
    await alice.register(iphone())
    one, other = [await alice.start_fast(due_in=3600) for _ in range(2)]
    first = (await carol.call("GET", f"{of(alice.user_id)}?limit=1")).json()

    second = (await carol.call("GET", f"{of(alice.user_id)}?cursor={first['next_cursor']}")).json()
    part = (await carol.call("GET", f"{of(alice.user_id)}?session_id={one}")).json()

    assert {item["session_id"] for item in first["present"]} == {str(one), str(other)}
    assert second["present"] == []
    assert [item["session_id"] for item in part["present"]] == [str(one)]
    for session_id in (one, other):
        await alice.cancel(session_id)


async def test_a_dead_push_is_reported_until_it_expires_or_is_redriven(stack: Stack, alice: User, carol: User) -> None:
    [task_id] = await dead_task(alice, iphone())
    [dead] = await _present(carol, alice)

    await redrive(carol, task_id)
    async with stack.sessions.begin() as db:
        await db.execute(
            text("UPDATE push_tasks SET state = 'dead', expires_at = now() WHERE task_id = :id"), {"id": task_id}
        )

    assert (dead["task_id"], dead["detail"]["waits_for"]) == (str(task_id), "redrive")
    assert "A person can redrive it until " in dead["text"]
    assert await _present(carol, alice) == []


async def test_a_message_that_temporal_has_not_taken_is_reported(
    stack: Stack, alice: User, bob: User, carol: User
) -> None:
    await bob.register(iphone())
    message_id = await posted(alice, await conversation_of(alice, bob))
    await handed_off(stack, message_id)
    async with stack.sessions.begin() as db:
        ids = {"id": message_id}
        await db.execute(
            text("DELETE FROM push_attempts WHERE task_id IN (SELECT task_id FROM push_tasks WHERE message_id = :id)"),
            ids,
        )
        await db.execute(text("DELETE FROM push_tasks WHERE message_id = :id"), ids)
        await db.execute(text("UPDATE messages SET handed_off_at = NULL WHERE id = :id"), ids)
        await db.execute(_OWE, ids)

    [waits] = await _present(carol, bob)
    sender = await _present(carol, alice)
    async with stack.sessions.begin() as db:
        await db.execute(text("UPDATE messages SET handed_off_at = now() WHERE id = :id"), ids)
        await db.execute(text("DELETE FROM outbox WHERE subject_id = :id"), ids)

    assert (waits["message_id"], waits["detail"]["waits_for"]) == (str(message_id), "temporal")
    assert waits["text"].startswith("The message has been due since ")
    assert sender == []


_FORGET_ATTEMPTS = text("""
    DELETE FROM push_attempts WHERE task_id IN (SELECT task_id FROM push_tasks WHERE message_id = :id)
""")
_OWE = text("""
    INSERT INTO outbox (subject_kind, subject_id, created_at, next_attempt_at)
    VALUES ('message', :id, now() - interval '1 minute', now() + interval '1 minute')
""")


async def _present(carol: User, user: User) -> list[dict[str, Any]]:
    answer = await carol.call("GET", of(user.user_id))
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["present"]
    return found
