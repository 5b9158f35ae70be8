"""Redrives: a dead push task becomes pending, with an outbox entry and a support action; one transaction."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from db import last_check, outbox, push_tasks, support_actions
from db.engine import Sessions, among
from db.models.pushes import PushTask
from db.support_actions import Actor, Deed
from db.unreadable import Unreadable
from db.views import dead_tasks
from db.views.dead_tasks import NOT_DEAD, PushTaskFilter
from domain.problems import Conflict, NotFound
from domain.push import PlannedSend, TaskState
from domain.reasons import meaning

OUTBOX_KIND = "push_task"
_BATCH = 100  # tasks in one transaction, so that none is held for long


MAX_AT_ONCE = 10_000  # redriven by one request


@dataclass(frozen=True, slots=True)
class RedriveState:
    """A redriven push task: the input of `Redrive`."""

    send: PlannedSend
    conversation_id: UUID
    due_at: datetime
    expires_at: datetime
    message_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Redriven:
    """The result of a redrive by filter."""

    redriven: int
    withheld: Mapping[str, int]  # by reason; they stay dead
    limit_reached: bool  # there may be more


def refusal_in_words(reason: str) -> str:
    """Say why a push cannot be redriven."""
    return f"This push cannot be redriven: {meaning(reason) or f'it would be withheld ({reason}).'}"


class RedriveMode(Enum):
    """Whether a redrive by filter is real or a rehearsal."""

    REAL = "real"
    REHEARSAL = "rehearsal"


async def redrive(db: AsyncSession, task_id: UUID, actor: Actor) -> None:
    """Redrive one task; raises NotFound, and Conflict if it is not dead or would be withheld."""
    task = await db.get(PushTask, task_id, with_for_update=True)
    if task is None:
        raise NotFound("push task")
    if task.state != TaskState.DEAD:
        raise Conflict("push-not-dead", f"This push task is {task.state}. Only a dead one can be redriven.", NOT_DEAD)
    refused = (await last_check.refusals(db, [task])).get(task_id)
    if refused:
        raise Conflict("redrive-refused", refusal_in_words(refused), refused)
    await _accept(db, [task], actor)


async def redrive_matching(
    sessions: Sessions, wanted: PushTaskFilter, limit: int, actor: Actor, mode: RedriveMode
) -> Redriven:
    """Redrive dead tasks, the latest due first, at most `limit`, in many short transactions."""
    withheld: Counter[str] = Counter()
    redriven = 0
    async with sessions() as db:
        candidates = await dead_tasks.unexpired(db, wanted)
        if expired := await dead_tasks.expired_count(db, wanted):
            withheld["expired"] = expired
    for start in range(0, len(candidates), _BATCH):
        async with sessions.begin() as db:
            match mode:
                case RedriveMode.REAL:
                    batch = await dead_tasks.dead_among_locked(db, candidates[start : start + _BATCH])
                case RedriveMode.REHEARSAL:
                    batch = await dead_tasks.dead_among(db, candidates[start : start + _BATCH])
            refused = await last_check.refusals(db, batch)
            going = [task for task in batch if task.task_id not in refused][: limit - redriven]
            if mode is RedriveMode.REAL:
                await _accept(db, going, actor)
        withheld.update(refused.values())
        redriven += len(going)
        if redriven >= limit:
            break
    return Redriven(redriven, dict(withheld), limit_reached=redriven >= limit)


async def under_way(db: AsyncSession, task_id: UUID) -> RedriveState | None:
    """Read the input of a redrive's workflow; None when the task is finished. Raises Unreadable."""
    task = await db.scalar(select(PushTask).where(PushTask.task_id == task_id, PushTask.state == TaskState.PENDING))
    if task is None:
        return None
    send = push_tasks.planned(task)
    if send is None:
        raise Unreadable("push task")
    return RedriveState(send, task.conversation_id, task.due_at, task.expires_at, task.message_id)


async def _accept(db: AsyncSession, tasks: Sequence[PushTask], actor: Actor) -> None:
    """Make dead tasks pending that this transaction has locked."""
    if not tasks:
        return
    query = update(PushTask).where(
        among(PushTask.task_id, [task.task_id for task in tasks]), PushTask.state == TaskState.DEAD
    )
    accepted = await db.scalars(
        query.values(
            state=TaskState.PENDING,
            next_attempt_at=func.clock_timestamp(),
            settled_at=None,
            held_by=None,
            again_at=func.clock_timestamp(),
        ).returning(PushTask.task_id)
    )
    task_ids = set(accepted)
    await outbox.add_for_sweepers(db, OUTBOX_KIND, sorted(task_ids))
    deed = Deed(actor, "redrive", "push_task")
    details = {
        task.task_id: {
            "reason": task.last_reason,
            "attempts": task.attempt_count,
            "dead_at": task.settled_at and task.settled_at.isoformat(),
        }
        for task in tasks
        if task.task_id in task_ids
    }
    await support_actions.note(db, deed, details)
