"""A stack whose worker is a process of its own, to be killed."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from simulator import Simulator
from tests.servers import free_port
from tests.stack import Stack, StackPlace, make_app, make_stack


@pytest.fixture(scope="session")
async def workerless(
    new_database: Callable[[str], Awaitable[str]], temporal: str, simulator: Simulator
) -> AsyncIterator[Stack]:
    """API in this process, workers up to the test."""
    place = StackPlace(await new_database("killed"), temporal, "killed", simulator)
    async with make_stack(place, make_app(place)) as stack:
        yield stack


@pytest.fixture
def worker_settings(workerless: Stack) -> Callable[[], dict[str, str]]:
    """Give the settings of one more worker process."""
    return lambda: workerless.place.environment(METRICS_PORT=str(free_port()))
