"""Migrations: up, down, in agreement with the models, one at a time."""

import asyncio
import os
import secrets
import sys
from collections.abc import Callable

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from commands.context import migrate_named
from db.engine import async_url, make_sessions
from db.migrate import ALEMBIC, check_readiness, migrate, revisions
from db.models.table import Table
from settings.environment import ConfigError


def address(engine: AsyncEngine) -> str:
    return engine.url.render_as_string(hide_password=False)


async def run(engine: AsyncEngine, question: Callable[[Connection], object]) -> object:
    async with engine.begin() as connection:
        return await connection.run_sync(question)


def tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names())


_OF_THE_RELEASE_BEFORE = """
INSERT INTO device_tokens
    (user_id, installation_id, provider, app_id, environment, token, active, registered_at, last_seen_at)
SELECT 'alice', gen_random_uuid(), 'apns', app_id, 'production', coalesce(app_id, 'default'), true, now(), now()
FROM (VALUES (NULL), ('com.example.fast')) AS apps (app_id);
INSERT INTO push_tasks
    (task_id, kind, user_id, installation_id, device_id, provider, environment, conversation_id, message_id,
     collapse_key, due_at, attempt_count, state, last_reason, expires_at)
SELECT gen_random_uuid(), 'reminder', 'alice', gen_random_uuid(), device_tokens.id, 'apns', 'production',
    gen_random_uuid(), gen_random_uuid(), 'a-fast', now(), 0, state, reason, now() + use * interval '1 minute'
FROM device_tokens JOIN (
    VALUES
        ('com.example.fast', 'pending', 'of an app, pending', 5),
        ('com.example.fast', 'dead', 'of an app, dead', 5),
        ('com.example.fast', 'dead', 'of an app, dead and expired', -5),
        ('default', 'pending', 'of the default app', 5)
) AS tasks (token, state, reason, use) USING (token)
"""


def upgrade(connection: Connection, revision: str) -> None:
    config = Config(ALEMBIC)
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def downgrade(connection: Connection) -> None:
    config = Config(ALEMBIC)
    config.attributes["connection"] = connection
    command.downgrade(config, "base")


async def test_an_empty_database_becomes_the_models_and_nothing_else(empty: AsyncEngine) -> None:
    assert not (await check_readiness(make_sessions(empty)))[0]

    await migrate(address(empty))

    def differences(connection: Connection) -> object:
        return compare_metadata(MigrationContext.configure(connection), Table.metadata)

    assert await run(empty, differences) == []
    assert await run(empty, tables) == {*Table.metadata.tables, "alembic_version"}
    assert (await check_readiness(make_sessions(empty)))[0]


async def test_every_constraint_and_index_of_the_models_is_in_the_database(empty: AsyncEngine) -> None:
    await migrate(address(empty))

    def names(connection: Connection) -> set[str]:
        constraints = "SELECT conname FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype = 'c'"
        indexes = "SELECT indexname FROM pg_indexes WHERE schemaname = 'public'"
        return {row[0] for query in (constraints, indexes) for row in connection.execute(text(query))}

    def wanted(connection: Connection) -> set[str]:
        Table.metadata.create_all(connection)
        return names(connection)

    migrated = await run(empty, names)
    await run(empty, Table.metadata.drop_all)
    assert migrated == (await run(empty, wanted))


async def test_what_was_migrated_can_be_undone_and_done_again(empty: AsyncEngine) -> None:
    await migrate(address(empty))

    await run(empty, downgrade)

    assert await run(empty, tables) == {"alembic_version"}
    await migrate(address(empty))
    assert (await check_readiness(make_sessions(empty)))[0]


async def test_pushes_that_wait_through_the_upgrade_keep_the_app_of_their_phone(empty: AsyncEngine) -> None:
    await run(empty, lambda connection: upgrade(connection, "0001"))
    async with empty.begin() as connection:
        for sql in _OF_THE_RELEASE_BEFORE.split(";"):
            await connection.execute(text(sql))

    await migrate(address(empty))

    rows = await run(empty, lambda c: c.execute(text("SELECT last_reason, app_id FROM push_tasks ORDER BY 1")).all())
    assert rows == [
        ("of an app, dead", "com.example.fast"),
        ("of an app, dead and expired", None),
        ("of an app, pending", "com.example.fast"),
        ("of the default app", None),
    ]


