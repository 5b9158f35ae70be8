"""How Alembic reaches the database: by the connection its caller hands over, else by DATABASE_URL."""

import asyncio

from alembic import context
from sqlalchemy import Connection, text

from db.engine import make_engine_for_migrations
from db.models.table import Table
from settings.environment import service_settings

_LOCK = 0x_FA57_BE11  # two migrations at once queue


def _run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Table.metadata, compare_type=True)
    with context.begin_transaction():
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        context.run_migrations()


async def _connect_and_run() -> None:
    engine = make_engine_for_migrations(service_settings().database_url.get_secret_value())
    async with engine.connect() as connection:
        await connection.run_sync(_run)
    await engine.dispose()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    _run(given)
else:
    asyncio.run(_connect_and_run())
