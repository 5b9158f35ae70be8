"""A message is read while a provider is called for its push: the push ends once, when the call does."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from db import device_tokens, push_attempts, push_tasks
from domain.kinds import Kind
from domain.push import TaskState
from sending.attempts import check_pushes
from sending.outcomes import Outcome, end_attempts
from sending.precheck import Claim, Final, InFlight, Proceed
from tests.stack import Stack, User, iphone
from tests.talk import conversation_of, post, sync, tasks_of


@pytest.mark.parametrize(
    ("outcome", "state", "stands"),
    [
        ("accepted", TaskState.ACCEPTED, ("accepted", None)),
        ("unknown", TaskState.PENDING, ("withdrawn", "synced")),  # it would be tried again
    ],
)
async def test_a_push_that_is_read_while_its_provider_is_called_waits_for_the_end_of_the_call(
    alice: User, bob: User, api: Stack, outcome: str, state: TaskState, stands: tuple[str, str | None]
) -> None:
    task_id, attempt_id = await _read_while_called(alice, bob)
    reason = None if state is TaskState.ACCEPTED else "answer_timeout"
    assert await _stands(api, task_id) == ("pending", None)

    ended = push_attempts.Ended(attempt_id, outcome, reason, 1, None)
    await end_attempts(api.sessions, [Outcome(ended, push_tasks.Update(task_id, state, reason))])

    assert await _stands(api, task_id) == stands


async def test_a_push_that_is_read_while_its_worker_is_lost_is_not_sent_again(
    alice: User, bob: User, api: Stack
) -> None:
    task_id, attempt_id = await _read_while_called(alice, bob)
    [busy] = await check_pushes(api.sessions, [Claim(task_id)])
    ages = text("UPDATE push_attempts SET started_at = started_at - interval '1 minute' WHERE attempt_id = :id")
    async with api.sessions.begin() as db:
        await db.execute(ages, {"id": attempt_id})

    [settled] = await check_pushes(api.sessions, [Claim(task_id)])

    assert isinstance(busy, InFlight)
    assert settled == Final(TaskState.WITHDRAWN, "synced")
    [attempt] = await api.rows("SELECT outcome, reason FROM push_attempts WHERE attempt_id = :id", id=attempt_id)
    assert tuple(attempt) == ("unknown", "worker_lost")


async def _read_while_called(sender: User, reader: User) -> tuple[UUID, UUID]:
    """Let a phone read a message while a provider is called for its push; gives the push task and the attempt."""
    stack, phone = reader.stack, iphone()
    await reader.register(phone)
    conversation_id = await conversation_of(sender, reader)
    message_id = UUID((await post(sender, conversation_id)).json()["id"])
    async with stack.sessions.begin() as db:
        await push_tasks.plan(
            db, _due(message_id, conversation_id), await device_tokens.active_for_user(db, reader.user_id)
        )
    [task] = await tasks_of(stack, message_id)
    [go] = await check_pushes(stack.sessions, [Claim(task.task_id)])
    assert isinstance(go, Proceed)
    await sync(reader, phone.installation_id, after=1)
    return task.task_id, go.push.attempt_id


def _due(message_id: UUID, conversation_id: UUID) -> push_tasks.DueMessage:
    now = datetime.now(UTC)
    return push_tasks.DueMessage(
        message_id=message_id,
        kind=Kind.MESSAGE,
        conversation_id=conversation_id,
        reminder_minutes=None,
        collapse_key=f"conversation/{conversation_id}",
        due_at=now,
        expires_at=now + timedelta(days=1),
    )


async def _stands(stack: Stack, task_id: UUID) -> tuple[str, str | None]:
    """Tell how a push stands whose message was read."""
    [row] = await stack.rows("SELECT * FROM push_tasks WHERE task_id = :id AND synced_at IS NOT NULL", id=task_id)
    return row.state, row.last_reason
