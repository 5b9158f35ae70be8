"""A phone whose token was dead registers again: what it missed and can still use comes after all, and only to it."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from db import device_tokens
from db.engine import is_contended
from domain.kinds import Kind
from domain.push import Environment, PlannedSend, Provider
from operations import redrive as redrives
from operations.redrive import RedriveState
from push.sender import Unregistered
from sending.attempts import check_pushes
from sending.outcomes import answered, end_attempts
from sending.precheck import Claim, Proceed, Verdict
from simulator import Simulator
from tests.stack import Phone, Stack, User, android, eventually, iphone, lasting, refuse_once
from tests.support.dead import dead_task, redriven, task
from tests.talk import conversation_of, handed_off, posted, posted_and_refused, sync, tasks_of
from workflows.redrive import Redrive


def again(phone: Phone, other: Phone | None = None) -> Phone:
    """The same installation with a new token."""
    other = other or (iphone() if phone.provider == "apns" else android())
    return Phone(other.provider, other.token, phone.installation_id)


def dead_token(simulator: Simulator, phone: Phone) -> None:
    """Let the provider call this phone's token dead."""
    words = {"apns": {"reason": "Unregistered", "status": 410}, "fcm": {"error_code": "UNREGISTERED", "status": 404}}
    simulator.faults.add(provider=phone.provider, token=phone.token, fault="answer", **words[phone.provider])


async def missed(stack: Stack, user: User, phone: Phone, **columns: Any) -> UUID:
    """Give somebody a reminder whose push was refused since the token is dead."""
    [task_id] = await dead_task(user, phone, reason="Unregistered")
    columns = {"state": "unregistered"} | columns
    async with stack.sessions.begin() as db:
        words = ", ".join(f"{name} = :{name}" for name in columns)
        await db.execute(text(f"UPDATE push_tasks SET {words} WHERE task_id = :id"), {"id": task_id, **columns})
        invalid = "UPDATE device_tokens SET active = false, inactive_reason = 'invalidated' WHERE installation_id = :id"
        await db.execute(text(invalid), {"id": phone.installation_id})
    return task_id


async def state_of(stack: Stack, task_id: UUID) -> str:
    return str((await task(stack, task_id)).state)


@pytest.mark.parametrize("new_phone", [iphone, android], ids=["apns", "fcm"])
async def test_a_message_missed_for_a_dead_token_comes_once_the_app_registers(
    stack: Stack, simulator: Simulator, alice: User, bob: User, new_phone: Any
) -> None:
    phone = new_phone()
    await bob.register(phone)
    dead_token(simulator, phone)
    message_id = await posted(alice, await conversation_of(alice, bob))
    await handed_off(stack, message_id)
    [refused] = await tasks_of(stack, message_id)
    told = (await bob.call("GET", "/v1/device-tokens")).json()["items"]
    assert (refused.state, [row["refresh_required"] for row in told]) == ("unregistered", [True])
    fresh = again(phone)

    await bob.register(fresh)

    assert await redriven(stack, refused.task_id) == ("accepted", None)
    [row] = await tasks_of(stack, message_id)
    assert (row.attempt_count, row.next_attempt_at) == (2, None)
    assert [line.times_received for line in simulator.phone(fresh.token).screen] == [1]
    assert len(simulator.requests.for_token(phone.token)) == 1
    [now] = [row for row in (await bob.call("GET", "/v1/device-tokens")).json()["items"] if row["active"]]
    assert not now["refresh_required"]


async def test_a_reminder_follows_its_phone_to_another_provider_and_environment(
    stack: Stack, simulator: Simulator, alice: User
) -> None:
    phone = iphone()
    task_id = await missed(stack, alice, phone)
    fresh = again(phone, android())

    await alice.register(fresh)

    assert await redriven(stack, task_id) == ("accepted", None)
    row = await task(stack, task_id)
    [device] = await stack.rows("SELECT id FROM device_tokens WHERE token = :token", token=fresh.token)
    assert (row.provider, row.environment, row.device_id) == ("fcm", "production", device.id)
    assert [line.times_received for line in simulator.phone(fresh.token).screen] == [1]


