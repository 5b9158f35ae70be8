"""The database that a command works on; what is wrong with it is told in one sentence."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

import asyncpg
from sqlalchemy.exc import DBAPIError

from commands.run_directory import read_settings, run_directory
from config import ConfigError, service_settings
from db.engine import UNREACHABLE, ReadOnly, Sessions, make_engine, make_sessions
from db.migrate import migrate

_REFUSED = ("28000", "28P01", "3D000")  # SQLSTATEs: user, password, database
_NO_SUCH_TABLE = ("42P01", "42703")  # SQLSTATEs: undefined table, undefined column


def database_url(environ: Mapping[str, str]) -> str:
    """Find the database: DATABASE_URL, or that of the run in RUN_DIR; raises ConfigError."""
    run_dir = run_directory(environ)
    url = environ.get("DATABASE_URL") or read_settings(run_dir).get("DATABASE_URL")
    if not url:
        raise ConfigError(f"DATABASE_URL is not set, and there is no local run in {run_dir}; `make run` starts one.")
    return service_settings({"DATABASE_URL": url}).database_url.get_secret_value()


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Sessions]:
    """Open a migrated database; raises ConfigError where it cannot be used."""
    with told_in_one_sentence():
        engine = make_engine(url, pool_size=2)
        try:
            yield make_sessions(engine)
        finally:
            await engine.dispose()


async def migrate_named(url: str) -> None:
    """Bring a database to the newest migration; raises ConfigError where it cannot be used."""
    with told_in_one_sentence():
        await migrate(url)


@contextmanager
def told_in_one_sentence() -> Iterator[None]:
    """Raise ConfigError for whatever keeps a database from being used."""
    try:
        yield
    except ReadOnly:
        raise ConfigError("DATABASE_URL: PostgreSQL answers and takes no writes: a standby, or read-only.") from None
    except UNREACHABLE as error:
        raise ConfigError(f"DATABASE_URL: PostgreSQL cannot be reached ({type(error).__name__}).") from None
    except (DBAPIError, asyncpg.PostgresError) as error:
        state = getattr(error.orig if isinstance(error, DBAPIError) else error, "sqlstate", None)
        if state in _REFUSED:
            raise ConfigError("DATABASE_URL: PostgreSQL knows no such user, password or database.") from None
        if state not in _NO_SUCH_TABLE:
            raise
        raise ConfigError("DATABASE_URL: this database is not up to date; `cli.py migrate` makes it so.") from None
