"""Sweeps as tests make them, and what they look for."""

from uuid import UUID, uuid4

from sqlalchemy import text

from activities.housekeeping import SweepOrphans, Swept
from domain.naming import WORKFLOW_QUEUE, reminder_workflow_id
from tests.stack import Phone, Stack, User, eventually
from tests.support.dead import dead_task
from workflows.housekeeping import OrphanSweep

AGO = "now() - interval '5 minutes'"


async def sweep(stack: Stack, *, untouched: float = 10.0) -> Swept:
    """Make a sweep by hand, which knows of none before."""
    return await stack.temporal.execute_workflow(
        OrphanSweep.run, SweepOrphans(untouched), id=f"sweep-{uuid4()}", task_queue=WORKFLOW_QUEUE
    )


async def change(stack: Stack, statement: str, **values: object) -> None:
    """Change rows."""
    async with stack.sessions.begin() as db:
        await db.execute(text(statement), values)


async def stray(user: User, *phones: Phone) -> list[UUID]:
    """Give somebody's phones a push task each that waits, though its workflow was terminated."""
    task_ids = await dead_task(user, *phones)
    waiting = f"UPDATE push_tasks SET state = 'pending', last_reason = NULL, next_attempt_at = {AGO}"
    for task_id in task_ids:
        await change(user.stack, f"{waiting} WHERE task_id = :id", id=task_id)
    await eventually(lambda: _nothing_owed(user))
    [row] = await user.stack.rows("SELECT conversation_id FROM push_tasks WHERE task_id = :id", id=task_ids[0])
    await _terminated(user.stack, row.conversation_id)
    return task_ids


async def aged(stack: Stack, task_id: UUID) -> None:
    """Let a waiting task and its attempts be older than they are, but for its due instant."""
    await change(stack, f"UPDATE push_tasks SET next_attempt_at = {AGO} WHERE task_id = :id", id=task_id)
    await change(stack, f"UPDATE push_attempts SET started_at = {AGO} WHERE task_id = :id", id=task_id)


async def without_workflow(user: User, *, due_in: float = 120.0, minutes: tuple[int, ...] = (1,)) -> UUID:
    """Start a fast whose workflow is terminated before it arms anything."""
    session_id = await user.start_fast(due_in=due_in, minutes=minutes)
    await user.stack.started(session_id)
    await eventually(lambda: _nothing_owed(user))
    await user.stack.workflow(session_id).terminate()
    return session_id


async def _terminated(stack: Stack, session_id: UUID) -> None:
    """Have had a workflow that a person terminated."""
    workflow_id = reminder_workflow_id(session_id)
    handle = await stack.temporal.start_workflow("OfNobody", id=workflow_id, task_queue="of nobody")
    await handle.terminate()


async def _nothing_owed(user: User) -> bool:
    """Tell whether Temporal knows of all fasts of somebody."""
    owed = "SELECT 1 FROM outbox JOIN fasting_sessions s ON s.id = subject_id WHERE user_id = :id"
    return not await user.stack.rows(owed, id=user.user_id)
