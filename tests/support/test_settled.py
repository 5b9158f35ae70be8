"""Whatever ends a push task notes when; whatever takes it up again forgets it."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from db import device_tokens as tokens
from db import log as logs
from db import orphans, push_tasks, withheld_pushes
from db.push_tasks import Update
from db.support_actions import Actor
from db.withheld_pushes import About
from domain.kinds import Kind
from domain.push import TaskState
from operations import redrive as redrives
from tests.stack import Stack, User, iphone
from tests.support.dead import dead_task, task

Ends = Callable[[AsyncSession, UUID], Awaitable[object]]


async def _read(db: AsyncSession, task_id: UUID) -> None:
    """Let the app have read what the push is about."""
    enters = text(
        "WITH m AS (INSERT INTO messages (id, kind, conversation_id) SELECT message_id, kind, conversation_id"
        " FROM push_tasks WHERE task_id = :id RETURNING id) INSERT INTO log_items (user_id, seq, message_id)"
        " SELECT t.user_id, 1, m.id FROM m JOIN push_tasks t ON t.message_id = m.id"
    )
    await db.execute(enters, {"id": task_id})
    [found] = await push_tasks.locked(db, [task_id])
    await logs.acknowledge(db, found.user_id, found.installation_id, 1)


async def _sweep(db: AsyncSession, task_id: UUID) -> None:
    long_ago = text("UPDATE push_tasks SET next_attempt_at = due_at WHERE task_id = :id")
    await db.execute(long_ago, {"id": task_id})
    owed = text("DELETE FROM outbox WHERE subject_id IN (SELECT conversation_id FROM push_tasks WHERE task_id = :id)")
    await db.execute(owed, {"id": task_id})
    strays = await orphans.strays(db, timedelta(0), None, 10_000)
    assert await orphans.mark_dead(db, [each for each in strays if each.task_id == task_id]) == 1


async def _refuse(db: AsyncSession, task_id: UUID) -> None:
    await push_tasks.apply(db, [Update(task_id, TaskState.UNREGISTERED, "BadDeviceToken")])
    await db.execute(text("UPDATE push_tasks SET settled_at = NULL WHERE task_id = :id"), {"id": task_id})
    await push_tasks.mark_dead(db, [task_id])


@pytest.mark.parametrize(
    ("ends", "state"),
    [
        (lambda db, each: push_tasks.apply(db, [Update(each, TaskState.ACCEPTED, None)]), "accepted"),
        (lambda db, each: push_tasks.apply(db, [Update(each, TaskState.EXPIRED, "too_late")]), "expired"),
        (lambda db, each: push_tasks.close(db, [each], TaskState.WITHDRAWN, "goal_moved"), "withdrawn"),
        (_read, "withdrawn"),
        (_sweep, "dead"),
        (_refuse, "dead"),
    ],
    ids=["accepted", "expired", "closed", "read", "swept", "refused"],
)
async def test_an_end_is_noted_with_its_time(stack: Stack, alice: User, ends: Ends, state: str) -> None:
    [task_id] = await dead_task(alice, iphone())
    waits = text("UPDATE push_tasks SET state = 'pending', settled_at = NULL WHERE task_id = :id")
    async with stack.sessions.begin() as db:
        await db.execute(waits, {"id": task_id})
        await ends(db, task_id)

    settled = await task(stack, task_id)
    assert settled.state == state
    assert settled.settled_at > settled.created_at


async def test_a_redrive_and_a_revival_forget_the_end(stack: Stack, alice: User, bob: User) -> None:
    phone = iphone()
    [redriven], [revived] = await dead_task(alice, iphone()), await dead_task(bob, phone)
    async with stack.sessions.begin() as db:
        await redrives.redrive(db, redriven, Actor("carol"))
        unregistered = text("UPDATE push_tasks SET state = 'unregistered' WHERE task_id = :id")
        await db.execute(unregistered, {"id": revived})
        [device] = await tokens.active_for_user(db, bob.user_id)
        assert await redrives.revive(db, device) == 1
        read = text("SELECT state, settled_at FROM push_tasks WHERE task_id IN (:one, :other)")
        rows = (await db.execute(read, {"one": redriven, "other": revived})).all()

    assert [tuple(row) for row in rows] == [("pending", None)] * 2


async def test_a_dry_run_is_not_revived_on_a_phone_that_would_show_it(stack: Stack, alice: User) -> None:
    phone = iphone()
    [task_id] = await dead_task(alice, phone)
    async with stack.sessions.begin() as db:
        missed = "UPDATE push_tasks SET state = 'unregistered', validate_only = true WHERE task_id = :id"
        await db.execute(text(missed), {"id": task_id})
        [device] = await tokens.active_for_user(db, alice.user_id)
        assert await redrives.revive(db, device) == 0


async def test_a_decision_not_to_push_is_noted_once_however_often_it_is_made(stack: Stack) -> None:
    user_id, installation_id, about = f"user-{uuid4()}", uuid4(), About(Kind.MESSAGE, uuid4(), uuid4())
    for _ in range(2):
        async with stack.sessions.begin() as db:
            reasons = {(user_id, None): "messages_off", (user_id, installation_id): "synced"}
            await withheld_pushes.note(db, about, reasons)

    rows = await stack.rows("SELECT reason, installation_id FROM withheld_pushes WHERE user_id = :id", id=user_id)
    assert {tuple(row) for row in rows} == {("messages_off", None), ("synced", installation_id)}
    assert len(rows) == 2
