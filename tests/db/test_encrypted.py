"""PostgreSQL behind TLS, by DATABASE_URL alone: each handshake is real, with a proxy that ends TLS."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import trustme

from db.engine import async_url, make_engine, make_sessions
from db.migrate import check_readiness
from settings.environment import ConfigError, service_settings
from tests.servers import pass_on
from tests.stack import Stack

Authorities = Mapping[str, Path]  # the files of the one that the server belongs to, and of another


@pytest.fixture(scope="module")
def ours() -> trustme.CA:
    """The authority that the server belongs to."""
    return trustme.CA()


@pytest.fixture
def authorities(ours: trustme.CA, tmp_path: Path) -> Authorities:
    """Write the certificates of both authorities."""
    files = {"ours": tmp_path / "ours.pem", "others": tmp_path / "others.pem"}
    for authority, path in zip((ours, trustme.CA()), files.values(), strict=True):
        authority.cert_pem.write_to_path(path)
    return files


@pytest.fixture
async def port(ours: trustme.CA, stack: Stack) -> AsyncIterator[int]:
    """Where a proxy takes TLS alone, for PostgreSQL behind it; `localhost` is in its certificate."""
    context, database = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), async_url(stack.place.database_url)
    ours.issue_cert("localhost").configure_cert(context)
    socket = f"{database.query['host']}/.s.PGSQL.{database.port or 5432}"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)  # the request for TLS
        writer.write(b"S")
        try:
            await writer.start_tls(context)
            to, back = await asyncio.open_unix_connection(socket)
            await asyncio.gather(pass_on(reader, back), pass_on(to, writer))
        except (ssl.SSLError, ConnectionError):  # the client goes away: it does not trust us
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield int(server.sockets[0].getsockname()[1])
    server.close()


async def test_a_server_of_a_trusted_authority_and_of_that_name_alone_is_used(
    authorities: Authorities, port: int, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at(host: str, mode: str, authority: str) -> str:
        return _address(stack, f"{host}:{port}", f"sslmode={mode}&sslrootcert={authority}")

    ours, others = str(authorities["ours"]), str(authorities["others"])
    assert await _is_ready(at("localhost", "verify-full", ours))
    assert await _is_ready(at("127.0.0.1", "verify-ca", ours))
    assert not await _is_ready(at("127.0.0.1", "verify-full", ours))
    assert not await _is_ready(at("localhost", "verify-ca", others))
    assert not await _is_ready(at("localhost", "verify-full", "system"))

    alone = _address(stack, f"localhost:{port}", "sslmode=verify-full")
    assert not await _is_ready(alone)
    monkeypatch.setenv("SSL_CERT_FILE", ours)  # what this process takes for the system's
    assert await _is_ready(alone)
    monkeypatch.setenv("PGSSLROOTCERT", others)
    assert not await _is_ready(alone)


@pytest.mark.parametrize(
    ("query", "refusal"),
    [
        ("sslmode=verify-full&sslrootcert=/no/such", "sslrootcert names a file without certificates: /no/such"),
        ("sslmode=verify-full&sslrootcert=README.md", "sslrootcert names a file without certificates: README.md"),
        ("sslmode=require&sslrootcert=system", "needs sslmode=verify-full or verify-ca"),
        ("sslrootcert=/no/such", "needs sslmode=verify-full or verify-ca"),
        ("sslmode=verify-ca&sslrootcert=a&sslrootcert=b", "sslrootcert is one file"),
    ],
)
def test_an_authority_that_cannot_be_used_stops_the_start(query: str, refusal: str) -> None:
    with pytest.raises(ConfigError, match=rf"^DATABASE_URL: [^\n]*{refusal}[^\n]*\.$"):
        service_settings({"DATABASE_URL": f"postgresql://app:hush-hush@db/x?{query}"})


def _address(stack: Stack, host: str, query: str) -> str:
    database = async_url(stack.place.database_url)
    return f"postgresql://{database.username}:{database.password or ''}@{host}/{database.database}?{query}"


async def _is_ready(address: str) -> bool:
    engine = make_engine(address, pool_size=1)
    try:
        return (await check_readiness(make_sessions(engine)))[0]
    finally:
        await engine.dispose()
