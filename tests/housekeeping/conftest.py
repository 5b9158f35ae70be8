"""A stack of its own, so that a sweep that waits for nothing meets nobody else's pushes."""

from collections.abc import AsyncIterator

import pytest

from simulator import Simulator
from tests.conftest import NewDatabase
from tests.stack import Stack, StackPlace, make_app, make_stack, open_stack


@pytest.fixture(scope="session")
async def stack(new_database: NewDatabase, temporal: str, simulator: Simulator) -> AsyncIterator[Stack]:
    """API and worker in this process, without schedules."""
    place = StackPlace(await new_database("housekeeping"), temporal, "housekeeping", simulator)
    async with open_stack(place) as stack:
        yield stack


@pytest.fixture(scope="session")
async def unarmed(stack: Stack) -> AsyncIterator[Stack]:
    """The same stack through an API process with ARM_WINDOW=0: its fasts sleep until the due instant."""
    async with make_stack(stack.place, make_app(stack.place, ARM_WINDOW="0")) as api_stack:
        yield api_stack
