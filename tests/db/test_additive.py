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
    narrowing: dict[tuple[str, str], str]  # constraints and unique indexes, by table and name: what they ask


_COLUMNS = text("""
    SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull,
           a.atthasdef OR a.attidentity <> ''
      FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
     WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
""")
_NARROWING = text("""
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
     WHERE connamespace = 'public'::regnamespace AND contype IN ('c', 'f', 'p', 'u', 'x')
     UNION
    SELECT indrelid::regclass::text, indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
      JOIN pg_class ON pg_class.oid = indexrelid
     WHERE indisunique AND relnamespace = 'public'::regnamespace
""")
# What was replaced since the last release, and why that release passes it.
_LOOSENED = {("messages", "ck_messages_posted_by_somebody"): "0022 also allows the message of an erased sender"}


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
    for (table, name), definition in after.narrowing.items():
        if table in tables and before.narrowing.get((table, name)) != definition and (table, name) not in _LOOSENED:
            yield f"{table} asks for more: {name}"


def _schema(connection: Connection) -> Schema:
    columns = {(table, name): Column(*how) for table, name, *how in connection.execute(_COLUMNS)}
    return Schema(columns, {(table, name): definition for table, name, definition in connection.execute(_NARROWING)})


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
    assert all(before.narrowing[each] != after.narrowing[each] for each in _LOOSENED)


_SPOILED = {
    "ALTER TABLE outbox DROP COLUMN attempts": "outbox.attempts is gone",
    "ALTER TABLE outbox ADD COLUMN shard int NOT NULL": "outbox.shard is asked for, and the release before has no such",
    "ALTER TABLE messages ALTER COLUMN number TYPE int": "messages.number was bigint and is integer",
    "ALTER TABLE device_tokens ALTER COLUMN locale SET NOT NULL": "device_tokens.locale may no longer be null",
    "ALTER TABLE preferences ALTER COLUMN rev DROP DEFAULT": "preferences.rev has no default any more",
    "ALTER TABLE members ADD CONSTRAINT short CHECK (user_id <> '')": "members asks for more: short",
    "CREATE UNIQUE INDEX one ON messages (conversation_id)": "messages asks for more: one",
}


async def test_what_the_last_release_would_trip_over_is_noticed(released: AsyncEngine) -> None:
    before = await _schema_of(released)
    async with released.begin() as connection:
        for statement in _SPOILED:
            await connection.execute(text(statement))

    assert sorted(faults(before, await _schema_of(released))) == sorted(_SPOILED.values())
