"""An API without a worker, for this folder."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from simulator import Simulator
from tests.stack import UNLIMITED, House, Place, User, make_app, make_house
from tests.streaming import BRISK, served


@pytest.fixture(scope="session")
async def detached(new_database: Callable[[str], Awaitable[str]], temporal: str, simulator: Simulator) -> Place:
    """A place where nobody works off what Temporal is told."""
    return Place(await new_database("api"), temporal, "detached", simulator)


@pytest.fixture(scope="session")
async def api(detached: Place) -> AsyncIterator[House]:
    """The API on a socket, without quotas: `test_quotas.py` is about those."""
    async with make_house(detached, make_app(detached, **UNLIMITED)) as house:
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
