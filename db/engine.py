"""The database's engine and sessions: a connection that cannot write is dropped, and metrics count once committed."""

import asyncio
import socket
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import fields
from datetime import datetime
from enum import Enum
from functools import partial
from typing import Any, TypeVar

import asyncpg
from sqlalchemy import ARRAY, ColumnElement, Row, Select, TextClause, any_, bindparam, event, func, select, text
from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
from sqlalchemy.exc import DBAPIError, InterfaceError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as NoFreeConnection
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from db.address import read_address, trusting
from db.unreadable import read_json, read_odd_values
from telemetry import metrics

UNREACHABLE: tuple[type[Exception], ...] = (  # errors while PostgreSQL is away, or starting
    OperationalError,
    InterfaceError,
    NoFreeConnection,
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
)
TROUBLE: tuple[type[Exception], ...] = (DBAPIError, *UNREACHABLE)  # all errors of the database
# Classes of SQLSTATE: connection, rollback, resources, lock not available, operator intervention; read-only
_PASSING = ("08", "40", "53", "55P03", "57", "25006")
_OF_ALL = ("08", "25006", "53", "57")  # concern everybody: connection, read-only, resources, operator
_CONTENT = ("22", "23", "54")  # data, integrity, limits of the program
_CONTENDED = {"40001", "40P01", "55P03"}  # SQLSTATE: serialization failure, deadlock, lock not available
_LOST = ("08", "57P01", "57P02", "57P03", "25006")  # of these, the server is not ours, or no longer
CANCELED = "57014"  # SQLSTATE of a statement that exceeded its timeout
_BEING_ERASED = "FB409"  # SQLSTATE that our triggers raise (migration 0022)
_NEXT_HOST = ("53", "57")  # SQLSTATEs of a host that lets nobody in at the moment
_SESSION = (  # set after connecting, since a pooler accepts few settings at the start
    "SET idle_in_transaction_session_timeout = '10s'",  # with the next three: a vanished host keeps no locks
    "SET tcp_keepalives_idle = 10",
    "SET tcp_keepalives_interval = 5",
    "SET tcp_keepalives_count = 3",
)
_LOCK_TIMEOUT = 3.0  # seconds
_CONNECTS_WITHIN = 5.0  # seconds, all hosts together
_LEAST_PER_HOST = 1.5  # seconds
_ANSWERS_WITHIN = 2.0  # seconds that a pooled connection may take to answer before it is lent
_PID = "SELECT pg_backend_pid()"
_TIMES_SEEN = 5  # with the same server process, until we believe that a client keeps it
_VANISHED = {  # our side of the keepalives: a vanished server is noticed within 7 seconds
    "TCP_KEEPIDLE": 3,
    "TCP_KEEPINTVL": 2,
    "TCP_KEEPCNT": 2,
    "TCP_USER_TIMEOUT": 5_000,  # milliseconds; this one is Linux's
}

T = TypeVar("T")
Sessions = async_sessionmaker[AsyncSession]
async_url = read_address
Rows = Sequence[Row[*tuple[Any, ...]]]
_COUNTS = "counted once committed"  # the name in `Session.info`


class ReadOnly(ConnectionError):
    """PostgreSQL answers, and takes no writes: a standby, or a primary set to read-only."""


def make_engine(database_url: str, *, pool_size: int = 10, lock_timeout: float = _LOCK_TIMEOUT) -> AsyncEngine:
    """Open a pool. `pool_size` is a hard limit; a caller that finds none free within 10 s gets an error.

    `lock_timeout`: seconds that a statement waits for a lock.
    """
    connect_args = {"async_creator_fn": _Hosts(_session(lock_timeout)).connect, "command_timeout": 30}
    engine = create_async_engine(
        read_address(database_url),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=10,
        connect_args=connect_args | {"server_settings": {"application_name": "fastbell"}},
        json_deserializer=read_json,
        hide_parameters=True,  # so that no token or user id gets into an error's text
    )
    event.listen(engine.sync_engine, "checkout", _look)
    event.listen(engine.sync_engine, "handle_error", _drop_what_is_lost)
    return engine


