"""What arming finds is not final: the due instant decides, for better as for worse."""

import time

from sqlalchemy import text

from db import device_tokens
from db.device_tokens import Registration
from domain.push import Environment, Provider
from simulator import Simulator
from tests.busy import in_time, lead
from tests.reminders.wishes import Change, phones_after
from tests.stack import Stack, android, eventually, iphone, lasting, refuse, start_held, uncommitted


async def test_a_token_that_rotates_as_the_last_check_looks_is_followed(stack: Stack, simulator: Simulator) -> None:
    user, phone, rotated = stack.user(), iphone(), iphone()
    await user.register(phone)
    [session_id] = await start_held(user, due_in=lead(1.2))
    told = Registration(Provider.APNS, rotated.token, Environment.PRODUCTION)

    async with lasting(stack) as db:
        await device_tokens.register(db, user.user_id, phone.installation_id, told)
        await eventually(stack.someone_waits_for_a_lock)

    assert await stack.finished(session_id) == "accepted"
    assert len(simulator.requests.for_token(rotated.token)) == 1
    assert not simulator.requests.for_token(phone.token)


async def test_what_a_person_wants_while_a_fast_is_asleep_armed_or_held_holds_at_the_due_instant(
    stack: Stack, unarmed: Stack, simulator: Simulator
) -> None:
    full, generic = ["Your fast is almost over"], ["Reminder"]
    cases: list[tuple[Change, list[str]]] = [
        (Change(unarmed, 0, {}, {"reminders": False}), []),  # asleep
        (Change(unarmed, 0, {"reminders": False}, {"reminders": True}), full),
        (Change(unarmed, 0, {}, {"reminder_preview": "generic"}), generic),
        (Change(stack, 0, {"reminders": False}, {"reminders": True}), full),  # armed
        (Change(stack, 1, {}, {"reminders": False}), []),  # held
        (Change(stack, 1, {}, {"reminder_preview": "generic"}), generic),
        (Change(stack, 1, {"reminder_preview": "generic"}, {"reminder_preview": "full"}), full),
        (Change(stack, 1, {}, {"messages": False, "reminder_minutes": [5]}), full),  # of no concern to it
    ]

    phones = await phones_after([change for change, _ in cases])

    sent = [bool(simulator.requests.for_token(phone.token)) for phone in phones]
    shown = [
        [line.title for line in simulator.phone(phone.token).screen] if was_sent else []
        for phone, was_sent in zip(phones, sent, strict=True)
    ]
    assert shown == [expected for _, expected in cases]


async def test_a_goal_moved_away_and_back_before_the_due_instant_is_reminded(
    stack: Stack, simulator: Simulator
) -> None:
    user, phone = stack.user(), iphone()
    await user.register(phone)
    [session_id] = await start_held(user, due_in=lead(2.5))
    path = f"/v1/fasting-sessions/{session_id}"
    ends_at = (await user.call("GET", path)).json()["ends_at"]

    await user.move_goal(session_id, due_in=3600)
    await stack.knows(session_id, rev=2)
    await user.call("PATCH", path, {"ends_at": ends_at})

    assert await stack.finished(session_id) == "accepted"
    assert len(simulator.requests.for_token(phone.token)) == 1


async def test_a_goal_moved_away_and_back_withdraws_what_was_cancelled_meanwhile_and_leaves_nothing_dead(
    stack: Stack, simulator: Simulator
) -> None:
    user, backing_off, called = stack.user(), android(), iphone()
    await user.register(backing_off, called)
    refuse(simulator, backing_off)
    simulator.faults.add(provider="apns", token=called.token, fault="slow", delay=9, count=1)
    session_id = await user.start_fast(due_in=1.0)
    await simulator.phones.received(called.token)
    await eventually(lambda: stack.failed_attempts(session_id, 1))
    path = f"/v1/fasting-sessions/{session_id}"
    ends_at = (await user.call("GET", path)).json()["ends_at"]

    await user.move_goal(session_id, due_in=3600)
    await stack.knows(session_id, rev=2)
    await user.call("PATCH", path, {"ends_at": ends_at})
    await stack.knows(session_id, rev=3)
    assert [task.state for task in await stack.tasks(session_id)] == ["pending", "pending"]  # the call is not over yet
    simulator.faults.clear()

    assert await stack.finished(session_id) == "accepted"
    tasks = [(task.provider, task.state, task.last_reason) for task in await stack.tasks(session_id)]
    assert tasks == [("apns", "accepted", None), ("fcm", "withdrawn", "goal_moved")]


