"""A house of its own, so that a sweep that waits for nothing meets nobody else's pushes."""

from collections.abc import AsyncIterator

import pytest

from simulator import Simulator
from tests.conftest import NewDatabase
from tests.stack import House, Place, User, make_app, make_house, open_house


@pytest.fixture(scope="session")
async def house(new_database: NewDatabase, temporal: str, simulator: Simulator) -> AsyncIterator[House]:
    """API and worker in this process, without schedules."""
    place = Place(await new_database("housekeeping"), temporal, "housekeeping", simulator)
    async with open_house(place) as house:
        yield house


@pytest.fixture(scope="session")
async def unarmed(house: House) -> AsyncIterator[House]:
    """The same house through an API process with ARM_WINDOW=0: its fasts sleep until the due instant."""
    async with make_house(house.place, make_app(house.place, ARM_WINDOW="0")) as door:
        yield door


@pytest.fixture
def alice(house: House) -> User:
    """Somebody nobody has seen before."""
    return house.user()


@pytest.fixture
def bob(house: House) -> User:
    """Somebody else."""
    return house.user()


@pytest.fixture
def carol(house: House) -> User:
    """Somebody of the support team."""
    return house.user(None, "support")
