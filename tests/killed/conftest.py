"""A stack whose worker is a process of its own, to be killed."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from simulator import Simulator
from tests.servers import TemporalServer, free_port
from tests.stack import Stack, StackPlace, make_app, make_stack


@pytest.fixture(scope="session")
async def without_worker(
    new_database: Callable[[str], Awaitable[str]], temporal: str, simulator: Simulator
) -> AsyncIterator[Stack]:
    """API in this process, workers up to the test."""
    place = StackPlace(await new_database("killed"), temporal, "killed", simulator)
    async with make_stack(place, make_app(place)) as stack:
        yield stack


@pytest.fixture
def worker_settings(without_worker: Stack) -> Callable[[], dict[str, str]]:
    """Give the settings of one more worker process."""
    return lambda: without_worker.place.environment(METRICS_PORT=str(free_port()))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TemporalServer]:
    """A Temporal server of one test, which does not run yet; it keeps its state in a file."""
    server = TemporalServer(free_port(), database=tmp_path / "temporal.db")
    yield server
    server.kill()
