"""The servers that all tests share, each started once."""

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from temporalio.client import Client

from api.app import create_app
from config import auth_settings, service_settings
from db.engine import async_url
from db.migrate import migrate
from embedded import start_postgres, temporal_command, temporal_environment
from simulator import Simulator
from tests.house import House, Place, make_house, open_house

NAMESPACES = ("main", "killed", "detached")


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an embedded PostgreSQL."""
    server = start_postgres(tmp_path_factory.mktemp("postgres") / "data")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(scope="session")
async def new_database(postgres: str) -> Callable[[str], Awaitable[str]]:
    """Make a migrated database by name; gives its address."""

    async def make(name: str) -> str:
        engine = create_async_engine(async_url(postgres), isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            await connection.execute(text(f"CREATE DATABASE {name}"))
        await engine.dispose()
        address = async_url(postgres).set(database=name).render_as_string(hide_password=False)
        await migrate(address)
        return address

    return make


def free_port() -> int:
    """Find a port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
async def temporal(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The address of a Temporal development server."""
    port = free_port()
    log = tmp_path_factory.mktemp("temporal") / "log"
    with log.open("wb") as out:
        server = subprocess.Popen(  # noqa: ASYNC220 -- started once, before anything else runs
            temporal_command(port, None, None, NAMESPACES), stdout=out, stderr=out, env=temporal_environment()
        )
    async with asyncio.timeout(30):
        while True:
            assert server.poll() is None, log.read_text()
            try:
                await Client.connect(f"127.0.0.1:{port}", namespace=NAMESPACES[-1])
                break
            except RuntimeError:
                await asyncio.sleep(0.1)
    yield f"127.0.0.1:{port}"
    server.terminate()
    server.wait(timeout=20)


@pytest.fixture(scope="session")
async def simulator(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Simulator]:
    """The provider simulator."""
    async with Simulator.start(run_dir=tmp_path_factory.mktemp("run")) as simulator:
        yield simulator


@pytest.fixture(scope="session")
async def house(
    new_database: Callable[[str], Awaitable[str]], temporal: str, simulator: Simulator
) -> AsyncIterator[House]:
    """The house that most tests share: API and worker in this process."""
    place = Place(await new_database("main"), temporal, "main", simulator)
    async with open_house(place) as house:
        yield house


@pytest.fixture(scope="session")
async def unarmed(house: House) -> AsyncIterator[House]:
    """The same house through an API process with ARM_WINDOW=0: its fasts sleep until the due instant."""
    environment = house.place.environment(ARM_WINDOW="0")
    async with make_house(house.place, create_app(service_settings(environment), auth_settings(environment))) as door:
        yield door


@pytest.fixture(autouse=True)
def _no_faults_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave no fault to the next test."""
    yield
    if "simulator" in request.fixturenames:
        request.getfixturevalue("simulator").faults.clear()
