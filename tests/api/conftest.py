"""An API without a worker, for this folder."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from api.app import create_app
from config import auth_settings, service_settings
from simulator import Simulator
from tests.house import House, Place, User, make_house
from tests.streaming import BRISK, served


@pytest.fixture(scope="session")
async def detached(new_database: Callable[[str], Awaitable[str]], temporal: str, simulator: Simulator) -> Place:
    """A place where nobody works off what Temporal is told."""
    return Place(await new_database("api"), temporal, "detached", simulator)


@pytest.fixture(scope="session")
async def api(detached: Place) -> AsyncIterator[House]:
    """The API on a socket."""
    environment = detached.environment()
    async with make_house(detached, create_app(service_settings(environment), auth_settings(environment))) as house:
        yield house


@pytest.fixture(scope="session")
async def fragile(new_database: Callable[[str], Awaitable[str]], temporal: str, simulator: Simulator) -> Place:
    """A place whose database may be hurt."""
    return Place(await new_database("fragile"), temporal, "detached", simulator)


@pytest.fixture(scope="session")
async def brisk(fragile: Place) -> AsyncIterator[House]:
    """An API whose streams live fast."""
    async with served(fragile, BRISK) as house:
        yield house


@pytest.fixture
def alice(api: House) -> User:
    """Somebody nobody has seen before."""
    return api.user()


@pytest.fixture
def bob(api: House) -> User:
    """Somebody else."""
    return api.user()
