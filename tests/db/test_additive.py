"""Migrations since the last release are additive: that release reads and writes beside this one."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.db.test_migrations import run, upgrade
from tests.releases import releases


@dataclass(frozen=True)
class Column:
    """What a writer of a column has to know."""

    type: str
    nullable: bool
    filled: bool  # by a default, or by itself


@dataclass(frozen=True)
class Schema:
    """What a release relies on."""

    columns: dict[tuple[str, str], Column]  # by table and name
    asked: dict[tuple[str, str], str]  # constraints, unique indexes and triggers, by table and name: what they are


_COLUMNS = text("""
    SELECT c.relname, a.attname,
           format_type(a.atttypid, a.atttypmod) || CASE WHEN a.attgenerated <> '' OR a.attidentity = 'a'
                                                        THEN ', which nobody may write' ELSE '' END,
           NOT a.attnotnull, a.atthasdef OR a.attidentity <> ''
      FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
     WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
""")
_ASKED = text("""
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
     WHERE connamespace = 'public'::regnamespace AND contype IN ('c', 'f', 'x')
     UNION
    SELECT indrelid::regclass::text, indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
      JOIN pg_class ON pg_class.oid = indexrelid
     WHERE indisunique AND relnamespace = 'public'::regnamespace
     UNION
    SELECT tgrelid::regclass::text, tgname, pg_get_triggerdef(pg_trigger.oid) FROM pg_trigger
      JOIN pg_class ON pg_class.oid = tgrelid
     WHERE NOT tgisinternal AND relnamespace = 'public'::regnamespace
""")
# What is new or was replaced since the last release, by how its name begins, and why that release passes it.
_PASSED = {
    "ck_messages_posted_by_somebody": "0022 also allows the message of an erased sender",
    "being_erased_": "0022 refuses rows of somebody who is being erased, and that release erases nobody",
    **dict.fromkeys(
        (
            *("push_tasks_planned", "push_tasks_changed", "withheld_pushes_noted"),
            *("device_token_events_noted", "fasting_sessions_started", "fasting_sessions_changed"),
        ),
        "0021 writes what happened to the events; it refuses nothing",
    ),
}


def faults(before: Schema, after: Schema) -> Iterator[str]:
    """Say what the release before would trip over."""
    tables = {table for table, _ in before.columns}
    for (table, name), was in before.columns.items():
        now = after.columns.get((table, name))
        if now is None:
            yield f"{table}.{name} is gone"
        elif now.type != was.type:
            yield f"{table}.{name} was {was.type} and is {now.type}"
        elif was.nullable and not now.nullable:
            yield f"{table}.{name} may no longer be null"
        elif was.filled and not now.filled:
            yield f"{table}.{name} has no default any more"
    for (table, name), now in after.columns.items():
        if table in tables and (table, name) not in before.columns and not (now.nullable or now.filled):
            yield f"{table}.{name} is asked for, and the release before has no such"
    yield from _unlike(before, after)


def _unlike(before: Schema, after: Schema) -> Iterator[str]:
    tables = {table for table, _ in before.columns}
    for (table, name), definition in after.asked.items():
        if table in tables and before.asked.get((table, name)) != definition and not name.startswith((*_PASSED,)):
            yield f"{table} asks for more: {name}"
    for (table, name), definition in before.asked.items():
        if (table, name) not in after.asked and definition.startswith("CREATE"):
            yield f"{table} lacks {name}"  # a unique index that ON CONFLICT names, or a trigger that tells listeners


def _schema(connection: Connection) -> Schema:
    columns = {(table, name): Column(*how) for table, name, *how in connection.execute(_COLUMNS)}
    return Schema(columns, {(table, name): definition for table, name, definition in connection.execute(_ASKED)})


async def _schema_of(engine: AsyncEngine) -> Schema:
    read = await run(engine, _schema)
    assert isinstance(read, Schema)
    return read


@pytest.fixture
async def released(empty: AsyncEngine) -> AsyncEngine:
    """A database as the last release has it."""
    await run(empty, lambda connection: upgrade(connection, releases()[0].migration))
    return empty


async def test_the_last_release_works_on_the_schema_of_this_one(released: AsyncEngine) -> None:
    before = await _schema_of(released)
    await run(released, lambda connection: upgrade(connection, "head"))
    after = await _schema_of(released)

    assert list(faults(before, after)) == []
    changed = {name for (_, name), definition in after.asked.items() - before.asked.items()}
    assert all(any(name.startswith(passed) for name in changed) for passed in _PASSED)


_SPOILED = {
    "ALTER TABLE outbox DROP COLUMN attempts": "outbox.attempts is gone",
    "ALTER TABLE outbox ADD COLUMN shard int NOT NULL": "outbox.shard is asked for, and the release before has no such",
    "ALTER TABLE messages ALTER COLUMN number TYPE int": "messages.number was bigint and is integer",
    "ALTER TABLE device_tokens ALTER COLUMN locale SET NOT NULL": "device_tokens.locale may no longer be null",
    "ALTER TABLE preferences ALTER COLUMN rev DROP DEFAULT": "preferences.rev has no default any more",
    "ALTER TABLE members ADD CONSTRAINT short CHECK (user_id <> '')": "members asks for more: short",
    "CREATE UNIQUE INDEX one ON messages (conversation_id)": "messages asks for more: one",
    "CREATE TRIGGER refuses BEFORE INSERT ON members EXECUTE FUNCTION suppress_redundant_updates_trigger()": (
        "members asks for more: refuses"
    ),
    "DROP INDEX uq_device_tokens_active_token": "device_tokens lacks uq_device_tokens_active_token",
    "ALTER TABLE push_attempts DROP COLUMN latency_ms, ADD latency_ms int GENERATED ALWAYS AS (0) STORED": (
        "push_attempts.latency_ms was integer and is integer, which nobody may write"
    ),
}


async def test_what_the_last_release_would_trip_over_is_noticed(released: AsyncEngine) -> None:
    before = await _schema_of(released)
    async with released.begin() as connection:
        for statement in _SPOILED:
            await connection.execute(text(statement))

    assert sorted(faults(before, await _schema_of(released))) == sorted(_SPOILED.values())