async def test_what_was_registered_as_a_token_but_is_none_asks_for_a_refresh(empty: AsyncEngine) -> None:
    await run(empty, lambda connection: upgrade(connection, "0006"))
    tokens = {"null": "fcm", "(null)": "apns", "[object Object]": "fcm", "f:" + "x" * 140: "fcm", "ab" * 32: "apns"}
    async with empty.begin() as connection:
        for token, provider in tokens.items():
            await connection.execute(
                text(
                    "INSERT INTO device_tokens (user_id, installation_id, provider, environment, token, active,"
                    " registered_at, last_seen_at)"
                    " VALUES ('u', gen_random_uuid(), :provider, 'production', :token, true, now(), now())"
                ),
                {"token": token, "provider": provider},
            )

    await migrate(address(empty))

    query = text(
        "SELECT token, active, inactive_reason, event, reason FROM device_tokens d"
        " LEFT JOIN device_token_events e ON e.device_id = d.id ORDER BY length(token)"
    )
    rows = await run(empty, lambda connection: connection.execute(query).all())
    gone = (False, "invalidated", "invalidated", "MalformedDeviceToken")
    assert rows == [
        ("null", *gone),
        ("(null)", *gone),
        ("[object Object]", *gone),
        ("ab" * 32, True, None, None, None),
        ("f:" + "x" * 140, True, None, None, None),
    ]


async def test_migrations_that_start_at_once_queue(empty: AsyncEngine) -> None:
    by_hand = [sys.executable, "-m", "alembic", "upgrade", "head"]
    by_code = [sys.executable, "-c", f"import asyncio, db.migrate; asyncio.run(db.migrate.migrate({address(empty)!r}))"]
    environment = os.environ | {"DATABASE_URL": address(empty)}

    processes = [
        await asyncio.create_subprocess_exec(*command, cwd=ALEMBIC.parent, env=environment)
        for command in (by_hand, by_code) * 2
    ]

    assert [await process.wait() for process in processes] == [0] * 4

    newest = ScriptDirectory.from_config(Config(ALEMBIC)).get_current_head()
    assert await run(empty, lambda c: c.execute(text("SELECT version_num FROM alembic_version")).all()) == [(newest,)]


@pytest.mark.parametrize("wrong", [{"database": "no_such"}, {"username": "nobody"}], ids=str)
async def test_a_database_that_postgresql_does_not_know_is_reported_in_one_sentence(
    postgres: str, wrong: dict[str, str]
) -> None:
    url = async_url(postgres).set(**wrong).render_as_string(hide_password=False)  # type: ignore[arg-type] # one of many

    with pytest.raises(ConfigError, match=r"^DATABASE_URL: [^.]* user, password or database\.$"):
        await migrate_named(url)


async def test_a_migrated_database_may_be_migrated_again(empty: AsyncEngine) -> None:
    for _ in range(2):
        await migrate(address(empty))

    assert (await check_readiness(make_sessions(empty)))[0]


async def test_a_release_is_ready_on_its_own_schema_and_on_that_of_a_newer_one(empty: AsyncEngine) -> None:
    sessions = make_sessions(empty)
    newest, before = revisions()[:2]
    await run(empty, lambda connection: upgrade(connection, before))
    behind = await check_readiness(sessions)
    await migrate(address(empty))
    own = await check_readiness(sessions)
    async with empty.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = 'of-a-newer-one'"))

    assert behind == (
        False,
        f"The database is at migration {before}, and this release needs {newest}: run `cli.py migrate`.",
    )
    assert own == await check_readiness(sessions) == (True, None)


async def test_who_may_not_see_the_migrations_is_ready_if_the_rest_is(empty: AsyncEngine) -> None:
    await migrate(address(empty))
    name = f"reader_{secrets.token_hex(4)}"
    async with empty.begin() as connection:
        await connection.execute(text(f"CREATE ROLE {name} LOGIN"))
        await connection.execute(text(f"GRANT ALL ON outbox TO {name}"))
    engine = create_async_engine(empty.url, connect_args={"server_settings": {"role": name}})

    assert await check_readiness(make_sessions(engine)) == (True, None)
    await engine.dispose()
