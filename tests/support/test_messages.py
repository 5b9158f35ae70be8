"""Support and messages: dead pushes redriven or refused by their own rules, and how long from push to sync."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from simulator import Simulator
from tests.stack import Phone, Stack, User, android, iphone
from tests.support.dead import bury, redrive, redriven, task
from tests.talk import conversation_of, handed_off, handoff, posted, posted_and_refused, store, sync, tasks_of

TASKS = "/v1/support/push-tasks"


async def dead_message(stack: Stack, alice: User, bob: User, phone: Phone) -> Any:
    """Let a message's push be refused, and die before its next attempt; gives its task."""
    await bob.register(phone)
    message_id = await posted_and_refused(alice, await conversation_of(alice, bob), phone)
    [planned] = await tasks_of(stack, message_id)
    await bury(stack, planned.task_id)
    await handoff(stack, message_id).terminate()
    return planned


async def refusal(carol: User, task_id: UUID) -> str | None:
    """Ask why a redrive is refused; what is shown and what is answered agree."""
    shown: str | None = (await carol.call("GET", f"{TASKS}/{task_id}")).json()["task"]["redrive_refused"]
    answer = await carol.call("POST", f"{TASKS}/{task_id}/redrive")
    assert answer.json()["reason"] == shown
    assert "would be withheld (" not in answer.json()["detail"]
    return shown


async def test_a_dead_push_of_a_message_is_redriven(
    stack: Stack, simulator: Simulator, alice: User, bob: User, carol: User
) -> None:
    phone = android()
    dead = await dead_message(stack, alice, bob, phone)

    assert (await redrive(carol, dead.task_id)).status_code == 202

    assert await redriven(stack, dead.task_id) == ("accepted", None)
    assert [line.times_received for line in simulator.phone(phone.token).screen] == [1]


async def test_a_dead_push_of_a_message_stays_dead_where_the_check_would_withhold_it(
    stack: Stack, alice: User, bob: User, carol: User
) -> None:
    phone = android()
    dead = await dead_message(stack, alice, bob, phone)
    now = datetime.now(UTC)
    hours = [f"{now + timedelta(hours=shift):%H:%M}" for shift in (-1, 1)]
    quiet = {"starts": hours[0], "ends": hours[1], "time_zone": "UTC", "mode": "withhold"}

    await bob.call("PUT", "/v1/notification-preferences", {"messages": False})
    assert await refusal(carol, dead.task_id) == "messages_off"
    await bob.call("PUT", "/v1/notification-preferences", {"quiet_hours": quiet})
    assert await refusal(carol, dead.task_id) == "quiet_hours"
    await bob.call("PUT", "/v1/notification-preferences", {"reminders": False})  # which are another kind
    await store(stack, dead.conversation_id, alice)
    assert await refusal(carol, dead.task_id) == "not_a_member"
    await store(stack, dead.conversation_id, alice, bob)
    page = await sync(bob, phone.installation_id)
    await sync(bob, phone.installation_id, after=page["next_cursor"])
    assert await refusal(carol, dead.task_id) == "synced"
    assert (await task(stack, dead.task_id)).state == "dead"


async def test_a_dead_push_whose_line_a_newer_message_has_taken_stays_dead(
    stack: Stack, alice: User, bob: User, carol: User
) -> None:
    dead = await dead_message(stack, alice, bob, android())
    await handed_off(stack, await posted(alice, dead.conversation_id))

    assert await refusal(carol, dead.task_id) == "superseded"


async def test_how_long_it_took_from_the_push_to_the_sync_is_reported_by_message(
    stack: Stack, alice: User, bob: User, carol: User
) -> None:
    read, unread = iphone(), android()
    await bob.register(read, unread)
    message_id = await posted(alice, await conversation_of(alice, bob))
    await handed_off(stack, message_id)
    page = await sync(bob, read.installation_id)
    await sync(bob, read.installation_id, after=page["next_cursor"])

    found = (await carol.call("GET", f"{TASKS}?message_id={message_id}&state=accepted")).json()["items"]

    told = {each["provider"]: each for each in found}
    assert told["fcm"]["accepted_to_synced_seconds"] is None
    row = await task(stack, UUID(told["apns"]["task_id"]))
    assert told["apns"]["accepted_to_synced_seconds"] == pytest.approx(
        (row.synced_at - row.accepted_at).total_seconds()
    )
    assert told["apns"]["accepted_to_synced_seconds"] > 0
    async with stack.sessions.begin() as db:  # read while the provider was still called
        early = "UPDATE push_tasks SET accepted_at = synced_at + interval '1 s' WHERE task_id = :id"
        await db.execute(text(early), {"id": row.task_id})
    again = (await carol.call("GET", f"{TASKS}/{row.task_id}")).json()["task"]
    assert again["accepted_to_synced_seconds"] == 0
