"""Erasures: who is being erased, whose turn it is, how their rows go, and what of them may still have a workflow.

Rows are deleted in small batches, from the first table to the last; those that others hold are left for the next round.
What is found only by a row that goes (attempts, events, groups of a phone's screen) goes with it. What may have a
workflow in Temporal is remembered by its id.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from sqlalchemy import func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from db import push_tasks
from db.engine import any_of_locked, columns_of
from db.models.operations import ErasureRow
from domain.push import TaskState

LEASE = timedelta(seconds=60)  # a worker that died holds an erasure this long
_LONGEST = timedelta(minutes=1)  # no transaction of ours lasts longer: its statements end in 30 s, its pauses in 10 s
BATCH = 500  # rows
_MESSAGES = 100  # in a batch: each may have pending pushes to many people
ERASED = "message_erased"  # the reason of a push about a message whose sender is erased
NOBODY = "(erased)"  # stands for an operator who was erased


class ErasureState(StrEnum):
    """Whether anything of the person may be left."""

    RUNNING = "running"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Erasure:
    """An erasure, without a name."""

    id: UUID
    state: ErasureState
    requested_at: datetime
    done_at: datetime | None


@dataclass(frozen=True, slots=True)
class Erasing:
    """An erasure that a worker goes on with."""

    id: UUID
    user_id: str = field(repr=False)
    attempts: int  # that failed, in a row


@dataclass(frozen=True, slots=True)
class ErasureSubject:
    """What was deleted and may have a workflow; `kind` as in the outbox."""

    kind: str
    id: UUID


async def running(db: AsyncSession, user_id: str) -> Erasure | None:
    """Give the erasure of somebody who is being erased now."""
    row = await db.scalar(select(ErasureRow).where(ErasureRow.user_id == user_id))
    return None if row is None else _shown(row)


async def read(db: AsyncSession, erasure_id: UUID) -> Erasure | None:
    """Read an erasure."""
    row = await db.get(ErasureRow, erasure_id)
    return None if row is None else _shown(row)


async def add(db: AsyncSession, user_id: str, digest: bytes) -> Erasure:
    """Begin an erasure: from the commit on, triggers keep new rows about this person out."""
    values = {"user_id": user_id, "digest": digest, "next_attempt_at": func.clock_timestamp()}
    return _shown((await db.scalars(insert(ErasureRow).values(values).returning(ErasureRow))).one())


async def lease_due(db: AsyncSession) -> Erasing | None:
    """Take the erasure that waits for longest, and keep other workers off it for a while."""
    row = (await db.execute(_LEASE_DUE)).one_or_none()
    if row is None:
        return None
    assert row.user_id is not None  # as long as it is due
    return Erasing(row.id, row.user_id, row.attempts)


_NOW = func.statement_timestamp()
_DUE = (
    select(ErasureRow.id)
    .where(ErasureRow.next_attempt_at <= _NOW)
    .order_by(ErasureRow.next_attempt_at)
    .limit(1)
    .with_for_update(skip_locked=True)
)
_LEASE_DUE = (  # made once, since a worker runs it every second
    update(ErasureRow)
    .where(any_of_locked(ErasureRow.id, _DUE))
    .values(next_attempt_at=_NOW + LEASE)
    .returning(ErasureRow.id, ErasureRow.user_id, ErasureRow.attempts)
)


async def go_on_later(db: AsyncSession, erasure_id: UUID, wait: timedelta, attempts: int) -> None:
    """Let any worker go on after a wait."""
    values = {"next_attempt_at": func.clock_timestamp() + wait, "attempts": attempts}
    query = update(ErasureRow).where(ErasureRow.id == erasure_id, ErasureRow.done_at.is_(None))
    await db.execute(query.values(values))


async def finish(db: AsyncSession, erasure_id: UUID) -> None:
    """Forget the name: from the commit on, the person may come back."""
    values = {"user_id": None, "next_attempt_at": None, "done_at": func.clock_timestamp()}
    query = update(ErasureRow).where(ErasureRow.id == erasure_id, ErasureRow.done_at.is_(None))
    await db.execute(query.values(values))


async def is_anyone_older(db: AsyncSession, at: datetime) -> bool:
    """Tell whether a transaction is open that began before an instant: it may not know of what was committed since.

    All processes connect as one role, so each sees the others. Transactions older than any of ours can be are ignored.
    """
    return bool(await db.scalar(_OLDER, {"at": at, "longest": _LONGEST}))


async def subjects(
    db: AsyncSession, erasure_id: UUID, after: ErasureSubject | None, limit: int
) -> Sequence[ErasureSubject]:
    """List subjects whose workflows are to be deleted, except those that a relay may just be dispatching."""
    values = {"kind": after.kind if after else "", "id": after.id if after else UUID(int=0)}
    rows = await db.execute(_SUBJECTS, {"erasure_id": erasure_id, "limit": limit} | values)
    return [ErasureSubject(*row) for row in rows]


async def has_subjects(db: AsyncSession, erasure_id: UUID) -> bool:
    """Tell whether a subject is left."""
    return bool(await db.scalar(_HAS_SUBJECTS, {"erasure_id": erasure_id}))


async def settle(db: AsyncSession, erasure_id: UUID, gone: Collection[ErasureSubject]) -> None:
    """Forget subjects that have no workflow."""
    await db.execute(_SETTLE, columns_of(gone, "kind", "id") | {"erasure_id": erasure_id})


def _shown(row: ErasureRow) -> Erasure:
    state = ErasureState.RUNNING if row.done_at is None else ErasureState.DONE
    return Erasure(row.id, state, row.requested_at, row.done_at)


_OLDER = text("""
    SELECT EXISTS (
        SELECT FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
           AND xact_start <= CAST(:at AS timestamptz)
           AND xact_start > clock_timestamp() - CAST(:longest AS interval)
    )
