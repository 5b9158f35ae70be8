"""Bring a database to the newest migration."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncSession

from db.engine import make_engine_for_migrations

ALEMBIC = Path(__file__).parent.parent / "alembic.ini"


async def migrate(database_url: str) -> None:
    """Apply the migrations that are missing; concurrent processes queue."""
    engine = make_engine_for_migrations(database_url)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_upgrade)
    finally:
        await engine.dispose()


def newest_revision() -> str:
    """Name the newest migration that this release has."""
    return str(ScriptDirectory.from_config(Config(ALEMBIC)).get_current_head())


async def present_revision(db: AsyncSession) -> str | None:
    """Name the migration that a database is at; None where it was never migrated."""
    return await (await db.connection()).run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())


def _upgrade(connection: Connection) -> None:
    config = Config(ALEMBIC)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
