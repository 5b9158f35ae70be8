"""What is sent again: a push task becomes pending once more, with an outbox entry in the same transaction.

Redrives: a person sends dead ones again, or lets a route go on that a token-error cutoff stopped; both are support
actions. Revivals: a phone that registers again gets the pushes that it missed without a token.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from uuid import UUID

from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from db import last_check, outbox, push_tasks, support_actions, token_error_cutoffs
from db.device_tokens import ActiveToken
from db.engine import Sessions, among
from db.models.operations import TokenErrorCutoffRow
from db.models.people import DeviceToken
from db.models.pushes import PushAttempt, PushTask
from db.support_actions import Actor, Deed
from db.unreadable import Unreadable
from db.views import dead_tasks, gates
from db.views.dead_tasks import NOT_DEAD, PushTaskFilter
from db.views.gates import ShownBrake
from domain.problems import Conflict, NotFound
from domain.push import PlannedSend, TaskState
from domain.reasons import meaning
from telemetry import tracing

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


async def resume(db: AsyncSession, brake_id: UUID, actor: Actor) -> ShownBrake:
    """Let a stopped route send again; raises NotFound, and Conflict where it was resumed before."""
    is_resumed = await token_error_cutoffs.release(db, brake_id, actor)
    row = await db.get(TokenErrorCutoffRow, brake_id, populate_existing=True)
    if row is None:
        raise NotFound("token-error cutoff")
    if not is_resumed:
        raise Conflict("brake-resumed", f"{row.resumed_by} has already resumed this route.")
    detail = {"reason": row.reason, "token_errors": row.token_errors, "answers": row.answers}
    await support_actions.note(db, Deed(actor, "resume", "brake"), {brake_id: detail})
    return gates.shown_cutoff(row)


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


async def revive(db: AsyncSession, device: DeviceToken | ActiveToken) -> int:
    """Make pushes pending again that failed because of the token alone and have not expired; returns how many.

    Of each collapse group only the newest, and only the user's own. They go to the new token, whatever its provider,
    app and environment. One statement, which waits for no lock: locked pushes stay as they are.
    """
    values = {
        "user_id": device.user_id,
        "installation_id": device.installation_id,
        "device_id": device.id,
        "provider": device.provider,
        "app_id": device.app_id,
        "environment": device.environment,
        "outbox_kind": OUTBOX_KIND,
        "traceparent": tracing.traceparent(),
    }
    return len((await db.execute(_REVIVE, values)).all())


async def registered_meanwhile(db: AsyncSession, task_ids: Collection[UUID]) -> Sequence[DeviceToken]:
    """List the tokens that were registered while these tasks were refused for older ones."""
    began_at = select(func.max(PushAttempt.started_at)).where(PushAttempt.task_id == PushTask.task_id)
    query = (
        select(DeviceToken)
        .join(PushTask, PushTask.installation_id == DeviceToken.installation_id)
        .where(among(PushTask.task_id, task_ids), PushTask.user_id == DeviceToken.user_id)
        .where(DeviceToken.active, DeviceToken.registered_at > began_at.scalar_subquery())
    )
    return (await db.scalars(query)).unique().all()


# A batch of other people's pushes may wait for this: each subquery reads the end of an index.
_REVIVE = text("""
    WITH missed AS (
        SELECT t.*
          FROM (SELECT DISTINCT ON (collapse_key) task_id
                  FROM push_tasks
                 WHERE installation_id = :installation_id AND synced_at IS NULL AND expires_at > clock_timestamp()
                   AND (state = 'unregistered'
                        OR state = 'withdrawn' AND last_reason IN ('no_active_token', 'token_changed'))
                 ORDER BY collapse_key, due_at DESC) AS latest
          JOIN push_tasks t USING (task_id)
         WHERE t.user_id = :user_id AND t.opened_at IS NULL AND t.state IN ('unregistered', 'withdrawn')
           AND NOT t.validate_only
           AND coalesce(t.due_at >= (SELECT max(o.due_at) FROM push_tasks o
                                      WHERE o.installation_id = t.installation_id AND o.collapse_key = t.collapse_key
                                        AND o.state = 'accepted' AND o.synced_at IS NULL), true)
           AND coalesce(t.due_at >= (SELECT max(o.due_at) FROM push_tasks o
                                      WHERE o.installation_id = t.installation_id AND o.collapse_key = t.collapse_key
                                        AND o.state = 'pending' AND o.synced_at IS NULL), true)
           FOR UPDATE OF t SKIP LOCKED
    ), revived AS (
        UPDATE push_tasks t
           SET state = 'pending', next_attempt_at = clock_timestamp(), settled_at = NULL, again_at = clock_timestamp(),
               held_by = NULL,
               device_id = :device_id, provider = :provider, app_id = :app_id, environment = :environment
          FROM missed
         WHERE t.task_id = missed.task_id
        RETURNING t.task_id
    ), remembered AS (
        INSERT INTO withheld_pushes (at, user_id, installation_id, kind, conversation_id, message_id, reminder_minutes,
                                     reason)
        SELECT settled_at, user_id, installation_id, kind, conversation_id, message_id, reminder_minutes, last_reason
          FROM missed
         WHERE state = 'withdrawn' AND settled_at IS NOT NULL
            ON CONFLICT DO NOTHING
    )
    INSERT INTO outbox (subject_kind, subject_id, next_attempt_at, traceparent)
    SELECT :outbox_kind, task_id, clock_timestamp(), :traceparent FROM revived
    RETURNING subject_id
""")
