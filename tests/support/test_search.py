"""Finding push tasks, and redriving them by filter."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from simulator import Simulator
from tests.stack import Stack, User, android, iphone
from tests.support.dead import dead_task, redriven, task

TASKS = "/v1/support/push-tasks"


async def test_dead_tasks_are_found_by_what_is_known_of_them(stack: Stack, alice: User, carol: User) -> None:
    reason, phones = f"reason-{uuid4()}", [iphone(), android()]
    task_ids = await dead_task(alice, *phones, reason=reason)
    [apns] = [each for each in task_ids if (await task(stack, each)).provider == "apns"]
    row = await task(stack, apns)
    soon = (row.due_at + timedelta(seconds=1)).isoformat().replace("+", "%2B")

    for query, expected in (
        (f"reason={reason}", set(task_ids)),
        (f"reason={reason}&provider=apns", {apns}),
        (f"reason={reason}&environment=sandbox", set()),
        (f"reason={reason}&app_id=another", set()),
        (f"reason={reason}&kind=reminder", set(task_ids)),
        (f"user_id={alice.user_id}", set(task_ids)),
        (f"conversation_id={row.conversation_id}&provider=apns", {apns}),
        (f"reason={reason}&due_to={soon}", set(task_ids)),
        (f"reason={reason}&due_from={soon}", set()),
        (f"user_id={alice.user_id}&state=pending", set()),
    ):
        answer = await carol.call("GET", f"{TASKS}?{query}")
        assert {each["task_id"] for each in answer.json()["items"]} == {str(each) for each in expected}, query

    shown = (await carol.call("GET", f"{TASKS}?reason={reason}&provider=apns")).json()["items"][0]
    assert (shown["state"], shown["last_reason"], shown["redrive_refused"]) == ("dead", reason, None)
    assert shown["token"] == phones[0].token[-6:]


async def test_a_list_of_dead_tasks_is_paged_the_latest_due_first(alice: User, carol: User) -> None:
    reason = f"reason-{uuid4()}"
    await dead_task(alice, iphone(), reason=reason)
    await dead_task(alice, android(), iphone(), ends_in=50, reason=reason)

    first = (await carol.call("GET", f"{TASKS}?reason={reason}&limit=2")).json()
    second = (await carol.call("GET", f"{TASKS}?reason={reason}&limit=2&cursor={first['next_cursor']}")).json()

    due = [(each["due_at"], each["task_id"]) for each in first["items"] + second["items"]]
    assert (len(set(due)), second["next_cursor"]) == (4, None)
    assert due == sorted(due, reverse=True)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("state=pending", "state"),
        ("provider=hms", "provider"),
        ("reason=%00", "reason"),
        ("due_from=2026-01-01", "due_from"),
        ("cursor=x", "cursor"),
        ("colour=red", "colour"),
    ],
)
async def test_a_search_that_cannot_be_names_the_field(carol: User, query: str, field: str) -> None:
    answer = await carol.call("GET", f"{TASKS}?{query}")

    assert (answer.status_code, answer.json()["field"]) == (422, field)


async def test_redriving_by_filter_counts_what_happened_and_leaves_the_hopeless_dead(
    stack: Stack, simulator: Simulator, carol: User
) -> None:
    reason, phones = f"reason-{uuid4()}", [iphone() for _ in range(5)]
    users = [stack.user() for _ in phones]
    [[sent], [also_sent], [over], [late], [other]] = [
        await dead_task(user, phone, reason=reason if number < 4 else f"{reason}-other")
        for number, (user, phone) in enumerate(zip(users, phones, strict=True))
    ]
    await users[2].end((await task(stack, over)).conversation_id)
    async with stack.sessions.begin() as db:
        await db.execute(text("UPDATE push_tasks SET expires_at = now() WHERE task_id = :id"), {"id": late})
    expected = {"redriven": 2, "withheld": {"expired": 1, "session_ended": 1}, "limit_reached": False}

    rehearsed = await carol.call("POST", f"{TASKS}/redrive", {"reason": reason, "limit": 100, "dry_run": True})
    assert (rehearsed.status_code, rehearsed.json()) == (200, expected)
    assert {(await task(stack, each)).state for each in (sent, also_sent)} == {"dead"}

    answer = await carol.call("POST", f"{TASKS}/redrive", {"reason": reason, "limit": 100})
    assert (answer.status_code, answer.json()) == (200, expected)
    assert [await redriven(stack, each) for each in (sent, also_sent)] == [("accepted", None)] * 2
    assert {(await task(stack, each)).state for each in (over, late, other)} == {"dead"}
    assert [len(simulator.requests.for_token(phone.token)) for phone in phones] == [1, 1, 0, 0, 0]
    noted = await stack.rows("SELECT subject_id FROM support_actions WHERE actor = :actor", actor=carol.user_id)
    assert {row.subject_id for row in noted} == {sent, also_sent}


async def test_redriving_by_filter_does_not_walk_through_what_died_long_ago(
    stack: Stack, alice: User, carol: User
) -> None:
    reason = f"reason-{uuid4()}"
    [lately], [long_ago] = [await dead_task(user, iphone(), reason=reason) for user in (alice, stack.user())]
    async with stack.sessions.begin() as db:
        for task_id, minutes in ((lately, 1454), (long_ago, 1456)):
            past = "UPDATE push_tasks SET due_at = :at, expires_at = :at WHERE task_id = :id"
            await db.execute(text(past), {"id": task_id, "at": datetime.now(UTC) - timedelta(minutes=minutes)})

    answer = await carol.call("POST", f"{TASKS}/redrive", {"reason": reason, "limit": 10, "dry_run": True})

    assert answer.json() == {"redriven": 0, "withheld": {"expired": 1}, "limit_reached": False}


async def test_no_more_than_the_limit_are_redriven(stack: Stack, alice: User, carol: User) -> None:
    reason = f"reason-{uuid4()}"
    task_ids = await dead_task(alice, *(iphone() for _ in range(3)), reason=reason)

    answer = await carol.call("POST", f"{TASKS}/redrive", {"reason": reason, "limit": 2})

    assert answer.json() == {"redriven": 2, "withheld": {}, "limit_reached": True}
    states = sorted([(await task(stack, each)).state == "dead" for each in task_ids])
    assert states == [False, False, True]


@pytest.mark.parametrize(
    ("body", "field"),
    [({}, "limit"), ({"limit": 0}, "limit"), ({"limit": 10_001}, "limit"), ({"limit": 1, "state": "pending"}, "state")],
)
async def test_a_redrive_by_filter_has_a_bound_and_concerns_dead_tasks_only(
    carol: User, body: dict[str, Any], field: str
) -> None:
    answer = await carol.call("POST", f"{TASKS}/redrive", body)

    assert (answer.status_code, answer.json()["field"]) == (422, field)


async def test_a_task_that_somebody_holds_delays_no_redrive_by_filter(stack: Stack, alice: User, carol: User) -> None:
    reason = f"reason-{uuid4()}"
    [held, free] = await dead_task(alice, iphone(), iphone(), reason=reason)

    async with stack.sessions.begin() as db:
        await db.execute(text("SELECT 1 FROM push_tasks WHERE task_id = :id FOR UPDATE"), {"id": held})
        started_at = datetime.now(UTC)
        answer = await carol.call("POST", f"{TASKS}/redrive", {"reason": reason, "limit": 10})
        assert answer.json()["redriven"] == 1
        assert datetime.now(UTC) - started_at < timedelta(seconds=2)

    assert (await task(stack, held)).state == "dead"
    assert (await redriven(stack, free))[0] == "accepted"


async def test_people_who_redrive_by_the_same_filter_at_once_redrive_each_task_once(
    stack: Stack, simulator: Simulator, alice: User, carol: User
) -> None:
    reason, phones = f"reason-{uuid4()}", [iphone() for _ in range(6)]
    task_ids = await dead_task(alice, *phones, reason=reason)

    answers = await asyncio.gather(
        *(carol.call("POST", f"{TASKS}/redrive", {"reason": reason, "limit": 100}) for _ in range(4))
    )

    assert sum(answer.json()["redriven"] for answer in answers) == 6
    assert {await redriven(stack, each) for each in task_ids} == {("accepted", None)}
    assert {len(simulator.requests.for_token(phone.token)) for phone in phones} == {1}
