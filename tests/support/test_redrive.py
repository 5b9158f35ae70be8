"""Redriving one dead push: through all checks again, once, and noted."""

import asyncio
from collections.abc import Callable
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from db.outbox import OutboxEntry
from dispatch.relay import Relay
from operations import redrive as redrives
from simulator import Simulator
from telemetry import metrics
from tests.stack import Phone, Stack, User, android, eventually, iphone, make_app, make_stack, refuse_once
from tests.support.dead import bury, dead_task, redrive, redriven, task


@pytest.mark.parametrize("new_phone", [iphone, android], ids=["apns", "fcm"])
async def test_a_redriven_push_shows_once_and_is_noted(
    stack: Stack, simulator: Simulator, alice: User, carol: User, new_phone: Callable[[], Phone]
) -> None:
    phone = new_phone()
    [task_id] = await dead_task(alice, phone)

    answer = await redrive(carol, task_id)

    assert (answer.status_code, answer.json()["task"]["state"]) == (202, "pending")
    assert await redriven(stack, task_id) == ("accepted", None)
    assert [line.times_received for line in simulator.phone(phone.token).screen] == [1]
    shown = (await carol.call("GET", f"/v1/support/push-tasks/{task_id}")).json()
    assert [(attempt["number"], attempt["outcome"]) for attempt in shown["attempts"]] == [(1, "accepted")]
    [action] = shown["actions"]
    assert (action["actor"], action["action"]) == (carol.user_id, "redrive")
    dead_at = action["detail"].pop("dead_at")
    assert action["detail"] == {"reason": "Shutdown", "attempts": 0}
    assert shown["task"]["created_at"] < dead_at < action["at"]
    assert shown["task"]["token"] == phone.token[-6:]
    assert phone.token not in str(shown)


async def test_a_redriven_push_is_late_since_it_was_redriven(stack: Stack, alice: User, carol: User) -> None:
    [task_id] = await dead_task(alice, iphone(), ends_in=25)  # so it was due 35 s ago
    before, counted_before = _lateness()

    assert (await redrive(carol, task_id)).status_code == 202

    assert await redriven(stack, task_id) == ("accepted", None)
    after, counted = _lateness()
    assert counted == counted_before + 1
    assert 0 < after - before < 25


def _lateness() -> tuple[float, float]:
    """Sum how late pushes were, in seconds, and count them, as the worker here has counted it."""
    labels = {"provider": "apns", "kind": "reminder"}
    names = (f"fastbell_push_lateness_seconds_{each}" for each in ("sum", "count"))
    total, count = (metrics.BOTH.get_sample_value(name, labels) for name in names)
    assert total is not None
    assert count is not None
    return total, count


async def test_what_is_not_dead_cannot_be_redriven(stack: Stack, alice: User, carol: User) -> None:
    [task_id] = await dead_task(alice, iphone())
    assert (await redrive(carol, task_id)).status_code == 202
    assert await redriven(stack, task_id) == ("accepted", None)

    answer = await redrive(carol, task_id)

    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:fastbell:problem:push-not-dead"
    assert answer.json()["reason"] == "not_dead"
    assert (await redrive(carol, uuid4())).status_code == 404


async def test_a_push_that_has_expired_stays_dead(stack: Stack, alice: User, carol: User) -> None:
    [task_id] = await dead_task(alice, iphone())
    await _change(stack, "UPDATE push_tasks SET expires_at = now() WHERE task_id = :id", id=task_id)

    await _assert_refused(stack, carol, task_id, "expired")


@pytest.mark.parametrize("reason", ["session_ended", "session_cancelled", "goal_moved"])
async def test_a_push_of_a_fast_that_is_over_stays_dead(stack: Stack, alice: User, carol: User, reason: str) -> None:
    [task_id] = await dead_task(alice, iphone())
    session_id = (await task(stack, task_id)).conversation_id
    match reason:
        case "session_ended":
            await alice.end(session_id)
        case "session_cancelled":
            await alice.cancel(session_id)
        case _:
            await alice.move_goal(session_id, due_in=3600)

    await _assert_refused(stack, carol, task_id, reason)


