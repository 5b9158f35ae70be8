"""Whatever one neighbour does, others' reminders come on time and once, and none of them dies."""

import pytest

from simulator import Simulator
from tests.neighbours import honest
from tests.neighbours.noises import NOISES, Noise
from tests.stack import Stack


@pytest.mark.alone
@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: noise.__name__)
async def test_others_are_reminded_on_time_while(stack: Stack, simulator: Simulator, noise: Noise) -> None:
    async with noise(stack, simulator):
        everybody = await honest.fasts(stack)
        await honest.were_reminded_on_time(stack, simulator, everybody)
