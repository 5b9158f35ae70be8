"""Migrates a database that a person named; what is wrong with it is told in one sentence."""

import asyncpg
from sqlalchemy.exc import ArgumentError

from config import ConfigError
from db.engine import UNREACHABLE
from db.migrate import migrate

_REFUSED = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)


async def migrate_named(database_url: str) -> None:
    """Bring a database to the newest migration; raises ConfigError where it cannot be used."""
    try:
        await migrate(database_url)
    except ArgumentError:
        raise ConfigError("DATABASE_URL is no database address; one looks like postgresql://user@host/name.") from None
    except _REFUSED as error:
        raise ConfigError(f"DATABASE_URL: PostgreSQL refuses this user or database ({type(error).__name__}).") from None
    except UNREACHABLE as error:
        raise ConfigError(f"DATABASE_URL: PostgreSQL cannot be reached ({type(error).__name__}).") from None