async def test_a_push_that_is_not_wanted_stays_dead(stack: Stack, alice: User, carol: User) -> None:
    [task_id] = await dead_task(alice, iphone())
    await alice.call("PUT", "/v1/notification-preferences", {"reminders": False})

    await _assert_refused(stack, carol, task_id, "reminders_off")


async def test_a_push_whose_phone_is_gone_stays_dead(stack: Stack, alice: User, carol: User) -> None:
    signed_out, sold = iphone(), iphone()
    task_ids = {(await task(stack, each)).installation_id: each for each in await dead_task(alice, signed_out, sold)}
    await alice.call("DELETE", f"/v1/device-tokens/{signed_out.installation_id}")
    await stack.user().register(sold)

    await _assert_refused(stack, carol, task_ids[signed_out.installation_id], "no_active_token")
    await _assert_refused(stack, carol, task_ids[sold.installation_id], "token_transferred")


async def test_a_push_behind_an_engaged_cutoff_stays_dead(stack: Stack, alice: User, carol: User) -> None:
    [task_id] = await dead_task(alice, iphone())
    sandbox = "environment = 'sandbox'"  # a route that no other test uses
    await _change(stack, f"UPDATE push_tasks SET {sandbox} WHERE task_id = :id", id=task_id)
    await _change(stack, f"UPDATE device_tokens SET {sandbox} WHERE user_id = :id", id=alice.user_id)
    await _change(
        stack,
        "INSERT INTO brakes (provider, environment, reason, token_errors, answers) "
        "VALUES ('apns', 'sandbox', 'BadDeviceToken', 90, 100)",
    )

    await _assert_refused(stack, carol, task_id, "brake_engaged")
    await _change(stack, "UPDATE brakes SET resumed_at = now() WHERE environment = 'sandbox'")

    assert (await redrive(carol, task_id)).status_code == 202
    assert (await redriven(stack, task_id))[0] == "accepted"


async def test_a_rotated_token_is_followed(stack: Stack, simulator: Simulator, alice: User, carol: User) -> None:
    phone = iphone()
    [task_id] = await dead_task(alice, phone)
    rotated = Phone("apns", iphone().token, phone.installation_id)
    await alice.register(rotated)

    await redrive(carol, task_id)

    assert await redriven(stack, task_id) == ("accepted", None)
    assert not simulator.requests.for_token(phone.token)
    assert len(simulator.phone(rotated.token).screen) == 1


async def test_of_two_people_who_redrive_at_once_one_wins(
    stack: Stack, simulator: Simulator, alice: User, carol: User
) -> None:
    phone = iphone()
    [task_id] = await dead_task(alice, phone)
    async with make_stack(stack.place, make_app(stack.place)) as other:  # in one process they would queue
        dave = other.user(None, "support")
        async with stack.sessions.begin() as db:  # both have to wait for the row
            await db.execute(text("SELECT 1 FROM push_tasks WHERE task_id = :id FOR UPDATE"), {"id": task_id})
            both = asyncio.gather(redrive(carol, task_id), redrive(dave, task_id))
            await eventually(lambda: _waiting(stack, 2))

        answers = await both

    assert sorted(answer.status_code for answer in answers) == [202, 409]
    assert await redriven(stack, task_id) == ("accepted", None)
    assert len(simulator.requests.for_token(phone.token)) == 1
    assert len(await stack.rows("SELECT 1 FROM support_actions WHERE subject_id = :id", id=task_id)) == 1


