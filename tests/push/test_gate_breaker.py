"""The circuit breaker: what opens it, how long it rests, what closes it. Time is passed in."""

import pytest

from push.gate_breaker import IN_A_ROW, MOMENT, Breaker, Cause, Rest, State

RESTS = {
    Cause.OUTAGE: Rest(first=2, longest=30),
    Cause.THROTTLED: Rest(first=30, longest=300),
    Cause.MISCONFIGURED: Rest(first=30, longest=300),
}
LATE = 1000.0


def make_breaker() -> Breaker:
    return Breaker(RESTS, lambda: 0.0)


def fail(breaker: Breaker, now: float, cause: Cause = Cause.OUTAGE, retry_after: float | None = None) -> None:
    breaker.failed(breaker.admit(), now, cause, "why", retry_after)


def fail_for(breaker: Breaker, moments: int) -> float:
    for moment in range(moments):
        fail(breaker, moment * MOMENT * 2)
    return moments * MOMENT * 2


def test_a_few_failures_in_a_row_open_it() -> None:
    breaker = make_breaker()
    now = fail_for(breaker, IN_A_ROW - 1)
    assert breaker.state(now) is State.CLOSED

    fail(breaker, now)

    assert breaker.state(now) is State.OPEN
    assert not breaker.lets_through(now)
    assert (breaker.cause, breaker.reason) == (Cause.OUTAGE, "why")


def test_a_connection_that_breaks_under_many_calls_is_one_failure() -> None:
    breaker = make_breaker()
    tickets = [breaker.admit() for _ in range(500)]

    for number, ticket in enumerate(tickets):
        breaker.failed(ticket, number * MOMENT / 1000, Cause.OUTAGE, "connection_lost", None)

    assert breaker.state(1.0) is State.CLOSED


def test_a_success_in_between_starts_the_row_anew() -> None:
    breaker = make_breaker()

    for _ in range(5):
        fail_for(breaker, IN_A_ROW - 1)
        breaker.succeeded(breaker.admit())

    assert breaker.state(LATE) is State.CLOSED


def test_a_majority_of_failures_opens_it_though_some_succeed() -> None:
    breaker = make_breaker()

    for number in range(100):
        now = number * MOMENT * 3
        if breaker.open_since is None:
            breaker.succeeded(breaker.admit())
            fail(breaker, now)
        if breaker.open_since is None:
            fail(breaker, now + MOMENT * 1.5)

    assert breaker.open_since is not None


def test_a_minority_of_failures_does_not() -> None:
    breaker = make_breaker()

    for number in range(1000):
        fail(breaker, number * MOMENT * 2)
        breaker.succeeded(breaker.admit())
        breaker.succeeded(breaker.admit())

    assert breaker.open_since is None


@pytest.mark.parametrize("cause", [Cause.THROTTLED, Cause.MISCONFIGURED])
def test_one_answer_is_enough_where_all_calls_would_get_it(cause: Cause) -> None:
    breaker = make_breaker()

    fail(breaker, 0.0, cause)

    assert (breaker.state(29.9), breaker.state(30.0)) == (State.OPEN, State.HALF_OPEN)


def test_after_its_rest_it_lets_one_probe_through_and_closes_when_that_succeeds() -> None:
    breaker = make_breaker()
    fail(breaker, 0.0, Cause.MISCONFIGURED)
    assert breaker.lets_through(30.0)

    probe = breaker.admit()
    assert not breaker.lets_through(30.0)
    breaker.succeeded(probe)

    assert breaker.state(30.0) is State.CLOSED
    assert breaker.lets_through(30.0)


def test_a_probe_that_came_to_nothing_hands_the_probe_on() -> None:
    breaker = make_breaker()
    fail(breaker, 0.0, Cause.MISCONFIGURED)

    breaker.given_back(breaker.admit())

    assert breaker.state(30.0) is State.HALF_OPEN
    assert breaker.lets_through(30.0)


def test_each_probe_that_fails_doubles_the_rest_up_to_the_longest() -> None:
    breaker = make_breaker()
    now = fail_for(breaker, IN_A_ROW)
    rests = []

    for _ in range(6):
        now = breaker.open_until
        fail(breaker, now)
        rests.append(breaker.open_until - now)

    assert rests == pytest.approx([4, 8, 16, 30, 30, 30])


def test_a_success_makes_the_next_rest_short_again() -> None:
    breaker = make_breaker()
    fail(breaker, 0.0, Cause.MISCONFIGURED)
    fail(breaker, 30.0, Cause.MISCONFIGURED)
    breaker.succeeded(breaker.admit())

    fail(breaker, LATE, Cause.MISCONFIGURED)

    assert breaker.open_until == LATE + 30


def test_the_providers_word_is_a_floor() -> None:
    breaker = make_breaker()

    fail(breaker, 0.0, Cause.THROTTLED, retry_after=120.0)

    assert breaker.open_until >= 120


def test_calls_of_before_neither_close_it_nor_lengthen_its_rest_but_their_floor_holds() -> None:
    breaker = make_breaker()
    first, second, third = breaker.admit(), breaker.admit(), breaker.admit()
    fail(breaker, 0.0, Cause.MISCONFIGURED)

    breaker.succeeded(first)
    breaker.failed(second, 1.0, Cause.MISCONFIGURED, "again", None)
    assert breaker.open_until == 30
    breaker.failed(third, 1.0, Cause.THROTTLED, "slower", 100.0)

    assert breaker.open_until == 101
    assert not breaker.still_good(first)


def test_workers_do_not_all_probe_at_one_instant() -> None:
    ends = set()
    for chance in (0.0, 0.3, 0.6, 0.9):
        breaker = Breaker(RESTS, lambda chance=chance: chance)  # type: ignore[misc]
        fail(breaker, 0.0, Cause.MISCONFIGURED)
        ends.add(breaker.open_until)

    assert len(ends) == 4
    assert all(22.5 < end <= 30 for end in ends)


def test_other_credentials_start_afresh() -> None:
    breaker = make_breaker()
    fail(breaker, 0.0, Cause.MISCONFIGURED)

    breaker.reset()

    assert breaker.lets_through(0.0)
