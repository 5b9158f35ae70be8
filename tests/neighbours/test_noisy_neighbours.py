"""Whatever one neighbour does, others' reminders come on time and once, and none of them dies."""

import pytest

from simulator import Simulator
from tests.busy import quick
from tests.neighbours import honest
from tests.neighbours.noises import NOISES, Noise, end_noise, two_people_write_without_a_pause_to_twenty
from tests.stack import Stack

# Seconds. All come within 0.4 s, but beside two who take the whole thread that API, worker and providers share here:
# 0.7 on a quick machine, 1.3 on a slow one. Who waits for another's row waits for 3, and for a connection for 5.
LATE, LATE_BESIDE_WRITERS = 1.0, 2.0


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

    bound = LATE_BESIDE_WRITERS if noise is two_people_write_without_a_pause_to_twenty else LATE
    assert await quick(latest, bound), f"late by {late} s"
