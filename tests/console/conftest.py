"""People, their phones, and a browser."""

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser

from tests.browsing import chromium
from tests.console.visits import Visit, visit
from tests.stack import Stack, User


@pytest.fixture
async def carol(stack: Stack) -> Visit:
    """Somebody of the support team, signed in to the console."""
    return await visit(stack)


@pytest.fixture
def alice(stack: Stack) -> User:
    """Somebody nobody has seen before."""
    return stack.user()


@pytest.fixture
def bob(stack: Stack) -> User:
    """Somebody else."""
    return stack.user()


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """A Chromium."""
    async with chromium() as browser:
        yield browser
