"""A stack without a worker: each test brings its own."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from sqlalchemy import text

from simulator import Simulator
from tests.stack import Stack, StackPlace, make_app, make_stack


@pytest.fixture(scope="session")
async def simulator(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Simulator]:
    """A simulator that nobody else's worker calls, so that all calls can be counted."""
    async with Simulator.start(run_dir=tmp_path_factory.mktemp("routes")) as simulator:
        yield simulator


@pytest.fixture(scope="session")
async def _without_worker(
    new_database: Callable[[str], Awaitable[str]], temporal: str, simulator: Simulator
) -> AsyncIterator[Stack]:
    place = StackPlace(await new_database("routes"), temporal, "routes", simulator)
    async with make_stack(place, make_app(place)) as stack:
        yield stack


@pytest.fixture
async def without_worker(_without_worker: Stack, simulator: Simulator) -> AsyncIterator[Stack]:
    """API without a worker; no phones, no requests and no cutoff of another test."""
    simulator.clear()
    yield _without_worker
    async with _without_worker.sessions.begin() as db:
        await db.execute(text("TRUNCATE brakes, workers"))