""")

_SUBJECTS = text("""
    SELECT s.subject_kind, s.subject_id
      FROM erased_subjects s
     WHERE s.erasure_id = :erasure_id AND (s.subject_kind, s.subject_id) > (:kind, CAST(:id AS uuid))
       AND NOT EXISTS (SELECT FROM outbox o WHERE o.subject_id = s.subject_id AND o.subject_kind = s.subject_kind)
     ORDER BY s.subject_kind, s.subject_id
     LIMIT :limit
""")

_HAS_SUBJECTS = text("SELECT EXISTS (SELECT FROM erased_subjects WHERE erasure_id = :erasure_id)")

_SETTLE = text("""
    DELETE FROM erased_subjects s
     USING unnest(CAST(:kind AS text[]), CAST(:id AS uuid[])) AS gone (kind, id)
     WHERE s.erasure_id = :erasure_id AND s.subject_kind = gone.kind AND s.subject_id = gone.id
""")


@dataclass(frozen=True, slots=True)
class Whose:
    """The person whose rows are deleted."""

    erasure_id: UUID
    user_id: str = field(repr=False)
    call_lasts: timedelta  # a provider's call that began longer ago has lost its worker


_Batch = Callable[[AsyncSession, Whose], Awaitable[bool]]


async def is_left(db: AsyncSession, whose: Whose) -> bool:
    """Tell whether a row of this person is left, such as one that another transaction held."""
    return bool(await db.scalar(_LEFT, {"user_id": whose.user_id, "erasure_id": whose.erasure_id}))


def _run(statement: str) -> _Batch:
    """Make a batch of a statement that returns a row for each that it deleted or changed."""
    query = text(statement)

    async def run(db: AsyncSession, whose: Whose) -> bool:
        values = asdict(whose) | {"limit": BATCH}
        named = {name: value for name, value in values.items() if f":{name}" in statement}
        return len((await db.execute(query, named)).all()) == BATCH

    return run


async def _messages(db: AsyncSession, whose: Whose) -> bool:
    """Take sender and text from messages, and withdraw their waiting pushes to others."""
    values = {"user_id": whose.user_id, "erasure_id": whose.erasure_id, "limit": _MESSAGES}
    message_ids = list(await db.scalars(_SENT, values))
    if message_ids:
        waiting = list(await db.scalars(_WAITING, {"message_ids": message_ids}))
        await push_tasks.close(db, waiting, TaskState.WITHDRAWN, ERASED)
    return len(message_ids) == _MESSAGES


def _whole(table: str, of_a_person: str = "true") -> tuple[str, _Batch]:
    """Delete all rows of a table whose `user_id` is the person's."""
    named = f"{table} WHERE user_id = :user_id AND {of_a_person}"
    mine = f"SELECT ctid FROM {named} LIMIT :limit FOR UPDATE SKIP LOCKED"  # noqa: S608 -- of our models' names
    return named, _run(f"DELETE FROM {table} WHERE ctid = ANY(ARRAY({mine})) RETURNING 1")  # noqa: S608 -- of our models' names


