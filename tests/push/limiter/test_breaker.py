"""The circuit breaker: what opens it, how long it rests, what closes it. Time is passed in."""

from itertools import cycle

import pytest

from domain.naming import user_digest
from push.limiter.breaker import (
    IN_A_ROW,
    LATELY,
    MOMENT,
    USERS,
    WINDOW,
    Breaker,
    Cause,
    Rest,
    State,
    Trouble,
    TroubleScope,
)

RESTS = {
    Cause.OUTAGE: Rest(first=2, longest=30),
    Cause.THROTTLED: Rest(first=30, longest=300),
    Cause.MISCONFIGURED: Rest(first=30, longest=300),
}
LATE = 1000.0
ANYBODY = 0
CALL, CONNECTION, ROUTE = TroubleScope.CALL, TroubleScope.CONNECTION, TroubleScope.ROUTE


def make_breaker() -> Breaker:
    return Breaker(RESTS, lambda: 0.0)


def fail(
    breaker: Breaker,
    now: float,
    user_id: str = "alice",
    cause: Cause = Cause.OUTAGE,
    *,
    scope: TroubleScope = CALL,
    retry_after: float | None = None,
) -> None:
    breaker.failed(breaker.admit(ANYBODY), now, Trouble(cause, "why", scope, retry_after), user_digest(user_id))


def shut(breaker: Breaker, now: float = 0.0, cause: Cause = Cause.MISCONFIGURED) -> None:
    """Open it by one word of the provider's."""
    fail(breaker, now, cause=cause, scope=ROUTE)


def accept(breaker: Breaker, now: float = 0.0) -> None:
    breaker.succeeded(breaker.admit(ANYBODY), now)


@pytest.mark.parametrize("cause", list(Cause))
def test_refusals_of_three_users_in_a_row_open_it(cause: Cause) -> None:
    breaker = make_breaker()
    for number in range(USERS):
        assert breaker.state(0.0) is State.CLOSED
        fail(breaker, 0.0, f"user-{number}", cause)

    assert breaker.state(0.0) is State.OPEN
    assert not breaker.allows(0.0, ANYBODY)
    assert (breaker.cause, breaker.reason) == (cause, "why")


@pytest.mark.parametrize("cause", list(Cause))
@pytest.mark.parametrize("scope", [CALL, CONNECTION])
def test_two_users_never_open_it_however_many_of_their_calls_are_refused(cause: Cause, scope: TroubleScope) -> None:
    breaker = make_breaker()

    for number in range(1000):
        fail(breaker, number * MOMENT * 2, f"user-{number % 2}", cause, scope=scope)

    assert breaker.state(LATE) is State.CLOSED


@pytest.mark.parametrize("users", [3, 4, 6, 60])
def test_where_every_call_is_refused_it_opens_after_six_at_most_though_others_were_accepted_just_now(
    users: int,
) -> None:
    breaker = make_breaker()
    accept(breaker)
    calls = 0

    while breaker.state(0.1) is State.CLOSED:
        fail(breaker, 0.1, f"user-{calls % users}")
        calls += 1

    assert calls == IN_A_ROW


def test_three_users_are_enough_again_once_the_last_acceptance_is_a_while_ago() -> None:
    breaker = make_breaker()
    accept(breaker)

    for number in range(USERS):
        fail(breaker, LATELY, f"user-{number}")

    assert breaker.state(LATELY) is State.OPEN


def test_an_acceptance_in_between_starts_the_row_again() -> None:
    breaker = make_breaker()

    for number in range(100):
        fail(breaker, number * 2 * LATELY, "alice")
        fail(breaker, number * 2 * LATELY, "bob")
        accept(breaker, number * 2 * LATELY)

    assert breaker.state(LATE) is State.CLOSED


def test_an_answer_about_one_push_neither_refuses_nor_accepts() -> None:
    breaker = make_breaker()
    fail(breaker, 0.0, "alice")
    fail(breaker, 0.0, "bob")

    breaker.answered(breaker.admit(ANYBODY), ANYBODY)

    assert breaker.state(0.0) is State.CLOSED
    fail(breaker, 0.0, "carol")
    assert breaker.state(0.0) is State.OPEN


