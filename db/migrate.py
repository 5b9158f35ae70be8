"""Bring a database to the newest migration, and tell whether it is there."""

import asyncio
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncSession

from db.engine import TROUBLE, Sessions, make_engine_for_migrations

ALEMBIC = Path(__file__).parent.parent / "alembic.ini"


async def migrate(database_url: str) -> None:
    """Apply the migrations that are missing; concurrent processes queue."""
    engine = make_engine_for_migrations(database_url)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_upgrade)
    finally:
        await engine.dispose()


@cache
def revisions() -> tuple[str, ...]:
    """Name all migrations that this release has, the newest first."""
    return tuple(each.revision for each in ScriptDirectory.from_config(Config(ALEMBIC)).walk_revisions())


def newest_revision() -> str:
    """Name the newest migration that this release has."""
    return revisions()[0]


async def present_revision(db: AsyncSession) -> str | None:
    """Name the migration that a database is at; None where it was never migrated."""
    return await (await db.connection()).run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())


_VERSIONED = text("""
    SELECT to_regclass('alembic_version') IS NOT NULL AS is_versioned,
           coalesce(has_table_privilege(to_regclass('alembic_version'), 'SELECT'), true) AS may_look
""")
_PRESENT = text("SELECT version_num FROM alembic_version")
_TAKES_WRITES = text("UPDATE outbox SET attempts = attempts WHERE false")  # no row, but it needs the right to write


async def check_readiness(sessions: Sessions) -> tuple[bool, str | None]:
    """Tell whether the database can be reached, has all migrations of this release and takes writes.

    If it lacks migrations, also say what to do. One that a newer release has migrated serves this release too.
    """
    known = await asyncio.to_thread(revisions)
    try:
        async with sessions() as db:
            is_versioned, may_look = (await db.execute(_VERSIONED)).one()
            present = set(await db.scalars(_PRESENT)) if is_versioned and may_look else set()
            if may_look and known[0] not in present <= set(known):
                at = f"is at migration {max(present)}" if present else "was never migrated"
                return False, f"The database {at}, and this release needs {known[0]}: run `cli.py migrate`."
            await db.execute(_TAKES_WRITES)
    except TROUBLE:  # for one, no such table
        return False, None
    return True, None


def _upgrade(connection: Connection) -> None:
    config = Config(ALEMBIC)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