def _without(table: str, column: str, instead: str, of_a_person: str = "true") -> tuple[str, _Batch]:
    """Write something else where a column of somebody else's row names the person."""
    named = f"{table} WHERE {column} = :user_id AND {of_a_person}"
    mine = f"SELECT ctid FROM {named} LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED"  # noqa: S608 -- of our models' names
    return (
        named,
        _run(f"UPDATE {table} SET {column} = {instead} WHERE ctid = ANY(ARRAY({mine})) RETURNING 1"),  # noqa: S608 -- of our models' names
    )


# A push that is being called is left until its outcome is stored, or its worker must be lost.
_PUSH_TASKS = """
    WITH old AS (
        SELECT t.task_id, t.kind, t.message_id, t.installation_id, t.collapse_key, t.again_at
          FROM push_tasks t
         WHERE t.user_id = :user_id
           AND NOT EXISTS (SELECT FROM push_attempts a
                            WHERE a.task_id = t.task_id AND a.outcome IS NULL
                              AND a.started_at > statement_timestamp() - CAST(:call_lasts AS interval))
         LIMIT :limit
           FOR UPDATE OF t SKIP LOCKED
    ), attempts AS (
        DELETE FROM push_attempts a USING old WHERE a.task_id = old.task_id
    ), groups AS (
        DELETE FROM collapse_groups g
         USING old WHERE g.installation_id = old.installation_id AND g.collapse_key = old.collapse_key
    ), actions AS (
        DELETE FROM support_actions s
         USING old WHERE s.subject_id IN (old.task_id, CASE WHEN old.kind = 'test' THEN old.message_id END)
    ), remembered AS (
        INSERT INTO erased_subjects (erasure_id, subject_kind, subject_id)
        SELECT CAST(:erasure_id AS uuid), 'push_task', task_id FROM old WHERE again_at IS NOT NULL
         UNION SELECT CAST(:erasure_id AS uuid), 'test_push', message_id FROM old WHERE kind = 'test'
            ON CONFLICT DO NOTHING
    )
    DELETE FROM push_tasks t USING old WHERE t.task_id = old.task_id RETURNING 1
"""

_FASTS = """
    WITH old AS (
        SELECT id FROM fasting_sessions WHERE user_id = :user_id LIMIT :limit FOR UPDATE SKIP LOCKED
    ), remembered AS (
        INSERT INTO erased_subjects (erasure_id, subject_kind, subject_id)
        SELECT CAST(:erasure_id AS uuid), 'fasting_session', id FROM old ON CONFLICT DO NOTHING
    )
    DELETE FROM fasting_sessions s USING old WHERE s.id = old.id RETURNING 1
"""

# Those of erased fasts, after the log that held them.
_REMINDERS = """
    WITH old AS (
        SELECT m.id
          FROM erased_subjects s
          JOIN messages m ON m.conversation_id = s.subject_id AND m.kind = 'reminder'
         WHERE s.erasure_id = :erasure_id AND s.subject_kind = 'fasting_session'
           AND NOT EXISTS (SELECT FROM log_items i WHERE i.message_id = m.id)
         LIMIT :limit
           FOR UPDATE OF m SKIP LOCKED
    )
    DELETE FROM messages m USING old WHERE m.id = old.id RETURNING 1
"""
_REMINDERS_LEFT = """
    erased_subjects s JOIN messages m ON m.conversation_id = s.subject_id AND m.kind = 'reminder'
     WHERE s.erasure_id = :erasure_id AND s.subject_kind = 'fasting_session'
"""

