"""A stack whose neighbours misbehave, with a simulator that nobody else's worker calls."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from simulator import Simulator
from tests.stack import UNLIMITED, Stack, StackPlace, open_stack


@pytest.fixture(scope="session")
async def simulator(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Simulator]:
    """Providers for these tests alone."""
    async with Simulator.start(run_dir=tmp_path_factory.mktemp("neighbours")) as simulator:
        yield simulator


@pytest.fixture(scope="session")
async def stack(
    new_database: Callable[[str], Awaitable[str]], temporal: str, simulator: Simulator
) -> AsyncIterator[Stack]:
    """API and worker as in production, but for the quotas: what they forbid must do no harm either.

    Apple is called at most a hundred times a second, so that one person's pushes can fill a limiter.
    """
    place = StackPlace(await new_database("neighbours"), temporal, "neighbours", simulator)
    async with open_stack(place, **UNLIMITED, APNS_RATE="100") as stack:
        yield stack
