"""People, a browser, and languages that nobody speaks."""

from collections.abc import AsyncIterator, Iterator

import pytest
from playwright.async_api import Browser

from api.preference_page.languages import CATALOGUE
from tests.browsing import chromium
from tests.preference_page.pseudo import FROM_THE_RIGHT, LONG, from_the_right, long
from tests.stack import Stack, User


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


@pytest.fixture
def _pseudo_languages() -> Iterator[None]:
    """Let the page speak them for one test."""
    added = {LONG: long(), FROM_THE_RIGHT: from_the_right()}
    CATALOGUE.update(added)
    yield
    for tag in added:
        del CATALOGUE[tag]