async def test_the_same_token_registered_again_brings_back_what_was_refused(
    stack: Stack, simulator: Simulator, alice: User
) -> None:
    phone = iphone()
    task_id = await missed(stack, alice, phone)

    await alice.register(phone)

    assert await redriven(stack, task_id) == ("accepted", None)
    assert len(simulator.requests.for_token(phone.token)) == 1


@pytest.mark.parametrize("reason", ["no_active_token", "token_changed"])
async def test_what_was_withdrawn_for_want_of_the_token_comes_too(stack: Stack, alice: User, reason: str) -> None:
    phone = iphone()
    task_id = await missed(stack, alice, phone, state="withdrawn", last_reason=reason)

    await alice.register(again(phone))

    assert await redriven(stack, task_id) == ("accepted", None)


NOT_MISSED = {
    "opened": "UPDATE push_tasks SET opened_at = now() WHERE task_id = :id",
    "read": "UPDATE push_tasks SET synced_at = now() WHERE task_id = :id",
    "expired": "UPDATE push_tasks SET expires_at = now() WHERE task_id = :id",
    "transferred": "UPDATE push_tasks SET state = 'withdrawn', last_reason = 'token_transferred' WHERE task_id = :id",
    "unwanted": "UPDATE push_tasks SET state = 'withdrawn', last_reason = 'reminders_off' WHERE task_id = :id",
    "rejected": "UPDATE push_tasks SET state = 'rejected' WHERE task_id = :id",
    "dead": "UPDATE push_tasks SET state = 'dead' WHERE task_id = :id",
}


@pytest.mark.parametrize("why", NOT_MISSED)
async def test_what_was_not_missed_or_is_of_no_use_stays_as_it_is(stack: Stack, alice: User, why: str) -> None:
    phone = iphone()
    task_id = await missed(stack, alice, phone)
    async with stack.sessions.begin() as db:
        await db.execute(text(NOT_MISSED[why]), {"id": task_id})
    before = await task(stack, task_id)

    await alice.register(again(phone))

    assert await task(stack, task_id) == before
    assert not await stack.rows("SELECT 1 FROM outbox WHERE subject_id = :id", id=task_id)


async def test_of_each_line_only_the_newest_comes_back(
    stack: Stack, simulator: Simulator, alice: User, bob: User
) -> None:
    phone = iphone()
    await bob.register(phone)
    dead_token(simulator, phone)
    here, there = await conversation_of(alice, bob), await conversation_of(alice, bob)
    message_ids = []
    for conversation_id in (here, here, there):  # each after the other, so that the first is the one that is refused
        message_ids.append(await posted(alice, conversation_id))
        await handed_off(stack, message_ids[-1])
    async with stack.sessions.begin() as db:  # what came after the first answer found no token, so it was not planned
        missed = {"first": message_ids[0], "second": message_ids[1]}
        await db.execute(_MISSED_TOO, missed)
        refused = "UPDATE push_tasks SET state = 'unregistered', last_reason = 'Unregistered' WHERE user_id = :id"
        await db.execute(text(refused), {"id": bob.user_id})
    [older], [newest] = [await tasks_of(stack, message_id) for message_id in message_ids[:2]]
    assert older.collapse_key == newest.collapse_key
    fresh = again(phone)

    await bob.register(fresh)

    assert await redriven(stack, newest.task_id) == ("accepted", None)
    assert await state_of(stack, older.task_id) == "unregistered"


_MISSED_TOO = text("""
    INSERT INTO push_tasks
    SELECT (jsonb_populate_record(t, jsonb_build_object('task_id', gen_random_uuid(), 'message_id', :second ::uuid,
                                                        'due_at', t.due_at + interval '1 ms'))).*
      FROM push_tasks t WHERE t.message_id = :first
""")