async def test_a_phone_registered_after_arming_is_reminded_too(stack: Stack, simulator: Simulator) -> None:
    user, first, second = stack.user(), iphone(), iphone()
    await user.register(first)
    [session_id] = await start_held(user, due_in=lead(2.0))

    await user.register(second)

    assert await stack.finished(session_id) == "accepted"
    for phone in (first, second):
        assert len(simulator.requests.for_token(phone.token)) == 1


async def test_a_reminder_due_when_others_are_added_stays_due(
    stack: Stack, unarmed: Stack, simulator: Simulator
) -> None:
    user, phone = unarmed.user(), iphone()
    await user.register(phone)
    async with uncommitted(stack, "LOCK TABLE push_tasks IN EXCLUSIVE MODE"):
        session_id = await user.start_fast(due_in=1.0)
        await eventually(stack.someone_waits_for_a_lock)  # whoever that is: another test's worker may be first
        due = "SELECT 1 FROM fasting_sessions WHERE id = :id AND ends_at - interval '1 minute' <= clock_timestamp()"
        await eventually(lambda: stack.rows(due, id=session_id))

        answer = await user.call("PATCH", f"/v1/fasting-sessions/{session_id}", {"reminder_minutes": [1, 0]})

    assert [reminder["state"] for reminder in answer.json()["reminders"]] == ["due", "scheduled"]
    await simulator.phones.received(phone.token)
    await user.cancel(session_id)


async def test_a_stuck_row_delays_nobody_else(stack: Stack, simulator: Simulator) -> None:
    people = [stack.user() for _ in range(12)]
    phones = [iphone() for _ in people]
    for user, phone in zip(people, phones, strict=True):
        await user.register(phone)
    due_at = time.monotonic() + lead(3.0)
    ids = [await people[0].start_fast(due_in=due_at - time.monotonic())]

    async with uncommitted(stack, "SELECT 1 FROM fasting_sessions WHERE id = :id FOR UPDATE", id=ids[0]):
        ids += [await user.start_fast(due_in=due_at - time.monotonic()) for user in people[1:]]
        for phone in phones[1:]:
            await simulator.phones.received(phone.token)
        tasks = [(await stack.tasks(session_id))[0] for session_id in ids[1:]]
        lateness = [
            (simulator.requests.for_token(phone.token)[0].received_at - task.due_at).total_seconds()
            for phone, task in zip(phones[1:], tasks, strict=True)
        ]
        assert in_time(max(lateness), 3.0)
        assert not simulator.requests.for_token(phones[0].token)

    assert await stack.finished(ids[0]) == "accepted"


async def test_an_attempt_lost_with_its_worker_is_closed_when_the_fast_is_over(stack: Stack) -> None:
    user, phone = stack.user(), iphone()
    await user.register(phone)
    [session_id] = await start_held(user, due_in=lead(1.5))
    lost = (
        "INSERT INTO push_attempts (attempt_id, task_id, number, started_at) "
        "SELECT gen_random_uuid(), task_id, 1, now() - interval '1 minute' FROM push_tasks WHERE conversation_id = :id"
    )
    async with stack.sessions.begin() as db:
        await db.execute(text(lost), {"id": session_id})
        await db.execute(
            text("UPDATE push_tasks SET attempt_count = 1 WHERE conversation_id = :id"), {"id": session_id}
        )

    await user.end(session_id)

    await stack.finished(session_id)
    joined = "SELECT outcome, a.reason FROM push_attempts a JOIN push_tasks USING (task_id) WHERE conversation_id = :id"
    assert [tuple(row) for row in await stack.rows(joined, id=session_id)] == [("unknown", "worker_lost")]
