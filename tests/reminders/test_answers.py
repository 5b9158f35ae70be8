"""What each answer of a provider does to the push, its token and the log."""

import time
from collections.abc import Callable
from uuid import UUID

import pytest

from simulator import Simulator
from tests.busy import lead
from tests.stack import Phone, Stack, User, android, eventually, iphone, refuse_once, start_held
from tests.support.timelines import timeline

Words = dict[str, str | int]
NewPhone = Callable[[], Phone]
PROVIDERS = pytest.mark.parametrize("new_phone", [iphone, android], ids=["apns", "fcm"])


@PROVIDERS
async def test_an_accepted_push_is_recorded_with_its_one_attempt(
    stack: Stack, simulator: Simulator, new_phone: NewPhone
) -> None:
    phone = new_phone()
    session_id, _ = await _reminded(stack, phone)

    [task] = await stack.tasks(session_id)
    [attempt] = await stack.rows("SELECT * FROM push_attempts WHERE task_id = :id", id=task.task_id)
    assert (task.state, task.last_reason, task.attempt_count, task.next_attempt_at) == ("accepted", None, 1, None)
    assert task.accepted_at > task.due_at
    assert (attempt.number, attempt.outcome, attempt.reason) == (1, "accepted", None)
    assert attempt.latency_ms >= 0
    assert len(simulator.requests.for_token(phone.token)) == 1


@PROVIDERS
async def test_a_dead_token_is_deactivated_not_deleted_and_asks_for_a_refresh(
    stack: Stack, simulator: Simulator, new_phone: NewPhone
) -> None:
    phone = new_phone()
    seen_dead: Words = {"status": 410, "reason": "Unregistered", "timestamp": _milliseconds(time.time() + 60)}
    _answer(simulator, phone, apns=seen_dead, fcm={"error_code": "UNREGISTERED"})

    session_id, user = await _reminded(stack, phone)

    [task] = await stack.tasks(session_id)
    [row] = (await user.call("GET", "/v1/device-tokens")).json()["items"]
    events = await stack.rows(
        "SELECT event, reason FROM device_token_events WHERE device_id = :id ORDER BY id", id=row["id"]
    )
    reason = "Unregistered" if phone.provider == "apns" else "UNREGISTERED"
    assert (task.state, task.last_reason) == ("unregistered", reason)
    assert (row["active"], row["inactive_reason"], row["refresh_required"]) == (False, "invalidated", True)
    assert [tuple(event) for event in events] == [("registered", None), ("invalidated", reason)]


async def test_a_token_registered_after_the_provider_saw_it_die_stays_active(
    stack: Stack, simulator: Simulator
) -> None:
    phone = iphone()
    words = {"status": 410, "reason": "Unregistered", "timestamp": _milliseconds(time.time() - 60)}
    simulator.faults.add(provider="apns", token=phone.token, fault="answer", **words)

    session_id, user = await _reminded(stack, phone)

    [task] = await stack.tasks(session_id)
    [row] = (await user.call("GET", "/v1/device-tokens")).json()["items"]
    assert task.state == "unregistered"
    assert row["active"]
    [told] = [
        each["text"]
        for each in await timeline(stack.user(None, "support"), user.user_id)
        if each["event"] == "unregistered"
    ]
    assert "Apple says that the token was dead before the app registered it last" in told


@PROVIDERS
async def test_a_push_the_provider_will_never_take_is_not_tried_again(
    stack: Stack, simulator: Simulator, new_phone: NewPhone
) -> None:
    phone = new_phone()
    refused: Words = {"status": 400, "reason": "PayloadEmpty"}
    _answer(simulator, phone, apns=refused, fcm={"error_code": "INVALID_ARGUMENT"})

    session_id, user = await _reminded(stack, phone)

    [task] = await stack.tasks(session_id)
    [row] = (await user.call("GET", "/v1/device-tokens")).json()["items"]
    assert (task.state, task.attempt_count) == ("rejected", 1)
    assert row["active"]
    assert len(simulator.requests.for_token(phone.token)) == 1