def test_refusals_that_lie_far_apart_do_not_agree() -> None:
    breaker = make_breaker()

    for number in range(100):
        fail(breaker, number * (WINDOW / 2 + 1), f"user-{number}")

    assert breaker.state(LATE) is State.CLOSED


def test_a_connection_that_breaks_under_the_calls_of_many_users_is_one_failure() -> None:
    breaker = make_breaker()
    tickets = [breaker.admit(ANYBODY) for _ in range(500)]

    for number, breaker_permit in enumerate(tickets):
        lost = Trouble(Cause.OUTAGE, "connection_lost", CONNECTION)
        breaker.failed(breaker_permit, number * MOMENT / 1000, lost, user_digest(f"user-{number}"))

    assert breaker.state(1.0) is State.CLOSED


def test_six_connections_that_break_under_calls_of_three_users_are_an_outage() -> None:
    breaker = make_breaker()
    users = cycle(["alice", "bob", "carol"])

    for number in range(IN_A_ROW):
        assert breaker.state(LATE) is State.CLOSED
        fail(breaker, number * MOMENT * 2, next(users), scope=CONNECTION)

    assert breaker.open_since is not None


@pytest.mark.parametrize("cause", [Cause.THROTTLED, Cause.MISCONFIGURED])
def test_one_answer_is_enough_where_it_names_the_whole_route(cause: Cause) -> None:
    breaker = make_breaker()

    shut(breaker, 0.0, cause)

    assert (breaker.state(29.9), breaker.state(30.0)) == (State.OPEN, State.HALF_OPEN)


def test_after_its_rest_it_lets_one_probe_through_and_closes_when_that_succeeds() -> None:
    breaker = make_breaker()
    shut(breaker)
    assert breaker.allows(30.0, ANYBODY)

    probe = breaker.admit(ANYBODY)
    assert not breaker.allows(30.0, ANYBODY)
    breaker.succeeded(probe, 30.0)

    assert breaker.state(30.0) is State.CLOSED
    assert breaker.allows(30.0, ANYBODY)


def test_a_probe_that_came_to_nothing_hands_the_probe_on() -> None:
    breaker = make_breaker()
    shut(breaker)

    breaker.unused(breaker.admit(ANYBODY))

    assert breaker.state(30.0) is State.HALF_OPEN
    assert breaker.allows(30.0, ANYBODY)


def test_each_probe_that_fails_doubles_the_rest_up_to_the_longest_though_one_user_has_all_of_them() -> None:
    breaker = make_breaker()
    shut(breaker, 0.0, Cause.OUTAGE)
    rests = []

    for _ in range(6):
        now = breaker.open_until
        fail(breaker, now)
        rests.append(breaker.open_until - now)

    assert rests == pytest.approx([4, 8, 16, 30, 30, 30])


def test_a_success_makes_the_next_rest_short_again() -> None:
    breaker = make_breaker()
    shut(breaker)
    shut(breaker, 30.0)
    accept(breaker, 90.0)

    shut(breaker, LATE)

    assert breaker.open_until == LATE + 30


def test_the_providers_word_is_a_floor() -> None:
    breaker = make_breaker()

    fail(breaker, 0.0, cause=Cause.THROTTLED, scope=ROUTE, retry_after=120.0)

    assert breaker.open_until >= 120


def test_a_rest_ends_when_half_of_the_time_of_what_waits_is_over_and_never_at_once() -> None:
    breaker = make_breaker()
    shut(breaker)

    breaker.shorten(1.0, left=40.0)
    assert breaker.open_until == 21.0
    breaker.shorten(2.0, left=300.0)  # whoever has more time puts nothing off
    assert breaker.open_until == 21.0
    breaker.shorten(1.5, left=0.1)

    assert breaker.open_until == 2.0  # the shortest of all rests


def test_what_the_provider_asked_for_is_kept_whoever_waits() -> None:
    breaker = make_breaker()
    fail(breaker, 0.0, cause=Cause.THROTTLED, scope=ROUTE, retry_after=120.0)

    breaker.shorten(1.0, left=10.0)

    assert breaker.open_until == 120.0


