"""The pace of a gate: never more than the rate and a little burst, up a ramp after a pause. Time is passed in."""

from math import inf

import pytest

from push.limiter.admission_queue import BURST, RAMP_TO, TokenBucket


def make_pace(full: float, now: float = 0.0) -> TokenBucket:
    token_bucket = TokenBucket(now)
    token_bucket.full = full
    return token_bucket


def taken(token_bucket: TokenBucket, since: float, until: float, step: float = 0.001) -> int:
    """Count what an impatient caller gets."""
    count = 0
    for tick in range(round((until - since) / step)):
        while token_bucket.take(since + tick * step) and count < 1_000_000:
            count += 1
    return count


def test_nothing_starts_without_a_share() -> None:
    token_bucket = make_pace(0.0)

    assert not token_bucket.take(100.0)
    assert token_bucket.wait(100.0, 1) == inf


def test_without_a_limit_nobody_waits() -> None:
    token_bucket = make_pace(inf)

    assert all(token_bucket.take(0.0) for _ in range(10_000))
    assert token_bucket.wait(0.0, 10_000) == 0


@pytest.mark.parametrize("rate", [1, 50, 3000])
def test_the_rate_holds_over_any_time_but_for_the_burst(rate: float) -> None:
    token_bucket = make_pace(rate)

    count = taken(token_bucket, 0.0, 5.0)

    assert 5 * rate * 0.99 - 2 <= count <= 5 * rate + max(1, rate * BURST) + 1


def test_quiet_times_save_up_no_more_than_the_burst() -> None:
    token_bucket = make_pace(100)
    token_bucket.take(0.0)

    assert taken(token_bucket, 1000.0, 1000.001) == 10


def test_leave_that_was_not_used_can_be_taken_again() -> None:
    token_bucket = make_pace(10)
    assert token_bucket.take(0.0)
    assert not token_bucket.take(0.0)

    token_bucket.give_back()

    assert token_bucket.take(0.0)


def test_a_smaller_share_counts_at_once() -> None:
    token_bucket = make_pace(1000)
    taken(token_bucket, 0.0, 1.0)

    token_bucket.full = 100

    assert 100 * 0.99 - 2 <= taken(token_bucket, 1.0, 2.0) <= 100 + 100 * BURST + 1


@pytest.mark.parametrize(("full", "top"), [(200, 200), (inf, RAMP_TO)])
def test_a_ramp_grows_from_nearly_nothing_to_the_full_rate(full: float, top: float) -> None:
    token_bucket = make_pace(full)
    token_bucket.ramp_up(0.0, lasting=60.0)

    assert token_bucket.rate(0.0) == pytest.approx(top * 0.02)
    assert token_bucket.rate(30.0) == pytest.approx(top / 2)
    assert token_bucket.rate(60.0) == full
    assert taken(token_bucket, 0.0, 30.0, step=0.01) == pytest.approx(top / 4 * 30, rel=0.1)
