"""Whatever one neighbour does, others' reminders come on time and once, and none of them dies."""

import pytest

from simulator import Simulator
from tests.busy import quick
from tests.neighbours import honest
from tests.neighbours.noises import NOISES, Noise, end_noise
from tests.stack import Stack

LATE = 1.0  # seconds; all come within 0.2 s, and within 0.8 s where the neighbour takes most of a core


@pytest.mark.alone
@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: noise.__name__)
async def test_others_are_reminded_on_time_while(stack: Stack, simulator: Simulator, noise: Noise) -> None:
    late = list[float]()

    async def latest() -> float:
        try:
            async with noise(stack, simulator):
                late.append(await honest.latest(stack, simulator, await honest.fasts(stack)))
        finally:
            await end_noise(stack, simulator)
        return late[-1]

    assert await quick(latest, LATE), f"late by {late} s"