def make_engine_for_migrations(database_url: str) -> AsyncEngine:
    """Open a connection each time, and wait as long as a statement takes."""
    connect_args = {"async_creator_fn": _Hosts().connect}
    return create_async_engine(read_address(database_url), poolclass=NullPool, connect_args=connect_args)


async def connect_alone(database_url: str, name: str) -> Any:  # noqa: ANN401 -- asyncpg has no types
    """Open one connection outside of any pool, for LISTEN; gives asyncpg's own."""
    url = read_address(database_url)
    _, arguments = url.get_dialect()().create_connect_args(url)
    settings = {"application_name": name}
    return await _Hosts(_session()).connect(**arguments, command_timeout=5, server_settings=settings)


async def look_alone(connection: Any, *, within: float = 5.0) -> None:  # noqa: ANN401 -- asyncpg has no types
    """Check that a connection leads to a server that answers and takes writes; raises if not."""
    if await connection.fetchval("SHOW transaction_read_only", timeout=within) != "off":
        raise ReadOnly


class Pooling(Enum):
    """What is between us and PostgreSQL."""

    NONE = "none"
    SESSION = "session"  # a pooler whose client keeps its server connection
    TRANSACTION = "transaction"  # one that may give each transaction, or each statement, another


async def pooling(database_url: str) -> Pooling:
    """Find out with two connections: only if a pooler mixes them can one get the server process of the other."""
    url = read_address(database_url)
    _, arguments = url.get_dialect()().create_connect_args(url)
    async with AsyncExitStack() as stack:
        one, other = [await _Hosts().connect(**arguments, command_timeout=5, statement_cache_size=0) for _ in "ab"]
        for each in (one, other):
            stack.callback(each.terminate)
        try:
            async with one.transaction():
                first = await one.fetchval(_PID)
            for _ in range(_TIMES_SEEN):
                async with other.transaction():
                    if await other.fetchval(_PID) == first:
                        return Pooling.TRANSACTION
                    async with one.transaction():
                        if await one.fetchval(_PID) != first:
                            return Pooling.TRANSACTION
        except (asyncpg.ProtocolViolationError, asyncpg.ConnectionDoesNotExistError):
            # PgBouncer's answer to a transaction in statement mode; it closes the connection
            return Pooling.TRANSACTION
        return Pooling.NONE if one.get_server_pid() == first else Pooling.SESSION


def make_sessions(engine: AsyncEngine) -> Sessions:
    """Make sessions whose objects stay readable after the commit; `update` and `delete` change rows, not objects."""
    return async_sessionmaker(engine, expire_on_commit=False, execution_options={"synchronize_session": False})


async def present_instant(db: AsyncSession) -> datetime:
    """Read the database's clock: the one clock that all processes share."""
    now: datetime = (await db.execute(select(func.clock_timestamp()))).scalar_one()
    return now


def will_pass(error: DBAPIError) -> bool:
    """Tell whether a retry may succeed: the server ended the transaction for reasons of its own."""
    return error.connection_invalidated or _sqlstate(error.orig).startswith(_PASSING)


def may_be_ones_fault(error: Exception) -> bool:
    """Tell whether one ask of a batch may be the cause; not when the database is away or full."""
    if isinstance(error, DBAPIError):
        state = getattr(error.orig, "pgcode", None)
        return not error.connection_invalidated and not (state or "").startswith(_OF_ALL)
    return not isinstance(error, UNREACHABLE)


def refused_for_its_content(error: Exception) -> bool:
    """Tell whether the database will never take these values, such as a text with a NUL."""
    state = getattr(error.orig, "pgcode", None) if isinstance(error, DBAPIError) else None
    return state is not None and state.startswith(_CONTENT)


def is_contended(error: DBAPIError) -> bool:
    """Tell whether another transaction held a lock."""
    return _sqlstate(error.orig) in _CONTENDED


def is_of_erased(error: DBAPIError) -> bool:
    """Tell whether a trigger refused a row, because its person is being erased."""
    return _sqlstate(error.orig) == _BEING_ERASED


