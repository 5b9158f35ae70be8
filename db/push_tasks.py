"""Push tasks: planned once, claimed before each call, closed for good."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID, uuid5

from sqlalchemy import Row, func, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.engine import Rows, among, columns_of, count_settled, count_synced, once_committed
from db.models.pushes import PushTask
from db.unreadable import known_or_none, readable, route_of, word
from domain.kinds import Kind
from domain.messages import LONGEST_GRACE
from domain.naming import user_digest
from domain.push import Environment, PlannedSend, Provider, Route, TaskState
from telemetry import metrics


class Addressee(Protocol):
    """Who a push is planned for: an installation, and the row of its device token."""

    @property
    def id(self) -> UUID:
        """The row of the device token."""
        ...

    @property
    def installation_id(self) -> UUID:
        """The app on the phone."""
        ...


@dataclass(frozen=True, slots=True)
class DueMessage:
    """A message whose pushes are planned."""

    message_id: UUID
    kind: Kind
    conversation_id: UUID
    reminder_minutes: int | None
    collapse_key: str
    due_at: datetime
    expires_at: datetime
    validate_only: bool = False  # FCM checks it, no phone shows it


@dataclass(frozen=True, slots=True)
class Task:
    """A push task as the last check needs it."""

    task_id: UUID
    kind: Kind
    user_id: str
    installation_id: UUID
    route: Route
    conversation_id: UUID
    message_id: UUID
    reminder_minutes: int | None
    collapse_key: str
    due_at: datetime
    expires_at: datetime
    attempt_count: int
    is_synced: bool  # its installation has read the message
    validate_only: bool
    state: TaskState
    last_reason: str | None
    again_at: datetime | None  # when it was redriven or revived last
    held_by: UUID | None  # the worker in which it waits


@dataclass(frozen=True, slots=True)
class Update:
    """The state of a push task after a check or a call."""

    task_id: UUID
    state: TaskState
    reason: str | None
    next_attempt_at: datetime | None = None
    new_attempts: int = 0
    device_id: UUID | None = None  # None: as it was
    ago: float = 0.0  # seconds since it was accepted, as the caller knew before it asked
    accepted_by: datetime | None = None  # it was accepted at this instant at the latest


@dataclass(frozen=True, slots=True)
class OverduePush:
    """Whose push is overdue, and of which message."""

    user_id: str
    message_id: UUID


_AT_ONCE: Mapping[UUID, datetime] = {}


async def plan(
    db: AsyncSession,
    message: DueMessage,
    devices: Sequence[Addressee],
    state: TaskState = TaskState.PENDING,
    reason: str | None = None,
    late_since: Mapping[UUID, datetime] = _AT_ONCE,
) -> None:
    """Make one push task per device, all in one statement; existing ones stay as they are.

    Another state than pending is for pushes that are withdrawn as they are planned. `late_since`: by installation, if a
    push is meant to go out later than its message is due.
    """
    if not devices:
        return
    columns = _columns([(message, devices)], late_since) | {"state": state, "reason": reason}
    made = [(row.provider, row.kind) for row in await db.execute(_PLAN, columns)]
    once_committed(db, lambda: _count_planned(made))
    if state is not TaskState.PENDING:
        count_settled(db, Counter((*each, state, reason) for each in made))


async def plan_and_list(
    db: AsyncSession, plans: Sequence[tuple[DueMessage, Sequence[Addressee]]]
) -> list[list[PlannedSend]]:
    """Plan several messages as above, and list the pending tasks of each as below, in one statement."""
    columns = _columns(plans, _AT_ONCE) | {"state": TaskState.PENDING, "reason": None}
    rows = (await db.execute(_PLAN_AND_LIST, columns)).all()
    made = [(row.provider, row.kind) for row in rows if row.is_new]
    once_committed(db, lambda: _count_planned(made))
    listed: dict[UUID, list[Row[Any]]] = defaultdict(list)
    for row in rows:
        listed[row.message_id].append(row)
    return [
        [send for row in listed[message.message_id] if (send := planned(row)) is not None]
        if len(listed[message.message_id]) >= len(devices)
        # settled already, or planned by a transaction that this statement does not see
        else await pending_of(db, message.message_id)
        for message, devices in plans
    ]


def _columns(
    plans: Sequence[tuple[DueMessage, Sequence[Addressee]]], late_since: Mapping[UUID, datetime]
) -> dict[str, Any]:
    each = [(place, message, device) for place, (message, devices) in enumerate(plans, 1) for device in devices]
    return columns_of([message for message, _ in plans], *DueMessage.__slots__) | {
        "places": [place for place, _, _ in each],
        "task_ids": [uuid5(message.message_id, str(device.installation_id)) for _, message, device in each],
        "device_ids": [device.id for _, _, device in each],
        "late_sinces": [late_since.get(device.installation_id) for _, _, device in each],
    }


async def pending_of(
    db: AsyncSession, message_id: UUID, *, after: PlannedSend | None = None, most: int | None = None
) -> list[PlannedSend]:
    """List a message's pending tasks that this release can send, `most` at most, always in the same order."""
    query = (
        select(PushTask)
        .where(PushTask.message_id == message_id, PushTask.state == TaskState.PENDING)
        .order_by(PushTask.provider, PushTask.task_id)
        .limit(most)
    )
    if most is not None:  # so that a full page is full, whatever other rows there are
        query = query.where(PushTask.provider.in_(list(Provider)), PushTask.environment.in_(list(Environment)))
        query = query.where(PushTask.kind.in_(list(Kind)))
    if after is not None:
        query = query.where(tuple_(PushTask.provider, PushTask.task_id) > tuple_(after.provider.value, after.task_id))
    return [send for row in await db.scalars(query) if (send := planned(row)) is not None]