async def test_a_line_that_a_newer_push_has_taken_is_left_to_it(stack: Stack, alice: User) -> None:
    phone = iphone()
    task_id = await missed(stack, alice, phone)
    newer = (
        "INSERT INTO push_tasks (task_id, message_id, kind, user_id, installation_id, device_id, provider, environment,"
        " conversation_id, collapse_key, due_at, attempt_count, state, accepted_at, expires_at)"
        " SELECT gen_random_uuid(), gen_random_uuid(), kind, user_id, installation_id, device_id, provider,"
        " environment, conversation_id, collapse_key, due_at + interval '1 s', 1, 'accepted', now(), expires_at"
        " FROM push_tasks WHERE task_id = :id"
    )
    async with stack.sessions.begin() as db:
        await db.execute(text(newer), {"id": task_id})

    await alice.register(again(phone))

    assert await state_of(stack, task_id) == "unregistered"


async def test_somebody_else_who_registers_on_that_phone_gets_nothing(
    stack: Stack, simulator: Simulator, alice: User, bob: User
) -> None:
    phone = iphone()
    task_id = await missed(stack, alice, phone)
    his = again(phone)

    await bob.register(his)

    assert await state_of(stack, task_id) == "unregistered"
    assert not await stack.rows("SELECT 1 FROM outbox WHERE subject_id = :id", id=task_id)
    assert not simulator.requests.for_token(his.token)


async def test_a_phone_sold_while_its_missed_push_is_on_its_way_again_shows_nothing_of_it(
    stack: Stack, simulator: Simulator, alice: User, bob: User
) -> None:
    phone = iphone()
    task_id = await missed(stack, alice, phone)
    fresh = again(phone)
    async with lasting(stack) as db:  # whoever claims the task waits for us
        await db.execute(text("SELECT 1 FROM fasting_sessions WHERE user_id = :id FOR UPDATE"), {"id": alice.user_id})
        await alice.register(fresh)
        await bob.register(fresh)

    assert await redriven(stack, task_id) == ("withdrawn", "token_transferred")
    assert not simulator.requests.for_token(fresh.token)


async def test_a_push_that_is_checked_while_its_phone_registers_finds_the_new_token(stack: Stack, alice: User) -> None:
    phone, fresh = iphone(), iphone()
    task_id = await missed(stack, alice, phone, state="pending")
    told = device_tokens.Registration(Provider.APNS, fresh.token, Environment.PRODUCTION)

    async with lasting(stack) as db:
        row = await device_tokens.register(db, alice.user_id, phone.installation_id, told)
        await redrives.revive(db, row)
        checking = asyncio.create_task(_checked(stack, task_id))
        await eventually(stack.someone_waits_for_a_lock)
    verdict = await checking

    assert isinstance(verdict, Proceed)
    assert verdict.push.token == fresh.token


async def test_a_push_refused_for_a_token_that_was_replaced_meanwhile_goes_to_the_new_one(
    stack: Stack, simulator: Simulator, alice: User
) -> None:
    phone = iphone()
    task_id = await missed(stack, alice, phone, state="pending")
    await alice.register(phone)
    [go] = await check_pushes(stack.sessions, [Claim(task_id)])
    assert isinstance(go, Proceed)
    fresh = again(phone)
    await alice.register(fresh)

    await end_attempts(stack.sessions, [answered(go, Unregistered("Unregistered", None), 0.1, (), 0.2)])

    assert await redriven(stack, task_id) == ("accepted", None)
    assert [line.times_received for line in simulator.phone(fresh.token).screen] == [1]


@pytest.mark.parametrize("new_owner", [False, True], ids=["same token", "somebody else's"])
async def test_a_push_refused_where_its_user_has_no_new_token_stays_refused(
    stack: Stack, alice: User, bob: User, new_owner: bool
) -> None:
    phone = iphone()
    task_id = await missed(stack, alice, phone, state="pending")
    await alice.register(phone)
    [go] = await check_pushes(stack.sessions, [Claim(task_id)])
    assert isinstance(go, Proceed)
    if new_owner:
        await bob.register(again(phone))

    await end_attempts(stack.sessions, [answered(go, Unregistered("Unregistered", None), 0.1, (), 0.2)])

    assert await state_of(stack, task_id) == "unregistered"
    assert not await stack.rows("SELECT 1 FROM outbox WHERE subject_id = :id", id=task_id)