def among(column: InstrumentedAttribute[T], values: Iterable[T]) -> ColumnElement[bool]:
    """Compare with any of many values: one statement, whatever their number, compiled and prepared once.

    `column.in_()` writes a parameter per value, which costs milliseconds for a batch.
    """
    return column == any_(bindparam(None, list(values), type_=ARRAY(column.type)))


def any_of_locked(column: InstrumentedAttribute[T], rows: Select[T]) -> ColumnElement[bool]:
    """Compare with any of the values of a query that locks rows.

    As an array it runs once. As a subquery of `IN` the planner may run it for each row, and each time it locks others,
    beyond its limit.
    """
    return column == any_(func.array(rows.scalar_subquery(), type_=ARRAY(column.type)))


def columns_of(rows: Collection[Any], *names: str) -> dict[str, list[Any]]:
    """Give attributes of rows as arrays by their names, for `unnest`."""
    return {name: [getattr(row, name) for row in rows] for name in names}


def columns_like(
    kind: type[Any], table: type[Any], **others: ColumnElement[Any] | InstrumentedAttribute[Any]
) -> list[Any]:
    """Give a table's column for each field of a dataclass, in their order; `others`: what serves a field instead."""
    return [others.get(each.name, getattr(table, each.name, None)) for each in fields(kind)]


async def as_of_one_moment(db: AsyncSession) -> None:
    """Let all statements of this transaction read the state of one moment; this has to be its first statement."""
    await db.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))


async def hold_names(db: AsyncSession, names: Collection[str]) -> None:
    """Take advisory locks by name, in one order for all, until the transaction ends."""
    if names:
        await db.execute(_HOLD_NAMES, {"names": sorted(set(names))})


async def free_names(db: AsyncSession, names: Collection[str]) -> set[str]:
    """Take those of these advisory locks that nobody holds; gives their names. Waits for no lock."""
    return set(await db.scalars(_FREE_NAMES, {"names": sorted(set(names))})) if names else set()


_HOLD_NAMES = text("""
    SELECT pg_advisory_xact_lock(hashtextextended(name, 0))
      FROM (SELECT name FROM unnest(CAST(:names AS text[])) AS each (name) ORDER BY name COLLATE "C") AS ordered
""")
_FREE_NAMES = text("""
    SELECT name FROM unnest(CAST(:names AS text[])) AS each (name)
     WHERE pg_try_advisory_xact_lock(hashtextextended(name, 0))
""")


async def wait_briefly_for_locks(db: AsyncSession) -> None:
    """Wait at most 0.3 s for a lock in this transaction: one stuck row must not hold a batch up."""
    await db.execute(text("SET LOCAL lock_timeout = '300ms'"))


async def within(
    db: AsyncSession, seconds: float, query: TextClause, values: Mapping[str, object]
) -> Sequence[Row[Any]]:
    """Run a query for at most so many seconds; gives no rows if it takes longer. The transaction goes on."""
    savepoint = await db.begin_nested()
    try:
        await db.execute(text(f"SET LOCAL statement_timeout = {seconds * 1000:.0f}"))
        return (await db.execute(query, values)).all()
    except DBAPIError as error:
        if getattr(error.orig, "pgcode", None) != CANCELED:
            raise
        return ()
    finally:
        await savepoint.rollback()  # which also resets the timeout


def _session(lock_timeout: float = _LOCK_TIMEOUT) -> Iterable[str]:
    return (f"SET lock_timeout = '{lock_timeout * 1000:.0f}ms'", *_SESSION)