def planned(row: Any) -> PlannedSend | None:  # noqa: ANN401 -- any row with these columns
    """Give the send of a task; None for one that this release cannot send."""
    route, kind = route_of(row, "push_tasks"), word(Kind, row.kind, "push_tasks.kind")
    if route is None or kind is None:
        return None
    return PlannedSend(row.task_id, route.provider, route.environment, route.app_id, kind, user_digest(row.user_id))


async def locked(db: AsyncSession, task_ids: Collection[UUID]) -> list[Task]:
    """Read tasks and lock them until the transaction ends; those that this release cannot read are left out."""
    query = select(*_TASK).where(among(PushTask.task_id, task_ids))
    rows = await db.execute(query.order_by(PushTask.task_id).with_for_update())
    return [task for row in rows if (task := task_of(row)) is not None]


async def existing(db: AsyncSession, task_ids: Collection[UUID]) -> set[UUID]:
    """Say which of these tasks exist."""
    return set(await db.scalars(select(PushTask.task_id).where(among(PushTask.task_id, task_ids))))


async def apply(db: AsyncSession, updates: Collection[Update]) -> None:
    """Store the states of tasks. Acceptance always wins; any other state changes only a pending task.

    So it is among several updates of one task, too, of which PostgreSQL would apply any one.
    """
    if updates:
        names = ("task_id", "state", "reason", "next_attempt_at", "new_attempts", "device_id", "ago", "accepted_by")
        columns = columns_of(sorted(_strongest(updates), key=lambda u: u.task_id), *names)
        settled = (await db.execute(_APPLY, columns)).all()
        if settled:
            count_settled(db, {tuple(group[:4]): group.total for group in settled})
            once_committed(db, lambda: _count_accepted(settled))


def _strongest(updates: Collection[Update]) -> Collection[Update]:
    ranked = sorted(
        updates,
        key=lambda u: (u.state is TaskState.ACCEPTED, u.state is not TaskState.PENDING, u.next_attempt_at is not None),
    )
    return {update.task_id: update for update in ranked}.values()


async def note_loss(db: AsyncSession, task_ids: Collection[UUID]) -> None:
    """Note that a call for these pending tasks was lost with its worker: what comes now comes late because of that."""
    if task_ids:
        lost = update(PushTask).where(among(PushTask.task_id, task_ids), PushTask.state == TaskState.PENDING)
        await db.execute(lost.values(held_up_by="worker_lost"))


