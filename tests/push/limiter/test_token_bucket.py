"""The token bucket of a limiter: at most the rate and a little burst, up a ramp after a pause. Time is passed in."""

from math import inf

import pytest

from push.limiter.admission_queue import BURST, RAMP_TO, TokenBucket


def make_pace(full: float, now: float = 0.0) -> TokenBucket:
    pace = TokenBucket(now)
    pace.full = full
    return pace


def taken(pace: TokenBucket, since: float, until: float, step: float = 0.001) -> int:
    """Count what an impatient caller gets."""
    count = 0
    for tick in range(round((until - since) / step)):
        while pace.take(since + tick * step) and count < 1_000_000:
            count += 1
    return count


def test_nothing_starts_without_a_share() -> None:
    pace = make_pace(0.0)

    assert not pace.take(100.0)
    assert pace.wait(100.0, 1) == inf


def test_without_a_limit_nobody_waits() -> None:
    pace = make_pace(inf)

    assert all(pace.take(0.0) for _ in range(10_000))
    assert pace.wait(0.0, 10_000) == 0


@pytest.mark.parametrize("rate", [1, 50, 3000])
def test_the_rate_holds_over_any_time_but_for_the_burst(rate: float) -> None:
    pace = make_pace(rate)

    count = taken(pace, 0.0, 5.0)

    assert 5 * rate * 0.99 - 2 <= count <= 5 * rate + max(1, rate * BURST) + 1


def test_quiet_times_save_up_no_more_than_the_burst() -> None:
    pace = make_pace(100)
    pace.take(0.0)

    assert taken(pace, 1000.0, 1000.001) == 10


def test_leave_that_was_not_used_can_be_taken_again() -> None:
    pace = make_pace(10)
    assert pace.take(0.0)
    assert not pace.take(0.0)

    pace.give_back()

    assert pace.take(0.0)


def test_a_smaller_share_counts_at_once() -> None:
    pace = make_pace(1000)
    taken(pace, 0.0, 1.0)

    pace.full = 100

    assert 100 * 0.99 - 2 <= taken(pace, 1.0, 2.0) <= 100 + 100 * BURST + 1


@pytest.mark.parametrize(("full", "top"), [(200, 200), (inf, RAMP_TO)])
def test_a_ramp_grows_from_nearly_nothing_to_the_full_rate(full: float, top: float) -> None:
    pace = make_pace(full)
    pace.ramp_up(0.0, lasting=60.0)

    assert pace.rate(0.0) == pytest.approx(top * 0.02)
    assert pace.rate(30.0) == pytest.approx(top / 2)
    assert pace.rate(60.0) == full
    assert taken(pace, 0.0, 30.0, step=0.01) == pytest.approx(top / 4 * 30, rel=0.1)