def test_what_the_provider_advises_in_general_gives_way_to_what_waits() -> None:
    breaker = make_breaker()
    before = breaker.admit(ANYBODY)
    usual = Trouble(Cause.THROTTLED, "why", ROUTE, 120.0, is_advised=True)
    breaker.failed(breaker.admit(ANYBODY), 0.0, usual, user_digest("alice"))
    assert breaker.open_until == 120.0  # where nothing else is known

    breaker.shorten(1.0, left=10.0)
    assert breaker.open_until == 6.0
    breaker.failed(before, 2.0, usual, user_digest("bob"))

    assert breaker.open_until == 6.0


def test_trouble_of_calls_of_before_does_not_lengthen_the_rest_but_its_floor_holds() -> None:
    breaker = make_breaker()
    second, third = breaker.admit(ANYBODY), breaker.admit(ANYBODY)
    shut(breaker)

    breaker.failed(second, 1.0, Trouble(Cause.MISCONFIGURED, "again", CALL), user_digest("bob"))
    assert breaker.open_until == 30
    breaker.failed(third, 1.0, Trouble(Cause.THROTTLED, "slower", ROUTE, 100.0), user_digest("carol"))

    assert breaker.open_until == 101
    assert not breaker.is_valid(third)


def test_an_acceptance_of_a_call_of_before_contradicts_the_refusals_that_opened_it() -> None:
    breaker = make_breaker()
    before = breaker.admit(ANYBODY)
    for number in range(USERS):
        fail(breaker, 0.0, f"user-{number}")
    assert breaker.state(0.0) is State.OPEN

    breaker.succeeded(before, 0.01)

    assert breaker.state(0.01) is State.CLOSED


def test_an_acceptance_of_a_call_of_before_does_not_contradict_the_providers_word_about_the_route() -> None:
    breaker = make_breaker()
    before = breaker.admit(ANYBODY)
    shut(breaker, cause=Cause.THROTTLED)

    breaker.succeeded(before, 0.01)

    assert breaker.state(0.01) is State.OPEN


def test_workers_do_not_all_probe_at_one_instant() -> None:
    ends = set()
    for chance in (0.0, 0.3, 0.6, 0.9):
        breaker = Breaker(RESTS, lambda chance=chance: chance)  # type: ignore[misc]
        shut(breaker)
        ends.add(breaker.open_until)

    assert len(ends) == 4
    assert all(22.5 < end <= 30 for end in ends)


def test_other_credentials_start_afresh() -> None:
    breaker = make_breaker()
    shut(breaker)

    breaker.reset()

    assert breaker.allows(0.0, ANYBODY)


def test_where_one_user_has_all_the_probes_another_may_try_two_seconds_after_the_last() -> None:
    breaker = make_breaker()
    for number in range(USERS):
        fail(breaker, 0.0, f"user-{number}")
    now = breaker.open_until
    for _ in range(5):
        fail(breaker, now, "mallory")
        last, now = now, breaker.open_until

    assert breaker.open_until - last == 30
    assert not breaker.allows(last + 29.9, user_digest("mallory"))
    assert not breaker.allows(last + 1.9, user_digest("honest"))
    assert breaker.allows(last + 2.0, user_digest("honest"))


def test_an_outage_in_which_everybody_is_refused_costs_no_call_more_however_many_come() -> None:
    breaker = make_breaker()
    for number in range(USERS):
        fail(breaker, 0.0, f"user-{number}")
    rests, opened = [], 0.0

    for tick in range(1, 2000):  # a newcomer each tenth of a second
        newcomer = user_digest(f"newcomer-{tick}")
        if breaker.allows(tick / 10, newcomer):
            breaker.failed(breaker.admit(newcomer), tick / 10, Trouble(Cause.OUTAGE, "why", CALL), newcomer)
            rests.append(tick / 10 - opened)
            opened = tick / 10

    assert rests[:5] == pytest.approx([2, 4, 8, 16, 30])


def test_two_users_who_are_refused_for_ever_keep_a_newcomer_for_four_seconds_and_the_newcomers_word_counts() -> None:
    breaker = make_breaker()
    shut(breaker, 0.0, Cause.OUTAGE)
    for number in range(8):
        now = breaker.open_until
        fail(breaker, now, ("mallory", "trudy")[number % 2])

    honest, late = user_digest("honest"), user_digest("late")
    assert not breaker.allows(now + 3.9, honest)
    assert breaker.allows(now + 4.0, honest)
    fail(breaker, now + 4.0, "honest")

    assert not breaker.allows(now + 7.9, late)  # three users agree, for the second time
    assert breaker.allows(now + 8.0, late)  # what two of them met alone prolonged nobody else's rest


