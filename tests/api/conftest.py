"""An API without a worker, for this folder."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from simulator import Simulator
from tests.stack import UNLIMITED, Stack, StackPlace, User, make_app, make_stack
from tests.streaming import BRISK, served


@pytest.fixture(scope="session")
async def detached(new_database: Callable[[str], Awaitable[str]], temporal: str, simulator: Simulator) -> StackPlace:
    """A place where nobody works off what Temporal is told."""
    return StackPlace(await new_database("api"), temporal, "detached", simulator)


@pytest.fixture(scope="session")
async def api(detached: StackPlace) -> AsyncIterator[Stack]:
    """The API on a socket, without quotas: `test_quotas.py` is about those."""
    async with make_stack(detached, make_app(detached, **UNLIMITED)) as stack:
        yield stack


@pytest.fixture(scope="session")
async def fragile(new_database: Callable[[str], Awaitable[str]], temporal: str, simulator: Simulator) -> StackPlace:
    """A place whose database may be hurt."""
    return StackPlace(await new_database("fragile"), temporal, "detached", simulator)


@pytest.fixture(scope="session")
async def brisk(fragile: StackPlace) -> AsyncIterator[Stack]:
    """An API whose streams live fast."""
    async with served(fragile, BRISK) as stack:
        yield stack


@pytest.fixture
def alice(api: Stack) -> User:
    """A new user."""
    return api.user()


@pytest.fixture
def bob(api: Stack) -> User:
    """Another new user."""
    return api.user()
