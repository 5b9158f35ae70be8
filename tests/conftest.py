"""The servers that all tests share, each started once."""

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import wraps
from inspect import iscoroutinefunction
from pathlib import Path

import pytest
import structlog
import uvloop
from hypothesis import HealthCheck, settings
from playwright.async_api import Browser
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from db.engine import async_url
from db.migrate import migrate
from demo.parts import start_postgres
from settings.logs import name_exception
from simulator import Simulator
from tests.browsing import chromium
from tests.busy import soon
from tests.servers import TemporalServer, free_port
from tests.stack import Stack, StackPlace, User, make_app, make_stack, open_stack

# Exceptions as in production: by name and place. structlog's own way shows all local variables, which takes seconds.
structlog.configure(
    processors=[structlog.processors.add_log_level, name_exception, structlog.dev.ConsoleRenderer(colors=False)]
)

# The event loop of the processes. As a policy: a loop factory would tear the servers down wherever a test is not async.
asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

# Examples have no time limit each: on a busy machine any of them may take long, which hypothesis would call a failure.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

NewDatabase = Callable[[str], Awaitable[str]]
NAMESPACES = (
    "main",
    "killed",
    "postgres",
    "detached",
    "apps",
    "routes",
    "faults",
    "housekeeping",
    "dumped",
    "doctor",
    "pooled",
    "metrics",
    "numbers",
    "traced",
    "neighbours",
    "pages",
    "encrypted",
    "restored",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bound coroutines by their own loop: pytest-timeout's signal does not wake it, or strikes whatever runs in it."""
    for item in items:
        if isinstance(item, pytest.Function) and iscoroutinefunction(item.obj):
            marker = item.get_closest_marker("timeout")
            item.obj = _bounded(item.obj, float(marker.args[0] if marker else item.config.getini("timeout")))
            item.add_marker(pytest.mark.timeout(0), append=False)


def _bounded(test: Callable[..., Awaitable[None]], seconds: float) -> Callable[..., Awaitable[None]]:
    @wraps(test)
    async def bounded(*given: object, **fixtures: object) -> None:
        began = time.monotonic()
        try:
            async with soon(seconds) as bound:
                await test(*given, **fixtures)
        except TimeoutError as error:
            if bound.expired():
                raise AssertionError(f"not over within {time.monotonic() - began:.0f} s") from error
            raise

    return bounded


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of an embedded PostgreSQL."""
    # Not below pytest's own directory, which only its owner may enter: as root, PostgreSQL runs as somebody else.
    with tempfile.TemporaryDirectory(prefix="fastbell-") as directory:
        data = Path(directory) / "data"
        start_postgres(data).cleanup()
        with (data / "postgresql.conf").open("a") as config:
            config.write("max_connections = 400\n")  # each stack has its pools
            config.write("fsync = off\n")  # what a crash of the machine would lose is no test's matter; disks stall
        server = start_postgres(data)
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(scope="session")
async def new_database(postgres: str) -> Callable[[str], Awaitable[str]]:
    """Make a migrated database by name; gives its address. The second of a name gets a number."""
    made = Counter[str]()

    async def make(name: str) -> str:
        made[name] += 1
        name = name if made[name] == 1 else f"{name}_{made[name]}"
        engine = create_async_engine(async_url(postgres), isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            await connection.execute(text(f"CREATE DATABASE {name}"))
        await engine.dispose()
        address = async_url(postgres).set(database=name).render_as_string(hide_password=False)
        await migrate(address)
        return address

    return make


@pytest.fixture(scope="session")
async def temporal() -> AsyncIterator[str]:
    """The address of a Temporal development server."""
    async with TemporalServer.start(free_port(), namespaces=NAMESPACES) as server:
        yield server.address


@pytest.fixture(scope="session")
async def simulator(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Simulator]:
    """The provider simulator."""
    async with Simulator.start(run_dir=tmp_path_factory.mktemp("run")) as simulator:
        yield simulator


@pytest.fixture(scope="session")
async def main_stack(
    new_database: Callable[[str], Awaitable[str]], temporal: str, simulator: Simulator
) -> AsyncIterator[Stack]:
    """The stack that most tests share: API and worker in this process."""
    place = StackPlace(await new_database("main"), temporal, "main", simulator)
    async with open_stack(place, MESSAGE_RATE="0", WEBHOOKS_ALLOW_PRIVATE="true") as stack:  # faster than people
        yield stack


@pytest.fixture(scope="session")
async def stack(main_stack: Stack) -> Stack:
    """The stack of a test that has no other in its folder."""
    return main_stack


@pytest.fixture(scope="session")
async def unarmed(main_stack: Stack) -> AsyncIterator[Stack]:
    """The main stack through an API process with ARM_WINDOW=0: its fasts sleep until the due instant."""
    async with make_stack(main_stack.place, make_app(main_stack.place, ARM_WINDOW="0")) as api_stack:
        yield api_stack


@pytest.fixture
def alice(stack: Stack) -> User:
    """A new user."""
    return stack.user()


@pytest.fixture
def bob(stack: Stack) -> User:
    """Another new user."""
    return stack.user()


@pytest.fixture
def carol(stack: Stack) -> User:
    """A member of the support team."""
    return stack.user(None, "support")


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """A Chromium."""
    async with chromium() as browser:
        yield browser


@pytest.fixture(autouse=True)
def _no_faults_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave no fault to the next test."""
    yield
    if "simulator" in request.fixturenames:
        request.getfixturevalue("simulator").faults.clear()