def watch(connected: socket.socket | None) -> None:
    """Have the kernel notice a vanished server; by default that takes a quarter of an hour."""
    if connected is not None and connected.family in {socket.AF_INET, socket.AF_INET6}:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _VANISHED.items():
            if hasattr(socket, name):
                connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class _Hosts:
    """Connects to the host that takes writes; tries the last such host first."""

    def __init__(self, session: Iterable[str] = ()) -> None:
        self._session = "; ".join(session)
        self._last = 0

    async def connect(self, *, host: Any = None, port: Any = None, **arguments: Any) -> Any:  # noqa: ANN401 -- asyncpg's
        """Connect as `asyncpg.connect` does; several hosts share 5 s, so a silent one leaves time for the others."""
        arguments["ssl"] = trusting(arguments.get("ssl"), arguments.pop("sslrootcert", None))
        hosts = list(zip(host, port, strict=True)) if isinstance(host, list) else [(host, port)]
        within = max(_CONNECTS_WITHIN / len(hosts), _LEAST_PER_HOST)
        trouble: Exception = ReadOnly()
        for place in sorted(range(len(hosts)), key=lambda each: each != self._last):
            try:
                connection = await self._connect(hosts[place], within, arguments)
            except (OSError, TimeoutError) as error:
                trouble = error
            except asyncpg.TargetServerAttributeNotMatched:
                trouble = ReadOnly("PostgreSQL takes no writes at the moment")
            except asyncpg.InternalClientError as error:  # the server hung up in the middle of a message
                trouble = ConnectionResetError(str(error))
            except asyncpg.PostgresError as error:
                if not _sqlstate(error).startswith(_NEXT_HOST):
                    raise
                trouble = error
            else:
                self._last = place
                return connection
        raise trouble

    async def _connect(
        self, address: tuple[str | None, int | None], within: float, arguments: Mapping[str, Any]
    ) -> Any:  # noqa: ANN401 -- asyncpg has no types
        host, port = address
        async with asyncio.timeout(within):
            connection = await asyncpg.connect(
                **arguments, host=host, port=port, timeout=within, target_session_attrs="read-write"
            )
            try:
                watch(connection._transport.get_extra_info("socket"))  # noqa: SLF001 -- there is no public way
                if self._session:
                    await connection.execute(self._session)
                    await read_odd_values(connection)
            except BaseException:
                connection.terminate()
                raise
            return connection


def _look(connection: DBAPIConnection, _entry: ConnectionPoolEntry, _proxy: object) -> None:
    """Check that a pooled connection lives and can write before it is lent; if not, replace the whole pool."""
    adapted: Any = connection
    try:
        adapted.run_async(partial(look_alone, within=_ANSWERS_WITHIN))
    except (*UNREACHABLE, asyncpg.PostgresError, asyncpg.InternalClientError):
        raise InvalidatePoolError from None


def _drop_what_is_lost(context: ExceptionContext) -> None:
    """Replace all connections after an answer that a server of ours would not give."""
    error = context.original_exception
    is_broken = isinstance(
        error.__cause__, asyncpg.InternalClientError
    )  # the server hung up in the middle of a message
    if context.connection is not None and (is_broken or _sqlstate(error).startswith(_LOST)):
        context.is_disconnect = True


def _sqlstate(error: BaseException | None) -> str:
    return str(getattr(error, "sqlstate", None) or "")


def once_committed(db: AsyncSession, count: Callable[[], None]) -> None:
    """Call `count` right after this transaction commits."""
    db.info.setdefault(_COUNTS, []).append(count)


def count_settled(db: AsyncSession, counts: Mapping[Any, int]) -> None:
    """Count push tasks that became final, by provider, kind, state and last reason."""
    if counts:
        once_committed(db, lambda: _count_settled(counts))


def count_synced(provider: str, kind: str, delay: float) -> None:
    """Count a push whose message was read this many seconds after acceptance (below 0: while the call lasted)."""
    metrics.pushes_synced.labels(provider, kind).inc()
    metrics.push_to_sync.labels(provider, kind).observe(max(delay, 0.0))


def _count_settled(counts: Mapping[Any, int]) -> None:
    for (provider, kind, state, reason), count in counts.items():
        metrics.pushes_settled.labels(provider, kind, state, metrics.reason(reason)).inc(count)
        if reason == "superseded":
            metrics.pushes_collapsed.labels(provider, kind, "before_acceptance").inc(count)


@event.listens_for(Session, "after_commit")
def _committed(session: Session) -> None:
    for count in session.info.pop(_COUNTS, ()):
        count()


@event.listens_for(Session, "after_rollback")
def _rolled_back(session: Session) -> None:
    session.info.pop(_COUNTS, None)