def test_a_probe_that_hangs_of_a_user_who_was_refused_keeps_no_newcomer_waiting_and_one_newcomer_is_enough() -> None:
    breaker = make_breaker()
    for number in range(USERS):
        fail(breaker, 0.0, f"user-{number}")
    mallory, honest, late = map(user_digest, ("user-0", "honest", "late"))
    hanging = breaker.admit(mallory)

    assert not breaker.allows(10.0, user_digest("user-1"))
    assert breaker.allows(10.0, honest)
    probe = breaker.admit(honest)
    assert not any(breaker.allows(10.0, user) for user in (mallory, late))
    breaker.succeeded(probe, 10.1)
    breaker.failed(hanging, 20.0, Trouble(Cause.OUTAGE, "why", CALL), mallory)

    assert breaker.state(20.0) is State.CLOSED


@pytest.mark.parametrize(("users", "rest"), [(1, 2.0), (2, 4.0), (3, 600.0)])
def test_the_providers_word_holds_up_others_only_where_three_users_heard_it(users: int, rest: float) -> None:
    breaker = make_breaker()
    for number in range(USERS):
        fail(breaker, 0.0, f"user-{number}")
    for number in range(6):
        now = 1000.0 * (number + 1)
        fail(breaker, now, f"user-{number % users}", retry_after=600.0)

    assert not breaker.allows(now + rest - 0.1, user_digest("honest"))
    assert breaker.allows(now + rest, user_digest("honest"))


def test_the_providers_word_about_the_whole_route_holds_up_everybody() -> None:
    breaker = make_breaker()
    fail(breaker, 0.0, scope=ROUTE, retry_after=600.0)

    assert not breaker.allows(599.9, user_digest("honest"))


@pytest.mark.parametrize("users", [1, 2])
def test_the_providers_word_to_fewer_than_three_users_holds_up_nobody_else(users: int) -> None:
    breaker = make_breaker()
    late = breaker.admit(ANYBODY)
    for number in range(USERS):
        fail(breaker, 0.0, f"user-{number}", retry_after=3600.0 if number >= USERS - users else None)
    breaker.failed(late, 0.1, Trouble(Cause.OUTAGE, "why", CALL, 3600.0), user_digest("user-2"))

    assert breaker.allows(2.0, user_digest("honest"))


def test_the_shortest_word_to_the_last_three_users_holds() -> None:
    breaker = make_breaker()
    for number, asked in enumerate((60.0, 20.0, 3600.0)):
        fail(breaker, 0.0, f"user-{number}", retry_after=asked)

    assert breaker.open_until == 20.0
    late = breaker.admit(ANYBODY)
    fail(breaker, 20.0, "user-3", retry_after=40.0)
    breaker.failed(late, 21.0, Trouble(Cause.OUTAGE, "why", CALL, 50.0), user_digest("user-4"))
    assert breaker.open_until == 61.0


def test_refusals_of_different_kinds_do_not_agree() -> None:
    """Two had a moment's trouble, and the third is refused for ever."""
    breaker = make_breaker()
    fail(breaker, 0.0, "first")
    fail(breaker, 1.0, "second", Cause.THROTTLED)
    for number in range(100):
        fail(breaker, 2.0 + number, "mallory", Cause.MISCONFIGURED)

    assert breaker.state(LATE) is State.CLOSED


def test_six_users_who_were_refused_for_different_reasons_are_an_outage_of_what_most_met() -> None:
    breaker = make_breaker()
    accept(breaker)
    causes = [Cause.OUTAGE, Cause.THROTTLED, Cause.OUTAGE, Cause.THROTTLED, Cause.OUTAGE, Cause.MISCONFIGURED]
    for number, cause in enumerate(causes):
        assert breaker.state(0.0) is State.CLOSED
        fail(breaker, 0.0, f"user-{number}", cause)

    assert (breaker.state(0.0), breaker.cause) == (State.OPEN, Cause.OUTAGE)