async def test_however_often_it_is_dispatched_it_is_sent_once(
    stack: Stack, simulator: Simulator, alice: User, carol: User
) -> None:
    phone = iphone()
    [task_id] = await dead_task(alice, phone)
    relay, owed = (
        Relay(stack.sessions, stack.temporal, arm_window=60),
        OutboxEntry(-1, redrives.OUTBOX_KIND, task_id, 1),
    )

    await redrive(carol, task_id)
    await asyncio.gather(*(relay.dispatch(owed) for _ in range(20)))

    assert await redriven(stack, task_id) == ("accepted", None)
    await relay.dispatch(owed)
    assert len(simulator.requests.for_token(phone.token)) == 1


async def test_a_task_redriven_again_while_its_redrive_backs_off_is_sent_once(
    stack: Stack, simulator: Simulator, alice: User, carol: User
) -> None:
    phone = iphone()
    [task_id] = await dead_task(alice, phone)
    refuse_once(simulator, phone)
    await redrive(carol, task_id)
    await eventually(lambda: _has_failed(stack, task_id))
    await bury(stack, task_id)

    assert (await redrive(carol, task_id)).status_code == 202

    assert (await redriven(stack, task_id))[0] == "accepted"
    assert len(simulator.requests.for_token(phone.token)) == 2
    assert [line.times_received for line in simulator.phone(phone.token).screen] == [1]


async def test_a_task_redriven_while_its_fast_is_still_sending_is_sent_once(
    stack: Stack, simulator: Simulator, alice: User, carol: User
) -> None:
    phone = iphone()
    await alice.register(phone)
    refuse_once(simulator, phone)
    session_id = await alice.start_fast(due_in=1.0)
    await eventually(lambda: stack.failed_attempts(session_id, 1))
    [planned] = await stack.tasks(session_id)
    await bury(stack, planned.task_id)

    assert (await redrive(carol, planned.task_id)).status_code == 202

    assert (await redriven(stack, planned.task_id))[0] == "accepted"
    assert await stack.finished(session_id) == "accepted"
    assert len(simulator.requests.for_token(phone.token)) == 2


async def test_a_push_whose_workflow_was_terminated_is_sent_once_its_fast_changes(
    stack: Stack, simulator: Simulator, alice: User
) -> None:
    phone = iphone()
    await alice.register(phone)
    refuse_once(simulator, phone)
    session_id = await alice.start_fast(due_in=1.0)
    await eventually(lambda: stack.failed_attempts(session_id, 1))
    await stack.workflow(session_id).terminate()

    changed = await alice.call("PATCH", f"/v1/fasting-sessions/{session_id}", {"reminder_minutes": [1, 0]})

    assert changed.status_code == 200
    await eventually(lambda: _accepted(stack, session_id))
    assert [line.times_received for line in simulator.phone(phone.token).screen] == [1]
    await alice.end(session_id)


async def _accepted(stack: Stack, session_id: UUID) -> bool:
    """Tell whether the reminder that was due is accepted; the added one may be armed already."""
    return {row.state for row in await stack.tasks(session_id) if row.reminder_minutes == 1} == {"accepted"}


async def _assert_refused(stack: Stack, carol: User, task_id: object, reason: str) -> None:
    shown = (await carol.call("GET", f"/v1/support/push-tasks/{task_id}")).json()["task"]
    answer = await carol.call("POST", f"/v1/support/push-tasks/{task_id}/redrive")
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:fastbell:problem:redrive-refused")
    assert answer.json()["reason"] == shown["redrive_refused"] == reason
    [row] = await stack.rows("SELECT state FROM push_tasks WHERE task_id = :id", id=task_id)
    assert row.state == "dead"
    assert not await stack.rows("SELECT 1 FROM support_actions WHERE subject_id = :id", id=task_id)


async def _has_failed(stack: Stack, task_id: object) -> bool:
    return bool(await stack.rows("SELECT 1 FROM push_attempts WHERE task_id = :id AND outcome <> ''", id=task_id))


async def _waiting(stack: Stack, count: int) -> bool:
    waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return len(await stack.rows(waiting)) >= count


async def _change(stack: Stack, statement: str, **values: object) -> None:
    async with stack.sessions.begin() as db:
        await db.execute(text(statement), values)
