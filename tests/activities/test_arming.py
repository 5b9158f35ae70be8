"""Reminders that are armed in the same moment share a transaction, and nothing else."""

import asyncio
from uuid import UUID, uuid4

from sqlalchemy import text

from activities.reminders import Moment, OpenedReminder, OpenReminder, ReminderOpening
from db.unreadable import Unreadable
from domain.push import Provider
from tests.stack import Stack, User, android, iphone, uncommitted

IN_TEN_HOURS = 36_000


async def _fast(user: User) -> OpenReminder:
    session_id = await user.start_fast(due_in=IN_TEN_HOURS)
    [fast] = await user.stack.rows(
        "SELECT ends_at - interval '1 min' AS due FROM fasting_sessions WHERE id = :id", id=session_id
    )
    return OpenReminder(session_id, 1, fast.due, Moment.ARMING)


async def _tasks(stack: Stack, ask: OpenReminder) -> set[UUID]:
    return {task.task_id for task in await stack.tasks(ask.session_id)}


async def test_each_gets_its_own_answer(stack: Stack) -> None:
    both, one, nobody, off, over, odd = [stack.user() for _ in range(6)]
    await both.register(iphone(), android())
    for user in (one, off, over, odd):
        await user.register(iphone())
    answer = await off.call("PATCH", "/v1/notification-preferences", {"reminders": False})
    assert answer.status_code == 200, answer.text
    asks = [await _fast(user) for user in (both, one, nobody, off, over, odd)]
    await over.cancel(asks[4].session_id)
    async with stack.sessions.begin() as db:
        change = text("UPDATE fasting_sessions SET status = 'teleported', ended_at = now() WHERE id = :id")
        await db.execute(change, {"id": asks[5].session_id})
    asks += [
        OpenReminder(uuid4(), 1, asks[0].due_at, Moment.ARMING),
        OpenReminder(asks[1].session_id, 1, asks[0].due_at, Moment.ARMING),
    ]
    opening = ReminderOpening(stack.sessions)

    answers = await asyncio.gather(*map(opening.open_reminder, [*asks, asks[0]]), return_exceptions=True)

    *opened, again = answers
    of_both, of_one = opened[:2]
    assert isinstance(of_both, OpenedReminder)
    assert isinstance(of_one, OpenedReminder)
    assert [send.provider for send in of_both.sends] == [Provider.APNS, Provider.FCM]
    assert {send.task_id for send in of_both.sends} == await _tasks(stack, asks[0])
    assert {send.task_id for send in of_one.sends} == await _tasks(stack, asks[1])
    assert again == of_both
    assert opened[2] == OpenedReminder(ends_briefly=True)
    reasons = ["reminders_off", "session_cancelled", "session_missing", "goal_moved"]
    assert [opened[place] for place in (3, 4, 6, 7)] == [OpenedReminder(withheld=reason) for reason in reasons]
    assert isinstance(opened[5], Unreadable)
    assert not await stack.rows(
        "SELECT 1 FROM messages WHERE conversation_id = ANY(:ids)", ids=[ask.session_id for ask in asks]
    )


async def test_they_share_a_transaction(stack: Stack) -> None:
    users = [stack.user() for _ in range(5)]
    for user in users:
        await user.register(iphone())
    asks = [await _fast(user) for user in users]
    opening = ReminderOpening(stack.sessions)

    await asyncio.gather(*map(opening.open_reminder, asks))

    wrote = "SELECT DISTINCT xmin FROM push_tasks WHERE conversation_id = ANY(:ids)"
    assert len(await stack.rows(wrote, ids=[ask.session_id for ask in asks])) == 1


async def test_whose_phone_is_held_waits_alone(stack: Stack) -> None:
    users = [stack.user() for _ in range(4)]
    for user in users:
        await user.register(iphone())
    asks = [await _fast(user) for user in users]
    opening = ReminderOpening(stack.sessions)
    held = "SELECT 1 FROM device_tokens WHERE user_id = :id FOR UPDATE"

    async with uncommitted(stack, held, id=users[0].user_id):
        waiting, *others = [asyncio.create_task(opening.open_reminder(ask)) for ask in asks]
        opened = await asyncio.gather(*others)
        assert not waiting.done()

    for ask, each in zip(asks, [await waiting, *opened], strict=True):
        assert {send.task_id for send in each.sends} == await _tasks(stack, ask) != set()
