"""What happens to pushes, reminders and device tokens is written as events: each once, with what applies."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import text

from db import push_tasks
from domain.push import TaskState
from simulator import Simulator
from tests.busy import lead
from tests.events.feed import feed_of
from tests.stack import Phone, Stack, User, android, iphone
from tests.support.dead import dead_task, redrive, redriven
from tests.talk import conversation_of, handed_off, posted, sync, tasks_of


def brief(events: list[dict[str, Any]]) -> list[tuple[str, str | None]]:
    return [(each["type"], each["data"].get("reason")) for each in events]


def of_pushes(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for each in events if each["type"].startswith("push.")]


async def test_a_reminder_is_accepted_and_opened_once_however_often_it_is_tapped(stack: Stack, alice: User) -> None:
    phone = iphone()
    await alice.register(phone)
    session_id = await alice.start_fast(due_in=1.5)
    assert await stack.finished(session_id) == "accepted"
    [task] = await stack.tasks(session_id)

    for _ in range(2):
        assert (await alice.call("POST", f"/v1/push-tasks/{task.task_id}/opened")).status_code == 204

    accepted, opened = of_pushes(await feed_of(alice))
    data = {
        "task_id": str(task.task_id),
        "kind": "reminder",
        "session_id": str(session_id),
        "message_id": str(task.message_id),
        "installation_id": str(phone.installation_id),
        "provider": "apns",
        "due_at": task.due_at.isoformat().replace("+00:00", "Z"),
    }
    assert [each["type"] for each in (accepted, opened)] == ["push.accepted", "push.opened"]
    assert accepted["data"] == opened["data"] == data
    assert datetime.fromisoformat(accepted["occurred_at"]) == task.settled_at


async def test_a_message_that_is_read_is_synced(stack: Stack, alice: User, bob: User) -> None:
    phone = android()
    await bob.register(phone)
    conversation_id = await conversation_of(alice, bob)
    message_id = await posted(alice, conversation_id, "a text that is nobody's business")
    await handed_off(stack, message_id)

    for _ in range(2):
        await sync(bob, phone.installation_id, after=1)

    events = of_pushes(await feed_of(bob))
    [task] = await tasks_of(stack, message_id)
    assert brief(events) == [("push.accepted", None), ("push.synced", None)]
    assert events[1]["data"] == {
        "task_id": str(task.task_id),
        "kind": "message",
        "conversation_id": str(conversation_id),
        "message_id": str(message_id),
        "installation_id": str(phone.installation_id),
        "provider": "fcm",
        "due_at": task.due_at.isoformat().replace("+00:00", "Z"),
    }
    assert "business" not in str(events)


async def test_a_push_may_be_dead_go_on_and_be_accepted(stack: Stack, alice: User) -> None:
    [task_id] = await dead_task(alice, android())
    carol = stack.user(None, "support")

    assert (await redrive(carol, task_id)).status_code == 202
    await redriven(stack, task_id)

    assert brief(of_pushes(await feed_of(alice))) == [("push.dead", "Shutdown"), ("push.accepted", None)]


async def test_a_push_that_expired_is_told(stack: Stack, alice: User) -> None:
    [task_id] = await dead_task(alice, android())
    async with stack.sessions.begin() as db:
        await db.execute(text("UPDATE push_tasks SET state = 'pending' WHERE task_id = :id"), {"id": task_id})
        await push_tasks.apply(db, [push_tasks.Update(task_id, TaskState.EXPIRED, "expired")])

    assert brief(of_pushes(await feed_of(alice))) == [("push.dead", "Shutdown"), ("push.expired", "expired")]


async def test_a_change_that_is_rolled_back_is_not_told(stack: Stack, alice: User) -> None:
    [task_id] = await dead_task(alice, android())
    async with stack.sessions() as db:
        await push_tasks.apply(db, [push_tasks.Update(task_id, TaskState.ACCEPTED, None)])
        await db.rollback()

    assert brief(of_pushes(await feed_of(alice))) == [("push.dead", "Shutdown")]


async def test_a_reminder_set_too_late_is_skipped_once_for_each_instant_it_would_have_been_due(alice: User) -> None:
    session_id, now = uuid4(), datetime.now(UTC)
    path, ends_at = f"/v1/fasting-sessions/{session_id}", now + timedelta(minutes=10)
    started = {"ends_at": ends_at.isoformat(), "reminder_minutes": [30, 5]}

    for _ in range(2):  # a repeat tells nothing new
        assert (await alice.call("PUT", path, started)).status_code in {200, 201}
    await alice.call("PATCH", path, {"reminder_minutes": [30, 15, 5]})
    await alice.call("PATCH", path, {"reminder_minutes": [30, 15, 4]})
    moved = now + timedelta(minutes=20)
    await alice.call("PATCH", path, {"ends_at": moved.isoformat()})
    await alice.call("POST", f"{path}/cancel")

    skipped = [each["data"] for each in await feed_of(alice)]
    assert [each["due_at"] for each in skipped] == [
        (end - timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")
        for end, minutes in ((ends_at, 30), (ends_at, 15), (moved, 30))
    ]
    assert skipped[0] == {
        "kind": "reminder",
        "session_id": str(session_id),
        "reason": "too_late",
        "due_at": skipped[0]["due_at"],
    }


async def test_a_reminder_is_withheld_where_there_is_no_phone_or_it_is_off_but_not_where_its_fast_is_over(
    stack: Stack, unarmed: Stack, alice: User, bob: User
) -> None:
    carol = unarmed.user()
    await bob.register(iphone())
    await carol.register(iphone())
    assert (await bob.call("PUT", "/v1/notification-preferences", {"reminders": False})).status_code == 200

    fasts = [await user.start_fast(due_in=lead(1.5)) for user in (alice, bob, carol)]
    await carol.end(fasts[2])
    for fast in fasts:
        await stack.finished(fast)

    [of_alice] = await feed_of(alice)
    of_bob = [each for each in await feed_of(bob) if each["type"].startswith("reminder")]
    [row] = await stack.rows("SELECT ends_at FROM fasting_sessions WHERE id = :id", id=fasts[0])
    due_at = row.ends_at - timedelta(minutes=1)
    assert brief([of_alice, *of_bob]) == [
        ("reminder.withheld", "no_active_token"),
        ("reminder.withheld", "reminders_off"),
    ]
    assert of_alice["data"] == {
        "kind": "reminder",
        "session_id": str(fasts[0]),
        "message_id": of_alice["data"]["message_id"],
        "reason": "no_active_token",
        "due_at": due_at.isoformat().replace("+00:00", "Z"),
    }
    assert brief(await feed_of(carol)) == [("device_token.registered", None)]


async def test_device_tokens_are_registered_transferred_and_signed_out(alice: User, bob: User) -> None:
    phone = iphone()
    for _ in range(2):  # opening the app again changes nothing
        await alice.register(phone)
    await alice.register(replace(phone, token=iphone().token))  # rotated
    await bob.register(phone)
    await alice.call("DELETE", f"/v1/device-tokens/{phone.installation_id}")
    await bob.call("DELETE", f"/v1/device-tokens/{phone.installation_id}")
    await bob.register(phone)

    registered, transferred, signed_out = (
        f"device_token.{word}" for word in ("registered", "transferred", "signed_out")
    )
    assert [each["type"] for each in await feed_of(alice)] == [registered, registered, transferred]
    assert [each["type"] for each in await feed_of(bob)] == [registered, signed_out, registered]
    assert bob.user_id not in str(await feed_of(alice))


async def test_a_dead_token_is_invalidated_with_its_reason(stack: Stack, simulator: Simulator, alice: User) -> None:
    phone: Phone = iphone()
    await alice.register(phone)
    gone = {"status": 410, "reason": "Unregistered"}
    simulator.faults.add(provider="apns", token=phone.token, fault="answer", **gone)

    assert await stack.finished(await alice.start_fast(due_in=1.5)) == "unregistered"

    events = await feed_of(alice)
    assert brief(events)[1:] == [("push.unregistered", "Unregistered"), ("device_token.invalidated", "Unregistered")]
    assert events[-1]["data"]["installation_id"] == str(phone.installation_id)
