"""Dead push tasks, made in an instant: of a fast whose reminder was past when its goal was set."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
from sqlalchemy import text
from temporalio.service import RPCError, RPCStatusCode

from db import device_tokens, push_tasks
from domain.fasts import message_id
from domain.kinds import Kind
from domain.push import TaskState
from tests.stack import Phone, Stack, User, eventually

DUE_BEFORE = 20.0  # seconds


async def dead_task(
    user: User, *phones: Phone, minutes: int = 1, ends_in: float | None = None, reason: str = "Shutdown"
) -> list[UUID]:
    """Give somebody a fast, and each of their phones a push task that is dead before it expired.

    The only reminder was so many minutes before the end, which is in so many seconds.
    """
    await user.register(*phones)
    session_id, now, before = uuid4(), datetime.now(UTC), timedelta(minutes=minutes)
    ends_at = now + (before - timedelta(seconds=DUE_BEFORE) if ends_in is None else timedelta(seconds=ends_in))
    due_at = ends_at - before
    started = {
        "started_at": (now - timedelta(hours=16)).isoformat(),
        "ends_at": ends_at.isoformat(),
        "reminder_minutes": [minutes],
    }
    assert (await user.call("PUT", f"/v1/fasting-sessions/{session_id}", started)).status_code == 201
    message = push_tasks.DueMessage(
        message_id=message_id(session_id, minutes, due_at),
        kind=Kind.REMINDER,
        conversation_id=session_id,
        reminder_minutes=minutes,
        collapse_key=f"fasting-session/{session_id}",
        due_at=due_at,
        expires_at=ends_at,
    )
    async with user.stack.sessions.begin() as db:
        await push_tasks.plan(db, message, await device_tokens.active_for_user(db, user.user_id))
        task_ids = [send.task_id for send in await push_tasks.pending_of(db, message.message_id)]
        await push_tasks.close(db, task_ids, TaskState.DEAD, reason)
    return task_ids


async def task(stack: Stack, task_id: UUID) -> Any:
    """Read a push task."""
    [row] = await stack.rows("SELECT * FROM push_tasks WHERE task_id = :id", id=task_id)
    return row


async def redrive(user: User, task_id: UUID) -> httpx.Response:
    """Redrive one."""
    return await user.call("POST", f"/v1/support/push-tasks/{task_id}/redrive")


async def redriven(stack: Stack, task_id: UUID, *, within: float = 20.0) -> tuple[str, str | None]:
    """Wait until no dispatch of a redriven task waits and its workflow has ended; gives state and reason.

    No workflow was started where the fast's own workflow, still sending, finished the task before the dispatch.
    """

    async def settled() -> bool:
        owed = await stack.rows("SELECT 1 FROM outbox WHERE subject_id = :id", id=task_id)
        return not owed and (await task(stack, task_id)).state != "pending"

    await eventually(settled, within=within)
    try:
        await stack.temporal.get_workflow_handle(f"redrive/{task_id}").result()
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
    row = await task(stack, task_id)
    return row.state, row.last_reason


async def bury(stack: Stack, task_id: UUID) -> None:
    """Make a pending task dead, as a cutoff does."""
    async with stack.sessions.begin() as db:
        dead = text("UPDATE push_tasks SET state = 'dead', next_attempt_at = NULL WHERE task_id = :id")
        await db.execute(dead, {"id": task_id})