async def close(db: AsyncSession, task_ids: Collection[UUID], state: TaskState, reason: str) -> None:
    """Close tasks that are still pending; a dead one keeps the reason of its last attempt."""
    query = update(PushTask).where(among(PushTask.task_id, task_ids), PushTask.state == TaskState.PENDING)
    kept = func.coalesce(PushTask.last_reason, reason) if state is TaskState.DEAD else reason
    settled = query.values(
        state=state, last_reason=kept, next_attempt_at=None, held_by=None, settled_at=func.clock_timestamp()
    )
    closed = await db.execute(settled.returning(*_COUNTED))
    count_settled(db, Counter(map(tuple, closed)))


async def mark_dead(db: AsyncSession, task_ids: Collection[UUID]) -> None:
    """Mark tasks dead that ended with a refused token, reason kept, so that a person can redrive them."""
    refused = PushTask.state.in_((TaskState.UNREGISTERED, TaskState.REJECTED))
    query = update(PushTask).where(among(PushTask.task_id, task_ids), refused)
    query = query.values(state=TaskState.DEAD, settled_at=func.clock_timestamp())
    dead = await db.execute(query.returning(*_COUNTED))
    count_settled(db, Counter(map(tuple, dead)))


async def state_of(db: AsyncSession, task_ids: Collection[UUID]) -> Mapping[UUID, tuple[TaskState, str | None]]:
    """Read the states of tasks; a state of a newer release counts as withdrawn."""
    query = select(PushTask.task_id, PushTask.state, PushTask.last_reason).where(among(PushTask.task_id, task_ids))
    return {
        task_id: (word(TaskState, state, "push_tasks.state") or TaskState.WITHDRAWN, reason)
        for task_id, state, reason in await db.execute(query)
    }


async def installations_of(db: AsyncSession, task_ids: Collection[UUID]) -> Sequence[UUID]:
    """Say which installations tasks go to."""
    return (await db.scalars(select(PushTask.installation_id).where(among(PushTask.task_id, task_ids)))).all()


async def counts_by_message(db: AsyncSession, conversation_ids: Collection[UUID]) -> dict[UUID, dict[TaskState, int]]:
    """Count the tasks of these conversations by message and state."""
    query = (
        select(PushTask.message_id, PushTask.state, func.count())
        .where(among(PushTask.conversation_id, conversation_ids))
        .group_by(PushTask.message_id, PushTask.state)
    )
    counts: dict[UUID, dict[TaskState, int]] = {}
    for message_id, word_of_state, count in await db.execute(query):
        if state := word(TaskState, word_of_state, "push_tasks.state"):
            counts.setdefault(message_id, {})[state] = count
    return counts


def late_from(task: PushTask) -> datetime:
    """Say since when an accepted push was late: since it was due, or since the end of a message's intended wait."""
    again_at = known_or_none(task.again_at)
    was_meant = again_at is not None and task.kind == Kind.MESSAGE and again_at - task.due_at <= LONGEST_GRACE
    return again_at if was_meant and again_at is not None else task.due_at


async def late_from_of(db: AsyncSession, task_id: UUID) -> datetime | None:
    """Say the same of one task; None where there is none."""
    task = await db.get(PushTask, task_id)
    return None if task is None else late_from(task)


async def overdue_longest(db: AsyncSession) -> OverduePush | None:
    """Find the push that has been due for longest and is not settled, test pushes left out; None if none is overdue."""
    row = (await db.execute(_OVERDUE)).one_or_none()
    return None if row is None else OverduePush(row.user_id, row.message_id)


async def mark_opened(db: AsyncSession, user_id: str, task_id: UUID) -> bool:
    """Record when the person first tapped it; False when it is not theirs."""
    query = (
        update(PushTask)
        .where(PushTask.task_id == task_id, PushTask.user_id == user_id)
        .values(opened_at=func.coalesce(PushTask.opened_at, func.clock_timestamp()))
        .returning(PushTask.task_id)
    )
    return await db.scalar(query) is not None


