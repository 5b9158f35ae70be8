"""What each answer of a provider does to the push, its token and the log."""

import time
from collections.abc import Callable
from uuid import UUID

import pytest

from simulator import Simulator
from tests.stack import House, Phone, User, android, eventually, iphone, refuse_once
from tests.support.timelines import timeline

Words = dict[str, str | int]
NewPhone = Callable[[], Phone]
PROVIDERS = pytest.mark.parametrize("new_phone", [iphone, android], ids=["apns", "fcm"])


@PROVIDERS
async def test_an_accepted_push_is_recorded_with_its_one_attempt(
    house: House, simulator: Simulator, new_phone: NewPhone
) -> None:
    phone = new_phone()
    session_id, _ = await _reminded(house, phone)

    [task] = await house.tasks(session_id)
    [attempt] = await house.rows("SELECT * FROM push_attempts WHERE task_id = :id", id=task.task_id)
    assert (task.state, task.last_reason, task.attempt_count, task.next_attempt_at) == ("accepted", None, 1, None)
    assert task.accepted_at > task.due_at
    assert (attempt.number, attempt.outcome, attempt.reason) == (1, "accepted", None)
    assert attempt.latency_ms >= 0
    assert len(simulator.requests.for_token(phone.token)) == 1


@PROVIDERS
async def test_a_dead_token_is_deactivated_not_deleted_and_asks_for_a_refresh(
    house: House, simulator: Simulator, new_phone: NewPhone
) -> None:
    phone = new_phone()
    seen_dead: Words = {"status": 410, "reason": "Unregistered", "timestamp": _milliseconds(time.time() + 60)}
    _answer(simulator, phone, apns=seen_dead, fcm={"error_code": "UNREGISTERED"})

    session_id, user = await _reminded(house, phone)

    [task] = await house.tasks(session_id)
    [row] = (await user.call("GET", "/v1/device-tokens")).json()["items"]
    events = await house.rows(
        "SELECT event, reason FROM device_token_events WHERE device_id = :id ORDER BY id", id=row["id"]
    )
    reason = "Unregistered" if phone.provider == "apns" else "UNREGISTERED"
    assert (task.state, task.last_reason) == ("unregistered", reason)
    assert (row["active"], row["inactive_reason"], row["refresh_required"]) == (False, "invalidated", True)
    assert [tuple(event) for event in events] == [("registered", None), ("invalidated", reason)]


async def test_a_token_registered_after_the_provider_saw_it_die_stays_active(
    house: House, simulator: Simulator
) -> None:
    phone = iphone()
    words = {"status": 410, "reason": "Unregistered", "timestamp": _milliseconds(time.time() - 60)}
    simulator.faults.add(provider="apns", token=phone.token, fault="answer", **words)

    session_id, user = await _reminded(house, phone)

    [task] = await house.tasks(session_id)
    [row] = (await user.call("GET", "/v1/device-tokens")).json()["items"]
    assert task.state == "unregistered"
    assert row["active"]
    [told] = [
        each["text"]
        for each in await timeline(house.user(None, "support"), user.user_id)
        if each["event"] == "unregistered"
    ]
    assert "Apple says that the token was dead before the app registered it last" in told


@PROVIDERS
async def test_a_push_the_provider_will_never_take_is_not_tried_again(
    house: House, simulator: Simulator, new_phone: NewPhone
) -> None:
    phone = new_phone()
    refused: Words = {"status": 400, "reason": "PayloadEmpty"}
    _answer(simulator, phone, apns=refused, fcm={"error_code": "INVALID_ARGUMENT"})

    session_id, user = await _reminded(house, phone)

    [task] = await house.tasks(session_id)
    [row] = (await user.call("GET", "/v1/device-tokens")).json()["items"]
    assert (task.state, task.attempt_count) == ("rejected", 1)
    assert row["active"]
    assert len(simulator.requests.for_token(phone.token)) == 1