# `handed_off_at`: nothing of it is planned any more.
_SENT = text("""
    WITH mine AS (
        SELECT id FROM messages WHERE sender_id = :user_id ORDER BY id LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED
    ), remembered AS (
        INSERT INTO erased_subjects (erasure_id, subject_kind, subject_id)
        SELECT CAST(:erasure_id AS uuid), 'message', id FROM mine ON CONFLICT DO NOTHING
    )
    UPDATE messages m
       SET sender_id = NULL, body = NULL, handed_off_at = coalesce(m.handed_off_at, clock_timestamp())
      FROM mine WHERE m.id = mine.id
    RETURNING m.id
""")
_WAITING = text("""
    SELECT task_id FROM push_tasks
     WHERE message_id = ANY(CAST(:message_ids AS uuid[])) AND state = 'pending' ORDER BY task_id FOR UPDATE
""")

# What is known of an installation goes too, unless somebody else is signed in there.
_DEVICE_TOKENS = """
    WITH old AS (
        SELECT d.id, d.installation_id
          FROM device_tokens d
         WHERE d.user_id = :user_id AND NOT EXISTS (SELECT FROM push_tasks t WHERE t.device_id = d.id)
         LIMIT :limit
           FOR UPDATE OF d SKIP LOCKED
    ), own AS (
        SELECT DISTINCT old.installation_id
          FROM old
         WHERE NOT EXISTS (SELECT FROM device_tokens o
                            WHERE o.installation_id = old.installation_id AND o.active AND o.user_id <> :user_id)
    ), tickets AS (
        DELETE FROM spent_tickets t USING own WHERE t.installation_id = own.installation_id
    ), groups AS (
        DELETE FROM collapse_groups g USING own WHERE g.installation_id = own.installation_id
    ), events AS (
        DELETE FROM device_token_events e USING old WHERE e.device_id = old.id
    )
    DELETE FROM device_tokens d USING old WHERE d.id = old.id RETURNING 1
"""

# Deliveries of an event do not name anybody, and would only be found dead without it.
_EVENTS = """
    WITH old AS (
        SELECT number FROM events WHERE user_id = :user_id LIMIT :limit FOR UPDATE SKIP LOCKED
    ), deliveries AS (
        DELETE FROM webhook_deliveries d
         USING old CROSS JOIN webhooks w WHERE d.webhook_id = w.id AND d.event_number = old.number
    )
    DELETE FROM events e USING old WHERE e.number = old.number RETURNING 1
"""


def _by_person(column: str) -> str:
    """Ask whether a person acted. Of rows of the release before, it asks whether no API key has the name."""
    return f"coalesce({column}, NOT EXISTS (SELECT FROM api_keys k WHERE k.name = :user_id))"


_TARGETS: Mapping[str, _Batch] = dict([  # which rows, as the end of a `SELECT FROM`; and how a batch of them goes
    _whole("presences"),
    _whole("preference_sessions"),
    _whole("preference_codes"),
    _whole("console_sessions", _by_person("by_person")),
    _whole("console_codes", _by_person("by_person")),
    _whole("members"),
    _whole("unnumbered_events"),
    ("events WHERE user_id = :user_id", _run(_EVENTS)),
    ("push_tasks WHERE user_id = :user_id", _run(_PUSH_TASKS)),
    _whole("withheld_pushes"),
    _whole("preferences"),
    _whole("sync_positions"),
    ("messages WHERE sender_id = :user_id", _messages),
    _whole("log_items"),
    _whole("log_heads"),
    ("fasting_sessions WHERE user_id = :user_id", _run(_FASTS)),
    (_REMINDERS_LEFT, _run(_REMINDERS)),
    _without("device_token_events", "taken_by", "NULL"),
    ("device_tokens WHERE user_id = :user_id", _run(_DEVICE_TOKENS)),
    (
        "support_actions WHERE detail ->> 'user_id' = :user_id",
        _run("DELETE FROM support_actions WHERE detail ->> 'user_id' = :user_id AND :limit > 0 RETURNING 1"),
    ),
    _without("support_actions", "actor", f"'{NOBODY}'", _by_person("by_person")),
    _without("brakes", "resumed_by", f"'{NOBODY}'", _by_person("resumed_by_person")),
])  # fmt: skip
ROWS, BATCHES = tuple(_TARGETS), tuple(_TARGETS.values())

_LEFT = text("SELECT " + " OR ".join(f"EXISTS (SELECT FROM {each})" for each in ROWS))  # noqa: S608 -- of this module