@pytest.mark.parametrize("new", [{"environment": "sandbox"}, {}], ids=["environment", "provider"])
async def test_a_push_in_back_off_follows_its_phone_to_another_address(
    stack: Stack, simulator: Simulator, alice: User, bob: User, new: dict[str, str]
) -> None:
    while (refused := await _moved_in_back_off(stack, alice, bob, new)) is None:
        pass
    message_id, fresh = refused

    await handed_off(stack, message_id)
    [row] = await tasks_of(stack, message_id)
    assert await redriven(stack, row.task_id) == ("accepted", None)
    assert [line.times_received for line in simulator.phone(fresh.token).screen] == [1]


async def _moved_in_back_off(stack: Stack, alice: User, bob: User, new: dict[str, str]) -> tuple[UUID, Phone] | None:
    """Let a phone register another address while its push is in back-off; None where its next attempt came sooner."""
    phone = iphone()
    await bob.register(phone)
    message_id = await posted_and_refused(alice, await conversation_of(alice, bob), phone)
    fresh = again(phone, None if new else android())
    await bob.register(fresh, **new)
    tried_sooner = (
        "SELECT 1 FROM push_attempts JOIN push_tasks USING (task_id) WHERE message_id = :id AND number = 2 AND"
        " started_at <= (SELECT max(registered_at) FROM device_tokens WHERE user_id = :user)"
    )
    if not await stack.rows(tried_sooner, id=message_id, user=bob.user_id):
        return message_id, fresh
    await bob.call("DELETE", f"/v1/device-tokens/{fresh.installation_id}")
    return None


async def test_a_push_that_is_taken_back_before_its_redrive_is_through_goes_to_where_it_goes_now(
    stack: Stack, simulator: Simulator, alice: User
) -> None:
    phone = iphone()
    task_id = await missed(stack, alice, phone)
    refuse_once(simulator, phone)
    await alice.register(phone)

    async def refused() -> bool:
        return bool((await task(stack, task_id)).last_reason == "ServiceUnavailable")

    await eventually(refused)
    row, fresh = await task(stack, task_id), again(phone, android())
    await alice.register(fresh)
    moved = PlannedSend(task_id, Provider.FCM, Environment.PRODUCTION, None, Kind.REMINDER)
    state = RedriveState(moved, row.conversation_id, row.due_at, row.expires_at)
    await stack.temporal.get_workflow_handle(f"redrive/{task_id}").signal(Redrive.again, state)  # as the relay does

    assert await redriven(stack, task_id) == ("accepted", None)
    assert [line.times_received for line in simulator.phone(fresh.token).screen] == [1]


async def test_an_app_that_syncs_before_it_registers_is_not_pushed_to(
    stack: Stack, simulator: Simulator, alice: User, bob: User
) -> None:
    phone = iphone()
    await bob.register(phone)
    dead_token(simulator, phone)
    message_id = await posted(alice, await conversation_of(alice, bob))
    await handed_off(stack, message_id)
    page = await sync(bob, phone.installation_id)
    assert page["refresh_required"]
    await sync(bob, phone.installation_id, after=page["next_cursor"])

    await bob.register(again(phone))

    [row] = await tasks_of(stack, message_id)
    assert row.state == "unregistered"
    assert row.synced_at is not None


async def test_a_task_that_somebody_holds_does_not_keep_a_phone_from_registering(stack: Stack, alice: User) -> None:
    phone = iphone()
    task_id = await missed(stack, alice, phone)

    async with lasting(stack) as db:
        await db.execute(text("SELECT 1 FROM push_tasks WHERE task_id = :id FOR UPDATE"), {"id": task_id})
        await alice.register(again(phone))
        assert await state_of(stack, task_id) == "unregistered"

    await alice.register(again(phone))
    assert await eventually(lambda: _accepted(stack, task_id))


async def _checked(stack: Stack, task_id: UUID) -> Verdict:
    """Check a push, again and again while another transaction holds it: a check waits for a moment only."""
    while True:
        try:
            [verdict] = await check_pushes(stack.sessions, [Claim(task_id)])
        except DBAPIError as error:
            if not is_contended(error):
                raise
        else:
            return verdict


async def _accepted(stack: Stack, task_id: UUID) -> bool:
    return await state_of(stack, task_id) == "accepted"