@PROVIDERS
async def test_trouble_that_passes_is_tried_again_and_shows_once(
    house: House, simulator: Simulator, new_phone: NewPhone
) -> None:
    phone = new_phone()
    refuse_once(simulator, phone)

    session_id, _ = await _reminded(house, phone)

    [task] = await house.tasks(session_id)
    attempts = await house.rows(
        "SELECT outcome FROM push_attempts WHERE task_id = :id ORDER BY number", id=task.task_id
    )
    assert (task.state, task.attempt_count) == ("accepted", 2)
    assert [attempt.outcome for attempt in attempts] == ["unavailable", "accepted"]  # a 503 is an answer
    assert len(simulator.requests.for_token(phone.token)) == 2
    assert [line.times_received for line in simulator.phone(phone.token).screen] == [1]


async def test_a_push_delivered_but_answered_with_an_error_shows_as_one_line(
    house: House, simulator: Simulator
) -> None:
    phone = iphone()
    simulator.faults.add(provider="apns", token=phone.token, fault="accept_then_fail", count=1)

    session_id, _ = await _reminded(house, phone)

    assert [line.times_received for line in simulator.phone(phone.token).screen] == [2]
    assert [task.attempt_count for task in await house.tasks(session_id)] == [2]


async def test_retry_after_is_a_floor(house: House, simulator: Simulator) -> None:
    phone = android()
    words: Words = {"error_code": "QUOTA_EXCEEDED", "retry_after": 3}
    simulator.faults.add(provider="fcm", token=phone.token, fault="answer", count=1, **words)
    user = house.user()
    await user.register(phone)

    session_id = await user.start_fast(due_in=1.0)

    await eventually(lambda: house.failed_attempts(session_id, 1))
    [task] = await house.tasks(session_id)
    assert (task.next_attempt_at - task.due_at).total_seconds() >= 3
    await user.cancel(session_id)
    assert await house.finished(session_id) == "session_cancelled"
    assert len(simulator.requests.for_token(phone.token)) == 1


async def test_a_reminder_without_any_device_still_enters_the_log_when_due(house: House) -> None:
    user = house.user()

    session_id = await user.start_fast(due_in=1.0)

    assert await house.finished(session_id) == "withheld"
    [item] = await house.rows(
        "SELECT seq, kind FROM log_items JOIN messages ON id = message_id WHERE user_id = :u", u=user.user_id
    )
    assert tuple(item) == (1, "reminder")


async def test_the_log_gets_the_reminder_once_and_not_before_it_is_due(house: House) -> None:
    user = house.user()
    await user.register(iphone(), android())
    session_id = await user.start_fast(due_in=1.0)
    await eventually(lambda: house.holds_sends(session_id, 2))
    before = await house.rows("SELECT 1 FROM log_items WHERE user_id = :u", u=user.user_id)

    await house.finished(session_id)

    after = await house.rows("SELECT seq FROM log_items WHERE user_id = :u", u=user.user_id)
    assert (before, [tuple(item) for item in after]) == ([], [(1,)])


async def test_reminders_switched_off_while_armed_are_withdrawn(house: House, simulator: Simulator) -> None:
    user, phone = house.user(), iphone()
    await user.register(phone)
    session_id = await user.start_fast(due_in=1.2)
    await eventually(lambda: house.holds_sends(session_id, 1))

    await user.call("PUT", "/v1/notification-preferences", {"reminders": False})

    await house.finished(session_id)
    assert [(task.state, task.last_reason) for task in await house.tasks(session_id)] == [
        ("withdrawn", "reminders_off")
    ]
    assert not simulator.requests.for_token(phone.token)


async def _reminded(house: House, phone: Phone) -> tuple[UUID, User]:
    user = house.user()
    await user.register(phone)
    session_id = await user.start_fast(due_in=1.0)
    await house.finished(session_id)
    return session_id, user


def _answer(simulator: Simulator, phone: Phone, *, apns: Words, fcm: Words) -> None:
    words = apns if phone.provider == "apns" else fcm
    simulator.faults.add(provider=phone.provider, token=phone.token, fault="answer", **words)


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
