"""People, their phones, and a browser."""

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser

from tests.browsing import chromium
from tests.console.visits import Visit, visit
from tests.stack import House, User


@pytest.fixture
async def carol(house: House) -> Visit:
    """Somebody of the support team, signed in to the console."""
    return await visit(house)


@pytest.fixture
def alice(house: House) -> User:
    """Somebody nobody has seen before."""
    return house.user()


@pytest.fixture
def bob(house: House) -> User:
    """Somebody else."""
    return house.user()


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """A Chromium."""
    async with chromium() as browser:
        yield browser
