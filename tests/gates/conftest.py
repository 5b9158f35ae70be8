"""A house without a worker: each test brings its own."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from sqlalchemy import text

from api.app import create_app
from settings.environment import auth_settings, service_settings
from simulator import Simulator
from tests.stack import Place, Stack, make_stack


@pytest.fixture(scope="session")
async def simulator(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Simulator]:
    """A simulator that nobody else's worker calls, so that all calls can be counted."""
    async with Simulator.start(run_dir=tmp_path_factory.mktemp("gates")) as simulator:
        yield simulator


@pytest.fixture(scope="session")
async def _without_worker(
    new_database: Callable[[str], Awaitable[str]], temporal: str, simulator: Simulator
) -> AsyncIterator[Stack]:
    place = Place(await new_database("gates"), temporal, "gates", simulator)
    environment = place.environment()
    async with make_stack(place, create_app(service_settings(environment), auth_settings(environment))) as stack:
        yield stack


@pytest.fixture
async def without_worker(_without_worker: Stack, simulator: Simulator) -> AsyncIterator[Stack]:
    """API without a worker; no phones, no requests and no brake of another test."""
    simulator.clear()
    yield _without_worker
    async with _without_worker.sessions.begin() as db:
        await db.execute(text("TRUNCATE brakes, workers"))
