"""The database's address, engine and sessions."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, TypeVar

import asyncpg
from sqlalchemy import ARRAY, URL, ColumnElement, any_, bindparam, func, make_url, select, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoFreeConnection
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import InstrumentedAttribute

UNREACHABLE: tuple[type[Exception], ...] = (  # what it looks like when PostgreSQL is away, or comes up
    OperationalError,
    InterfaceError,
    NoFreeConnection,
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
)
# Classes of SQLSTATE: connection, rollback, resources, lock not available, operator intervention
_PASSING = ("08", "40", "53", "55P03", "57")
_OF_ALL = ("08", "25006", "53", "57")  # strike everybody alike: connection, read-only, resources, operator
_CONTENT = ("22", "23", "54")  # data, integrity, limits of the program
_CONTENDED = {"40001", "40P01", "55P03"}  # SQLSTATE: serialization failure, deadlock, lock not available
_SERVER_SETTINGS = {
    "application_name": "fastbell",
    "lock_timeout": "3s",
    "idle_in_transaction_session_timeout": "10s",  # with the next three: a host that vanished keeps no locks
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}

T = TypeVar("T")
Sessions = async_sessionmaker[AsyncSession]


def async_url(database_url: str) -> URL:
    """Read a `postgresql://` address, whichever driver it names, as one for asyncpg."""
    url = make_url(database_url).set(drivername="postgresql+asyncpg")
    mode = url.query.get("sslmode")  # asyncpg has the same under another name
    return url.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode}) if mode else url


def make_engine(database_url: str, *, pool_size: int = 10, lock_timeout: float | None = None) -> AsyncEngine:
    """Open a pool. `pool_size` is a hard limit; a caller that finds none free within 10 s gets an error.

    `lock_timeout`: seconds that a statement waits for a lock, where it is not the usual 3 s.
    """
    settings = _SERVER_SETTINGS
    if lock_timeout is not None:
        settings = settings | {"lock_timeout": f"{lock_timeout * 1000:.0f}ms"}
    return create_async_engine(
        async_url(database_url),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=10,
        pool_pre_ping=True,  # a restarted PostgreSQL costs nobody a failed request
        connect_args={"timeout": 5, "command_timeout": 30, "server_settings": settings},
        hide_parameters=True,  # tokens and user ids never reach an error's text
    )


async def connect_alone(database_url: str, name: str) -> Any:  # noqa: ANN401 -- asyncpg has no types
    """Open one connection outside of any pool, for LISTEN; gives asyncpg's own."""
    url = async_url(database_url)
    _, arguments = url.get_dialect()().create_connect_args(url)
    settings = _SERVER_SETTINGS | {"application_name": name}
    return await asyncpg.connect(**arguments, timeout=5, command_timeout=5, server_settings=settings)


def make_sessions(engine: AsyncEngine) -> Sessions:
    """Make database sessions whose objects stay readable after the commit."""
    return async_sessionmaker(engine, expire_on_commit=False)


async def present_instant(db: AsyncSession) -> datetime:
    """Read the database's clock: the one clock that all processes share."""
    now: datetime = (await db.execute(select(func.clock_timestamp()))).scalar_one()
    return now


async def is_ready(sessions: Sessions) -> bool:
    """Tell whether the database can be reached and is migrated."""
    try:
        async with sessions() as db:
            await db.execute(text("SELECT FROM outbox LIMIT 1"))
    except UNREACHABLE:
        return False
    except DBAPIError:  # for one, no such table
        return False
    return True


def will_pass(error: DBAPIError) -> bool:
    """Tell whether the same may succeed a little later: the server ended the transaction, not what was asked of it."""
    state = getattr(error.orig, "pgcode", None)
    return error.connection_invalidated or (state is not None and state.startswith(_PASSING))


def may_be_ones_fault(error: Exception) -> bool:
    """Tell whether one of many that were asked for together may be to blame; not where the database is away or full."""
    if isinstance(error, DBAPIError):
        state = getattr(error.orig, "pgcode", None)
        return not error.connection_invalidated and not (state or "").startswith(_OF_ALL)
    return not isinstance(error, UNREACHABLE)


def refused_for_its_content(error: Exception) -> bool:
    """Tell whether the database will never take these values: a NUL in a text, for one."""
    state = getattr(error.orig, "pgcode", None) if isinstance(error, DBAPIError) else None
    return state is not None and state.startswith(_CONTENT)


def is_contended(error: DBAPIError) -> bool:
    """Tell whether somebody else held what was to be locked."""
    return getattr(error.orig, "pgcode", None) in _CONTENDED


def among(column: InstrumentedAttribute[T], values: Iterable[T]) -> ColumnElement[bool]:
    """Compare with any of many values: one statement for any number of them, compiled and prepared once.

    `column.in_()` writes a parameter per value, which costs milliseconds for a batch.
    """
    return column == any_(bindparam(None, list(values), type_=ARRAY(column.type)))


async def wait_briefly_for_locks(db: AsyncSession) -> None:
    """Give up on a lock after 0.3 s in this transaction: a batch must not wait for one stuck row."""
    await db.execute(text("SET LOCAL lock_timeout = '300ms'"))
