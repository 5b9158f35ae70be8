"""A house whose worker is a process of its own, to be killed."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from api.app import create_app
from settings.environment import auth_settings, service_settings
from simulator import Simulator
from tests.servers import free_port
from tests.stack import House, Place, make_house


@pytest.fixture(scope="session")
async def workerless(
    new_database: Callable[[str], Awaitable[str]], temporal: str, simulator: Simulator
) -> AsyncIterator[House]:
    """API in this process, workers up to the test."""
    place = Place(await new_database("killed"), temporal, "killed", simulator)
    environment = place.environment()
    async with make_house(place, create_app(service_settings(environment), auth_settings(environment))) as house:
        yield house


@pytest.fixture
def worker_settings(workerless: House) -> Callable[[], dict[str, str]]:
    """Give the settings of one more worker process."""
    return lambda: workerless.place.environment(METRICS_PORT=str(free_port()))
