"""The database's address, as people write it; and connections that are of no use, which nobody gets."""

import socket
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from db import outbox
from db.engine import (
    UNREACHABLE,
    ReadOnly,
    Sessions,
    async_url,
    connect_alone,
    look_alone,
    make_engine,
    make_sessions,
    watch,
    will_pass,
)
from db.migrate import check_readiness
from tests.conftest import NewDatabase
from tests.failover import Failover
from tests.stack import Stack


@pytest.mark.parametrize("mode", ["disable", "require", "verify-full"])
def test_the_word_of_libpq_for_tls_is_understood(mode: str) -> None:
    url = async_url(f"postgres://app:word@db.example:5433/fastbell?sslmode={mode}")

    assert url.render_as_string(hide_password=False) == (
        f"postgresql+asyncpg://app:word@db.example:5433/fastbell?ssl={mode}"
    )


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://u:p@h1:5432,h2:5433/db?target_session_attrs=read-write",
        "postgresql://u:p@h1,h2:5433/db",
        "postgresql://u:p@/db?host=h1:5432&host=h2:5433&target_session_attrs=primary",
        "postgresql://u:p@/db?host=h1,h2&port=5432,5433",
        "postgresql+asyncpg://u:p@/db?host=h1:5432,h2:5433",
    ],
)
def test_several_hosts_are_understood_in_each_of_their_forms(address: str) -> None:
    url = async_url(address)
    _, arguments = url.get_dialect()().create_connect_args(url)

    assert arguments == {"host": ["h1", "h2"], "port": [5432, 5433], "user": "u", "password": "p", "database": "db"}


def test_hosts_may_be_addresses_and_share_a_port() -> None:
    url = async_url("postgresql://u:p@[::1],127.0.0.1/db?port=6000&sslmode=require")
    _, arguments = url.get_dialect()().create_connect_args(url)

    assert (arguments["host"], arguments["port"], arguments["ssl"]) == (["::1", "127.0.0.1"], [6000, 6000], "require")


async def test_a_database_is_reached_by_an_address_that_says_so(stack: Stack) -> None:
    address = stack.place.database_url + "&sslmode=disable&target_session_attrs=read-write"
    engine = make_engine(address)

    ready, alone = (await check_readiness(make_sessions(engine)))[0], await connect_alone(address, "test")

    assert ready
    await look_alone(alone)
    await alone.close()
    await engine.dispose()


@pytest.fixture
async def failover(new_database: NewDatabase, postgres: str) -> AsyncIterator[Failover]:
    """A database that can be made read-only."""
    async with Failover.of(postgres, await new_database("failing_over")) as failover:
        yield failover


async def test_connections_that_cannot_write_are_dropped_and_the_rest_of_the_pool_with_them(failover: Failover) -> None:
    engine = make_engine(failover.database_url, pool_size=3)
    sessions = make_sessions(engine)
    alone = await connect_alone(failover.database_url, "alone")
    assert (await check_readiness(sessions))[0]

    await failover.begin()
    assert not (await check_readiness(sessions))[0]
    with pytest.raises(ReadOnly):
        await connect_alone(failover.database_url, "alone")
    await failover.end()

    with pytest.raises((*UNREACHABLE, asyncpg.PostgresError)):
        await look_alone(alone)
    assert (await check_readiness(sessions))[0]
    await engine.dispose()


async def test_a_write_that_met_a_standby_drops_its_connection_and_may_be_repeated(stack: Stack) -> None:
    engine = make_engine(stack.place.database_url, pool_size=1)
    sessions = make_sessions(engine)
    async with sessions() as db:
        before = await _pid(sessions)
        await db.execute(text("SET TRANSACTION READ ONLY"))  # which nobody is told of beforehand
        with pytest.raises(DBAPIError) as raised:
            await outbox.settle(db, 0)

    assert will_pass(raised.value)
    assert await _pid(sessions) != before
    await engine.dispose()


async def test_a_connection_that_became_read_only_is_not_lent_again(stack: Stack) -> None:
    engine = make_engine(stack.place.database_url, pool_size=1)
    sessions = make_sessions(engine)
    async with sessions() as db:
        await db.execute(text("SET default_transaction_read_only = on"))
        before = (await db.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        await db.commit()

    assert (await check_readiness(sessions))[0]
    assert await _pid(sessions) != before
    await engine.dispose()


async def test_a_host_that_is_gone_costs_its_part_of_the_time_once(stack: Stack) -> None:
    url = async_url(stack.place.database_url)
    with socket.create_server(("127.0.0.1", 0)) as mute, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen, nor does anybody else there meanwhile
        mute_port, closed_port = mute.getsockname()[1], closed.getsockname()[1]
        hosts = f"127.0.0.1,127.0.0.1,{url.query['host']}"
        several = url.update_query_dict({"host": hosts, "port": f"{closed_port},{mute_port},5432"})
        engine = make_engine(several.render_as_string(hide_password=False), pool_size=2)
        sessions = make_sessions(engine)

        assert (await check_readiness(sessions))[0]
        async with sessions() as first, sessions() as second:
            for db in (first, second):
                await db.execute(text("SELECT 1"))
    await engine.dispose()


def test_a_server_that_vanished_is_found_out_by_the_kernel() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as connected:
        watch(connected)

        assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 3
        assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 5_000


async def _pid(sessions: Sessions) -> int:
    async with sessions() as db:
        return int((await db.execute(text("SELECT pg_backend_pid()"))).scalar_one())
