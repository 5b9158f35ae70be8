"""Deletes the rows of a person in small batches, from the first table to the last.

Rows that others hold are left for the next round. What is found only by a row that goes (attempts, events, groups of a
phone's screen) goes with it. What may have a workflow in Temporal is remembered by its id (`db/erasures.py`).
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from db import push_tasks
from domain.push import TaskState

BATCH = 500  # rows
_MESSAGES = 100  # in a batch: each may have pending pushes to many people
ERASED = "message_erased"  # the reason of a push about a message whose sender is erased
NOBODY = "(erased)"  # stands for an operator who was erased


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