_TASK = (  # the columns that `task_of` reads
    *(PushTask.task_id, PushTask.kind, PushTask.user_id, PushTask.installation_id, PushTask.conversation_id),
    *(PushTask.provider, PushTask.app_id, PushTask.environment, PushTask.message_id, PushTask.reminder_minutes),
    *(PushTask.collapse_key, PushTask.due_at, PushTask.expires_at, PushTask.attempt_count, PushTask.synced_at),
    *(PushTask.validate_only, PushTask.state, PushTask.last_reason, PushTask.again_at, PushTask.held_by),
)
# The state is written out, so that the planner uses the partial index of pending tasks.
_OVERDUE = text("""
    SELECT user_id, message_id
      FROM push_tasks
     WHERE state = 'pending' AND due_at <= statement_timestamp() AND kind <> 'test'
     ORDER BY coalesce(again_at, due_at), task_id
     LIMIT 1
""")
_COUNTED = (PushTask.provider, PushTask.kind, PushTask.state, PushTask.last_reason)

# Each row with one look into the index, as `_each` of `fasting_sessions` says.
_INSERT = """
    INSERT INTO push_tasks (task_id, kind, user_id, installation_id, device_id, provider, environment, app_id,
                            conversation_id, message_id, reminder_minutes, collapse_key, due_at, expires_at,
                            attempt_count, next_attempt_at, state, last_reason, settled_at, validate_only, again_at)
    SELECT new.task_id, m.kind, d.user_id, d.installation_id, d.id, d.provider, d.environment, d.app_id,
           m.conversation_id, m.message_id, m.reminder_minutes, m.collapse_key, m.due_at, m.expires_at,
           0, CASE WHEN planned.state = 'pending' THEN greatest(m.due_at, statement_timestamp()) END,
           planned.state, planned.reason, CASE WHEN planned.state <> 'pending' THEN clock_timestamp() END,
           m.validate_only, new.late_since
      FROM unnest(CAST(:message_id AS uuid[]), CAST(:kind AS text[]), CAST(:conversation_id AS uuid[]),
                  CAST(:reminder_minutes AS int[]), CAST(:collapse_key AS text[]), CAST(:due_at AS timestamptz[]),
                  CAST(:expires_at AS timestamptz[]), CAST(:validate_only AS boolean[])) WITH ORDINALITY
           AS m (message_id, kind, conversation_id, reminder_minutes, collapse_key, due_at, expires_at, validate_only,
                 place)
      JOIN unnest(CAST(:places AS bigint[]), CAST(:task_ids AS uuid[]), CAST(:device_ids AS uuid[]),
                  CAST(:late_sinces AS timestamptz[])) AS new (place, task_id, device_id, late_since) USING (place)
     CROSS JOIN (SELECT CAST(:state AS text) AS state, CAST(:reason AS text) AS reason) AS planned
     CROSS JOIN LATERAL (SELECT * FROM device_tokens WHERE id = new.device_id LIMIT 1) AS d
     ORDER BY new.task_id
        ON CONFLICT DO NOTHING
    RETURNING message_id, task_id, provider, environment, app_id, kind, user_id
"""
_PLAN = text(_INSERT)
_PLAN_AND_LIST = text(f"""
    WITH made AS ({_INSERT})
    SELECT true AS is_new, made.* FROM made
     UNION ALL
    SELECT false, t.message_id, task_id, provider, environment, app_id, kind, user_id
      FROM unnest(CAST(:message_id AS uuid[])) AS asked (id)
     CROSS JOIN LATERAL (SELECT * FROM push_tasks WHERE message_id = asked.id AND state = 'pending' OFFSET 0) AS t
     ORDER BY provider, task_id
""")  # noqa: S608 -- of our own words alone

# Of an attempt that may never have begun: another worker may hold or call the push by now.
_IS_NOTE = "new.state = 'pending' AND new.next_attempt_at IS NULL AND new.new_attempts = 0"

