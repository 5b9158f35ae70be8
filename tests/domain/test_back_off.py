"""How long to wait: never at once, never too long, never before the provider said."""

from datetime import timedelta

import pytest

from domain.back_off import BackOff

BACK_OFF = BackOff(first=timedelta(seconds=2), longest=timedelta(seconds=60))
ALMOST_ONE = 1 - 2**-53


@pytest.mark.parametrize(
    ("attempt", "shortest", "longest"),
    [(1, 1, 2), (2, 1, 4), (3, 1, 8), (5, 1, 32), (6, 1, 60), (50, 1, 60), (10_000, 1, 60)],
)
def test_the_wait_doubles_up_to_the_longest_with_all_of_it_open_to_chance(
    attempt: int, shortest: float, longest: float
) -> None:
    assert BACK_OFF.delay(attempt, 0.0, None) == timedelta(seconds=shortest)
    assert BACK_OFF.delay(attempt, ALMOST_ONE, None) == timedelta(seconds=longest)
    assert BACK_OFF.delay(attempt, 0.5, None) == timedelta(seconds=(shortest + longest) / 2)


@pytest.mark.parametrize("floor", [timedelta(0), timedelta(seconds=1), timedelta(seconds=30), timedelta(hours=1)])
@pytest.mark.parametrize("attempt", [1, 4, 9])
@pytest.mark.parametrize("chance", [0.0, 0.3, ALMOST_ONE])
def test_the_providers_word_is_a_floor_with_jitter_above_it(floor: timedelta, attempt: int, chance: float) -> None:
    delay = BACK_OFF.delay(attempt, chance, floor)

    assert floor <= delay
    assert delay >= BACK_OFF.delay(attempt, chance, None)
    assert delay <= max(floor, BACK_OFF.longest) + BACK_OFF.first


def test_those_who_were_told_the_same_time_do_not_all_come_back_at_once() -> None:
    told = timedelta(seconds=30)

    delays = {BACK_OFF.delay(1, chance / 10, told) for chance in range(10)}

    assert len(delays) == 10
