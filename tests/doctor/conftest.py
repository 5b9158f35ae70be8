"""A stack with all that production has, and what the doctor reports."""

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import pytest

from commands.doctor.checks import examined
from commands.doctor.report import Level, ReportLine
from dispatch.schedules import make_schedules
from simulator import Simulator
from tests.stack import Stack, StackPlace, eventually, open_stack

Examine = Callable[..., Awaitable[list[ReportLine]]]


@pytest.fixture(scope="session")
async def healthy(
    new_database: Callable[[str], Awaitable[str]], temporal: str, simulator: Simulator
) -> AsyncIterator[Stack]:
    """A stack with a worker and the schedules."""
    place = StackPlace(await new_database("doctor"), temporal, "doctor", simulator)
    async with open_stack(place) as stack:
        await make_schedules(stack.temporal)

        async def is_well() -> bool:  # once the worker has beaten, and polls
            return not await _trouble(place)

        await eventually(is_well)
        yield stack


@pytest.fixture
def examine(healthy: Stack) -> Examine:
    """Let the doctor look at the stack, with some settings of its own; gives what is not as it should be."""
    return partial(_trouble, healthy.place)


async def _trouble(place: StackPlace, *processes: str, offline: bool = False, **settings: str) -> list[ReportLine]:
    environ = {name: value for name, value in place.environment(**settings).items() if value}
    report = await examined(environ, processes or ("api", "worker"), offline=offline)
    return [line for line in report.items if line.level in {Level.WARNING, Level.FAILURE}]
