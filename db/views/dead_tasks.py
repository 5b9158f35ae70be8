"""Push tasks as support looks for them, dead ones above all."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, Select, bindparam, case, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from db import last_check, support_actions
from db.engine import among, columns_like
from db.models.people import DeviceToken
from db.models.pushes import PushAttempt, PushTask
from db.support_actions import ShownAction
from db.views import answer_of
from db.views import devices as device_history
from db.views.devices import SHOWN
from domain.devices import Permission, ReportedPermission
from domain.fasts import LONGEST_USEFUL
from domain.kinds import Kind
from domain.problems import InvalidField
from domain.push import Environment, Provider, TaskState

_MAX_WALKED = 100_000
KNOWN = (  # to this release
    PushTask.kind.in_(tuple(Kind)),
    PushTask.provider.in_(tuple(Provider)),
    PushTask.environment.in_(tuple(Environment)),
    PushTask.state.in_(tuple(TaskState)),
)
_LATEST_FIRST = (PushTask.due_at.desc(), PushTask.task_id.desc())


NOT_DEAD = "not_dead"


@dataclass(frozen=True, slots=True)
class PushTaskFilter:
    """Which push tasks to list; None means any."""

    state: TaskState = TaskState.DEAD
    provider: Provider | None = None
    app_id: str | None = None
    environment: Environment | None = None
    kind: Kind | None = None
    reason: str | None = None
    user_id: str | None = None
    conversation_id: UUID | None = None
    message_id: UUID | None = None
    due_from: datetime | None = None
    due_to: datetime | None = None  # not included


@dataclass(frozen=True, slots=True)
class ShownTask:
    """A push task as support sees it."""

    task_id: UUID
    state: TaskState
    last_reason: str | None
    kind: Kind
    user_id: str
    installation_id: UUID
    provider: Provider
    app_id: str | None
    environment: Environment
    token: str  # its last 6 characters; nothing of a very short one
    conversation_id: UUID
    message_id: UUID
    reminder_minutes: int | None
    due_at: datetime
    expires_at: datetime
    attempt_count: int
    next_attempt_at: datetime | None
    created_at: datetime
    accepted_at: datetime | None
    opened_at: datetime | None
    synced_at: datetime | None
    held_up_by: str | None  # the last reason why it was not sent or taken at once
    accepted_to_synced_seconds: float | None  # push to sync; null unless both happened
    redrive_refused: str | None  # why a redrive would be refused now; null where it would not
    permission: Permission | None  # as the app reported at its last registration
    permission_told_at: datetime | None


@dataclass(frozen=True, slots=True)
class ShownAttempt:
    """One provider call."""

    number: int
    started_at: datetime
    outcome: str | None  # null while it is under way
    reason: str | None
    latency_ms: int | None
    provider_id: str | None


@dataclass(frozen=True, slots=True)
class WholeTask:
    """A push task with its attempts, and the actions of people."""

    task: ShownTask
    attempts: list[ShownAttempt]
    actions: list[ShownAction]


def check_filter(wanted: PushTaskFilter) -> None:
    """Raise InvalidField for a search that no index serves."""
    narrow = (wanted.user_id, wanted.conversation_id, wanted.message_id)
    if wanted.state is not TaskState.DEAD and not any(narrow):
        raise InvalidField(
            "state", "Push tasks that are not dead can be listed of one user, conversation or message only."
        )


async def matching(
    db: AsyncSession, wanted: PushTaskFilter, after: tuple[datetime, UUID] | None, limit: int
) -> list[ShownTask]:
    """List tasks, the latest due first."""
    query = with_token().where(*_conditions(wanted, after)).order_by(*_LATEST_FIRST).limit(limit)
    return await _shown(db, query)


async def whole(db: AsyncSession, task_id: UUID) -> WholeTask | None:
    """Show a task with its attempts and what people did to it."""
    shown = await _shown(db, with_token().where(PushTask.task_id == task_id, *KNOWN))
    if not shown:
        return None
    attempts = (
        select(*columns_like(ShownAttempt, PushAttempt))
        .where(PushAttempt.task_id == task_id)
        .order_by(PushAttempt.number)
    )
    return WholeTask(
        task=shown[0],
        attempts=[ShownAttempt(*row) for row in await db.execute(attempts)],
        actions=await support_actions.about(db, task_id),
    )


async def expired_count(db: AsyncSession, wanted: PushTaskFilter) -> int:
    """Count the expired tasks among those due so lately that others may still be useful."""
    query = select(func.count()).select_from(PushTask).where(*_conditions(wanted, None), _lately_due(), _expired())
    return (await db.execute(query)).scalar_one()


async def unexpired(db: AsyncSession, wanted: PushTaskFilter) -> Sequence[UUID]:
    """Find tasks that have not expired, the latest due first."""
    query = select(PushTask.task_id).where(*_conditions(wanted, None), _lately_due(), ~_expired())
    return (await db.scalars(query.order_by(*_LATEST_FIRST).limit(_MAX_WALKED))).all()


async def dead_among(db: AsyncSession, task_ids: Collection[UUID]) -> Sequence[PushTask]:
    """Read those of these tasks that are dead."""
    return (await db.scalars(_dead_among(task_ids))).all()


async def dead_among_locked(db: AsyncSession, task_ids: Collection[UUID]) -> Sequence[PushTask]:
    """Read them and lock them until the transaction ends; locked ones are skipped."""
    return (await db.scalars(_dead_among(task_ids).with_for_update(skip_locked=True))).all()


def with_token() -> Select[PushTask, str]:
    """Read tasks, each with as much of its token as may leave the database."""
    token = DeviceToken.token
    tail = case((func.length(token) > 2 * SHOWN, func.right(token, SHOWN)), else_="")
    return select(PushTask, tail).join(DeviceToken, DeviceToken.id == PushTask.device_id)


def _conditions(wanted: PushTaskFilter, after: tuple[datetime, UUID] | None) -> list[ColumnElement[bool]]:
    conditions = [
        column == value
        for column, value in (
            (PushTask.provider, wanted.provider),
            (PushTask.app_id, wanted.app_id),
            (PushTask.environment, wanted.environment),
            (PushTask.kind, wanted.kind),
            (PushTask.last_reason, wanted.reason),
            (PushTask.user_id, wanted.user_id),
            (PushTask.conversation_id, wanted.conversation_id),
            (PushTask.message_id, wanted.message_id),
        )
        if value is not None
    ]
    # written out, so that the planner uses the index of dead tasks
    conditions.extend(KNOWN)
    conditions.append(PushTask.state == bindparam(None, wanted.state.value, literal_execute=True))
    if wanted.due_from is not None:
        conditions.append(PushTask.due_at >= wanted.due_from)
    if wanted.due_to is not None:
        conditions.append(PushTask.due_at < wanted.due_to)
    if after is not None:
        conditions.append(tuple_(PushTask.due_at, PushTask.task_id) < after)
    return conditions


def _lately_due() -> ColumnElement[bool]:
    """Bound the range of the index of dead tasks: what was due earlier has expired."""
    return PushTask.due_at > func.statement_timestamp() - LONGEST_USEFUL


def _expired() -> ColumnElement[bool]:
    return PushTask.expires_at <= func.statement_timestamp()


def _dead_among(task_ids: Collection[UUID]) -> Select[PushTask]:
    dead = select(PushTask).where(among(PushTask.task_id, task_ids), PushTask.state == TaskState.DEAD)
    return dead.order_by(*_LATEST_FIRST)


async def _shown(db: AsyncSession, query: Select[PushTask, str]) -> list[ShownTask]:
    rows = (await db.execute(query)).all()
    refused = await last_check.refusals(db, [task for task, _ in rows if task.state == TaskState.DEAD])
    reported = await device_history.permissions(db, {(task.user_id, task.installation_id) for task, _ in rows})
    return [
        _show(task, token, refused.get(task.task_id), reported.get((task.user_id, task.installation_id)))
        for task, token in rows
    ]


def _show(task: PushTask, token: str, refused: str | None, reported: ReportedPermission | None) -> ShownTask:
    return answer_of(
        ShownTask,
        task,
        token=token,
        accepted_to_synced_seconds=_seconds(task.accepted_at, task.synced_at),
        redrive_refused=refused if task.state == TaskState.DEAD else NOT_DEAD,
        permission=reported.permission if reported else None,
        permission_told_at=reported.at if reported else None,
    )


def _seconds(accepted_at: datetime | None, synced_at: datetime | None) -> float | None:
    """Give how long the person took; 0 if the app read it while the provider was being called."""
    if accepted_at is None or synced_at is None:
        return None
    return max(synced_at - accepted_at, timedelta(0)).total_seconds()
