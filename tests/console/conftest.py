"""People, their phones, and a browser."""

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, async_playwright

from tests.console.visits import Visit, visit
from tests.debian import program
from tests.house import House, User

_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


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
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program("chromium"), args=_FLAGS)
        yield browser
        await browser.close()
