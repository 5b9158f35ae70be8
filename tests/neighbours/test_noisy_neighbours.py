"""Whatever one neighbour does, others' reminders come on time and once, and none of them dies."""

import pytest

from simulator import Simulator
from tests.busy import in_time
from tests.neighbours import honest
from tests.neighbours.noises import NOISES, Noise, end_noise
from tests.stack import Stack

LATE = 1.0  # seconds; all come within 0.2 s, and within 0.8 s where the neighbour takes most of a core


@pytest.mark.alone
@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: noise.__name__)
async def test_others_are_reminded_on_time_while(stack: Stack, simulator: Simulator, noise: Noise) -> None:
    if not in_time(late := await _latest(stack, simulator, noise), LATE):
        # The machine may have stood still for a moment. A neighbour who is in the way is so each time.
        for _ in range(2):
            await end_noise(stack, simulator)
            again = await _latest(stack, simulator, noise)
            assert in_time(again, LATE), f"{late:.2f} s late, and then {again:.2f}"


async def _latest(stack: Stack, simulator: Simulator, noise: Noise) -> float:
    async with noise(stack, simulator):
        return await honest.latest(stack, simulator, await honest.fasts(stack))