# Gives the settled ones to count. An accepted one replaces the unread push of its collapse group on the screen.
_APPLY = text(
    f"""
    WITH applied AS (
        UPDATE push_tasks AS t
           SET state = new.state,
               last_reason = new.reason,
               held_up_by = CASE WHEN new.state = 'pending' THEN coalesce(new.reason, t.held_up_by)
                                 ELSE t.held_up_by END,
               next_attempt_at = CASE WHEN new.next_attempt_at < t.expires_at THEN new.next_attempt_at
                                      WHEN new.next_attempt_at IS NOT NULL THEN t.expires_at
                                      WHEN {_IS_NOTE} THEN t.next_attempt_at END,
               held_by = CASE WHEN {_IS_NOTE} THEN t.held_by END,
               attempt_count = t.attempt_count + new.new_attempts,
               device_id = coalesce(new.device_id, t.device_id),
               accepted_at = CASE WHEN new.state = 'accepted'
                                  THEN least(clock_timestamp() - new.ago * interval '1 second', new.accepted_by) END,
               settled_at = CASE WHEN new.state <> 'pending' THEN clock_timestamp() END
          FROM unnest(CAST(:task_id AS uuid[]), CAST(:state AS text[]), CAST(:reason AS text[]),
                      CAST(:next_attempt_at AS timestamptz[]), CAST(:new_attempts AS int[]),
                      CAST(:device_id AS uuid[]), CAST(:ago AS float8[]), CAST(:accepted_by AS timestamptz[]))
               AS new (task_id, state, reason, next_attempt_at, new_attempts, device_id, ago, accepted_by)
         WHERE t.task_id = new.task_id
           AND (t.state = 'pending' OR (new.state = 'accepted' AND t.state <> 'accepted'))
        RETURNING t.task_id, t.provider, t.kind, t.state, t.last_reason, t.installation_id, t.collapse_key,
                  t.synced_at,
                  CAST(extract(epoch FROM t.accepted_at - coalesce({readable("t.again_at")}, {readable("t.due_at")}))
                       AS float8) AS lateness
    )
    SELECT provider, kind, state, last_reason, count(*) AS total,
           array_agg(lateness) FILTER (WHERE state = 'accepted' AND lateness IS NOT NULL) AS latenesses,
           count(*) FILTER (WHERE state = 'accepted' AND synced_at IS NOT NULL) AS synced,
           count(*) FILTER (
               WHERE state = 'accepted' AND collapse_key <> '' AND (
                   SELECT o.opened_at IS NULL
                     FROM push_tasks AS o
                    WHERE o.installation_id = a.installation_id AND o.collapse_key = a.collapse_key
                      AND o.synced_at IS NULL AND o.state = 'accepted' AND o.task_id <> a.task_id
                    ORDER BY o.due_at DESC
                    LIMIT 1
               )
           ) AS replacing
      FROM applied AS a
     WHERE state <> 'pending'
     GROUP BY provider, kind, state, last_reason
"""  # noqa: S608 -- of our own words alone
)


def _count_planned(made: Sequence[tuple[str, str]]) -> None:
    for provider, kind in made:
        metrics.pushes_planned.labels(provider, kind).inc()


def _count_accepted(groups: Rows) -> None:
    for group in groups:
        late = metrics.push_lateness.labels(group.provider, group.kind)
        for seconds in group.latenesses or ():
            late.observe(max(seconds, 0.0))
        for _ in range(group.synced):  # read while the provider answered
            count_synced(group.provider, group.kind, 0.0)
        if group.replacing:
            metrics.pushes_collapsed.labels(group.provider, group.kind, "after_acceptance").inc(group.replacing)


def task_of(row: Any) -> Task | None:  # noqa: ANN401 -- of the table, or of a query with these columns
    """Read a push task; None for one that this release cannot read."""
    route, kind = route_of(row, "push_tasks"), word(Kind, row.kind, "push_tasks.kind")
    state = word(TaskState, row.state, "push_tasks.state")
    if route is None or kind is None or state is None:
        return None
    return Task(
        task_id=row.task_id,
        kind=kind,
        user_id=row.user_id,
        installation_id=row.installation_id,
        route=route,
        conversation_id=row.conversation_id,
        message_id=row.message_id,
        reminder_minutes=row.reminder_minutes,
        collapse_key=row.collapse_key,
        due_at=row.due_at,
        expires_at=row.expires_at,
        attempt_count=row.attempt_count,
        is_synced=row.synced_at is not None,
        validate_only=row.validate_only,
        state=state,
        last_reason=row.last_reason,
        again_at=known_or_none(row.again_at),
        held_by=row.held_by,
    )
