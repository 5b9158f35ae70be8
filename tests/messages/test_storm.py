"""Somebody writes without a pause: few pushes, one sound, the newest text, every message by sync; nobody else waits."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from simulator import Simulator
from tests.busy import in_time
from tests.stack import UNLIMITED, Phone, Stack, User, android, eventually, iphone, make_app, make_stack, refuse_once
from tests.talk import conversation_of, handed_off, has_looked, posted, sync, tasks_of

MESSAGES, READERS, FASTERS = 60, 10, 12
MAX_PUSHES = 5  # to one phone, in a storm of some seconds
ON_TIME = 2.0  # seconds


@pytest.fixture
async def stack(stack: Stack) -> AsyncIterator[Stack]:
    """The stack through an API process that lets everybody write as fast as they can."""
    async with make_stack(stack.place, make_app(stack.place, **UNLIMITED)) as api_stack:
        yield api_stack


@pytest.mark.alone
@pytest.mark.timeout(90)
async def test_a_storm_collapses_before_it_becomes_sends_and_reminders_of_others_are_on_time(
    stack: Stack, simulator: Simulator, alice: User
) -> None:
    readers = [(stack.user(), android() if number % 2 else iphone()) for number in range(READERS)]
    for reader, phone in readers:
        await reader.register(phone)
        await reader.call("PUT", "/v1/notification-preferences", {"message_preview": "full"})
    conversation_id = await conversation_of(alice, *(reader for reader, _ in readers))
    fasters = [stack.user() for _ in range(FASTERS)]
    for faster in fasters:
        await faster.register(iphone())
    fasts = [await each.start_fast(due_in=2 + 0.2 * number) for number, each in enumerate(fasters)]

    began_at = time.monotonic()
    message_ids = [await posted(alice, conversation_id, f"number {number}") for number in range(1, MESSAGES + 1)]
    lasted = time.monotonic() - began_at
    for message_id in message_ids:
        await handed_off(stack, message_id)

    assert in_time(lasted, 10.0)
    pushes = await stack.rows("SELECT * FROM push_tasks WHERE conversation_id = :id", id=conversation_id)
    sent = Counter(task.installation_id for task in pushes if task.last_reason != "superseded" or task.attempt_count)
    assert len(pushes) == MESSAGES * READERS
    assert {task.state for task in pushes} == {"accepted", "withdrawn"}
    assert {task.state for task in await tasks_of(stack, message_ids[-1])} == {"accepted"}
    for reader, phone in readers:
        log = simulator.phone(phone.token).log
        [line] = simulator.phone(phone.token).screen
        assert line.notification.body == f"number {MESSAGES}"
        assert len(log) == sent[phone.installation_id] <= MAX_PUSHES + lasted // 10  # a line rests for 10 s at most
        assert [receipt.sounded_timestamp is not None for receipt in log] == [True] + [False] * (len(log) - 1)
        synced = await sync(reader, phone.installation_id, limit=MESSAGES)
        assert [item["id"] for item in synced["items"]] == [str(each) for each in message_ids]
    for fast in fasts:
        assert await stack.finished(fast) == "accepted"
        [task] = await stack.tasks(fast)
        assert in_time((task.accepted_at - task.due_at).total_seconds(), ON_TIME)


async def test_a_second_message_is_pushed_at_once_and_replaces_the_first_without_a_sound(
    stack: Stack, simulator: Simulator, alice: User, bob: User
) -> None:
    phones = [iphone(), android()]
    await bob.register(*phones)
    conversation_id = await conversation_of(alice, bob)

    for _ in range(2):
        message_id = await posted(alice, conversation_id)
        assert await handed_off(stack, message_id) == "accepted"

    for phone in phones:
        first, second = simulator.phone(phone.token).log
        assert first.sounded_timestamp is not None
        assert second.sounded_timestamp is None
    for task in await tasks_of(stack, message_id):
        assert in_time((task.accepted_at - task.due_at).total_seconds(), ON_TIME)


async def test_a_minute_after_its_last_sound_a_line_sounds_again_whether_or_not_it_was_read(
    stack: Stack, simulator: Simulator, alice: User, bob: User
) -> None:
    phone = iphone()
    await bob.register(phone)
    conversation_id = await conversation_of(alice, bob)

    await handed_off(stack, await posted(alice, conversation_id))
    await sync(bob, phone.installation_id, after=1)
    await handed_off(stack, await posted(alice, conversation_id))
    await _passed(stack, phone, "61 seconds")
    await handed_off(stack, await posted(alice, conversation_id))

    assert _sounds(simulator, phone) == [True, False, True]


async def test_an_attempt_that_the_provider_refused_has_made_no_sound(
    stack: Stack, simulator: Simulator, alice: User, bob: User
) -> None:
    phone = iphone()
    await bob.register(phone)
    simulator.faults.add(provider="apns", token=phone.token, fault="answer", status=400, reason="IdleTimeout", count=1)

    message_id = await posted(alice, await conversation_of(alice, bob))
    assert await handed_off(stack, message_id) == "accepted"

    [task] = await tasks_of(stack, message_id)
    assert task.attempt_count == 2
    assert _sounds(simulator, phone) == [True]


async def test_an_attempt_that_may_have_arrived_counts_as_heard(
    stack: Stack, simulator: Simulator, alice: User, bob: User
) -> None:
    phone = iphone()
    await bob.register(phone)
    fault = {"fault": "accept_then_fail", "status": 500, "reason": "InternalServerError"}
    simulator.faults.add(provider="apns", token=phone.token, count=1, **fault)

    message_id = await posted(alice, await conversation_of(alice, bob))
    assert await handed_off(stack, message_id) == "accepted"

    assert _sounds(simulator, phone) == [True, False]


async def test_the_newest_waits_for_a_call_that_is_under_way_and_those_between_are_never_sent(
    stack: Stack, simulator: Simulator, alice: User, bob: User
) -> None:
    phone = android()
    await bob.register(phone)
    conversation_id = await conversation_of(alice, bob)
    simulator.faults.add(provider="fcm", token=phone.token, fault="slow", delay=9, count=1)

    message_ids = [await posted(alice, conversation_id)]
    await eventually(lambda: _is_called(stack, message_ids[0]))
    message_ids += [await posted(alice, conversation_id) for _ in range(5)]
    for message_id in message_ids:
        await eventually(partial(has_looked, stack, message_id))
    simulator.faults.clear()  # the call is over
    outcomes = [await handed_off(stack, each) for each in message_ids]

    assert outcomes == ["accepted", *["no_push"] * 4, "accepted"]
    assert len(simulator.requests.for_token(phone.token)) == 2
    states = [(task.state, task.last_reason) for each in message_ids for task in await tasks_of(stack, each)]
    assert states == [("accepted", None), *[("withdrawn", "superseded")] * 4, ("accepted", None)]


async def test_two_who_write_at_once_are_each_told_of_the_other(
    stack: Stack, simulator: Simulator, alice: User, bob: User
) -> None:
    """The later message concerns everybody but its sender, whose phones the earlier one must reach."""
    hers, his, theirs = iphone(), iphone(), iphone()
    carol = stack.user()
    for user, phone in ((alice, hers), (bob, his), (carol, theirs)):
        await user.register(phone)
        await user.call("PUT", "/v1/notification-preferences", {"message_preview": "full"})
    conversation_id = await conversation_of(alice, bob, carol)

    message_ids: list[UUID] = []
    for number in range(1, 6):
        message_ids += [await posted(alice, conversation_id, f"alice {number}")]
        message_ids += [await posted(bob, conversation_id, f"bob {number}")]
    for message_id in message_ids:
        await handed_off(stack, message_id)

    shown = {phone: _shown(simulator, phone) for phone in (hers, his, theirs)}
    assert shown == {hers: "bob 5", his: "alice 5", theirs: "bob 5"}


async def test_while_a_push_backs_off_a_storm_adds_few_sends_and_the_newest_is_what_arrives(
    stack: Stack, simulator: Simulator, alice: User, bob: User
) -> None:
    phone = iphone()
    await bob.register(phone)
    await bob.call("PUT", "/v1/notification-preferences", {"message_preview": "full"})
    conversation_id = await conversation_of(alice, bob)
    refuse_once(simulator, phone)

    began_at = time.monotonic()
    message_ids = [await posted(alice, conversation_id, f"number {number}") for number in range(1, 31)]
    lasted = time.monotonic() - began_at
    for message_id in message_ids:
        await handed_off(stack, message_id)

    assert _shown(simulator, phone) == "number 30"
    assert len(simulator.requests.for_token(phone.token)) <= MAX_PUSHES + lasted // 10
    assert not await _pending(stack, conversation_id)


async def _passed(stack: Stack, phone: Phone, time_passed: str) -> None:
    """Let the phone's lines have been pushed to, and have sounded, so much earlier."""
    earlier = (
        "UPDATE collapse_groups SET planned_at = planned_at - CAST(CAST(:passed AS text) AS interval),"
        " sounded_at = sounded_at - CAST(CAST(:passed AS text) AS interval) WHERE installation_id = :id RETURNING 1"
    )
    async with stack.sessions.begin() as db:
        await db.execute(text(earlier), {"passed": time_passed, "id": phone.installation_id})


def _sounds(simulator: Simulator, phone: Phone) -> list[bool]:
    return [receipt.sounded_timestamp is not None for receipt in simulator.phone(phone.token).log]


def _shown(simulator: Simulator, phone: Phone) -> str | None:
    [line] = simulator.phone(phone.token).screen
    return line.notification.body


async def _is_called(stack: Stack, message_id: UUID) -> bool:
    called = "SELECT 1 FROM push_attempts JOIN push_tasks USING (task_id) WHERE message_id = :id AND outcome IS NULL"
    return bool(await stack.rows(called, id=message_id))


async def _pending(stack: Stack, conversation_id: UUID) -> Sequence[Any]:
    return await stack.rows(
        "SELECT 1 FROM push_tasks WHERE conversation_id = :id AND state = 'pending'", id=conversation_id
    )