@PROVIDERS
async def test_trouble_that_passes_is_tried_again_and_shows_once(
    stack: Stack, simulator: Simulator, new_phone: NewPhone
) -> None:
    phone = new_phone()
    refuse_once(simulator, phone)

    session_id, _ = await _reminded(stack, phone)

    [task] = await stack.tasks(session_id)
    attempts = await stack.rows(
        "SELECT outcome FROM push_attempts WHERE task_id = :id ORDER BY number", id=task.task_id
    )
    assert (task.state, task.attempt_count) == ("accepted", 2)
    assert [attempt.outcome for attempt in attempts] == ["unavailable", "accepted"]  # a 503 is an answer
    assert len(simulator.requests.for_token(phone.token)) == 2
    assert [line.times_received for line in simulator.phone(phone.token).screen] == [1]


async def test_a_push_delivered_but_answered_with_an_error_shows_as_one_line(
    stack: Stack, simulator: Simulator
) -> None:
    phone = iphone()
    simulator.faults.add(provider="apns", token=phone.token, fault="accept_then_fail", count=1)

    session_id, _ = await _reminded(stack, phone)

    assert [line.times_received for line in simulator.phone(phone.token).screen] == [2]
    assert [task.attempt_count for task in await stack.tasks(session_id)] == [2]


async def test_retry_after_is_a_floor(stack: Stack, simulator: Simulator) -> None:
    phone = android()
    words: Words = {"error_code": "QUOTA_EXCEEDED", "retry_after": 3}
    simulator.faults.add(provider="fcm", token=phone.token, fault="answer", count=1, **words)
    user = stack.user()
    await user.register(phone)

    session_id = await user.start_fast(due_in=1.0)

    await eventually(lambda: stack.failed_attempts(session_id, 1))
    [task] = await stack.tasks(session_id)
    assert (task.next_attempt_at - task.due_at).total_seconds() >= 3
    await user.cancel(session_id)
    assert await stack.finished(session_id) == "session_cancelled"
    assert len(simulator.requests.for_token(phone.token)) == 1


async def test_a_reminder_without_any_device_still_enters_the_log_when_due(stack: Stack) -> None:
    user = stack.user()

    session_id = await user.start_fast(due_in=1.0)

    assert await stack.finished(session_id) == "withheld"
    [item] = await stack.rows(
        "SELECT seq, kind FROM log_items JOIN messages ON id = message_id WHERE user_id = :u", u=user.user_id
    )
    assert tuple(item) == (1, "reminder")


async def test_the_log_gets_the_reminder_once_and_not_before_it_is_due(stack: Stack) -> None:
    user = stack.user()
    await user.register(iphone(), android())
    [session_id] = await start_held(user, due_in=lead(1.0), sends=2)
    before = await stack.rows("SELECT 1 FROM log_items WHERE user_id = :u", u=user.user_id)

    await stack.finished(session_id)

    after = await stack.rows("SELECT seq FROM log_items WHERE user_id = :u", u=user.user_id)
    assert (before, [tuple(item) for item in after]) == ([], [(1,)])


async def test_reminders_switched_off_while_armed_are_withdrawn(stack: Stack, simulator: Simulator) -> None:
    user, phone = stack.user(), iphone()
    await user.register(phone)
    [session_id] = await start_held(user, due_in=lead(1.2))

    await user.call("PUT", "/v1/notification-preferences", {"reminders": False})

    await stack.finished(session_id)
    assert [(task.state, task.last_reason) for task in await stack.tasks(session_id)] == [
        ("withdrawn", "reminders_off")
    ]
    assert not simulator.requests.for_token(phone.token)


async def _reminded(stack: Stack, phone: Phone) -> tuple[UUID, User]:
    user = stack.user()
    await user.register(phone)
    session_id = await user.start_fast(due_in=1.0)
    await stack.finished(session_id)
    return session_id, user


def _answer(simulator: Simulator, phone: Phone, *, apns: Words, fcm: Words) -> None:
    words = apns if phone.provider == "apns" else fcm
    simulator.faults.add(provider=phone.provider, token=phone.token, fault="answer", **words)


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
