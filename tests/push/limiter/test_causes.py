"""Why a gate is said to be shut, and for how long: what three users met, never what one of them did.

Time is passed in.
"""

from itertools import count, cycle

import pytest

from domain.naming import user_digest
from push.limiter.breaker import MOMENT, USERS, Breaker, Cause, State, Trouble, TroubleScope
from push.limiter.settings import RESTS

DOWN = Trouble(Cause.OUTAGE, "ServiceUnavailable", TroubleScope.CALL)
WRONG_KEY = Trouble(Cause.MISCONFIGURED, "InvalidProviderToken", TroubleScope.CALL)
BUSY = Trouble(Cause.THROTTLED, "RESOURCE_EXHAUSTED", TroubleScope.CALL)
BUSY_FOR_AN_HOUR = Trouble(Cause.THROTTLED, "RESOURCE_EXHAUSTED", TroubleScope.CALL, retry_after=3600.0)
DOWN_FOR_AN_HOUR = Trouble(Cause.OUTAGE, "UNAVAILABLE", TroubleScope.CALL, retry_after=3600.0)
LOST = Trouble(Cause.OUTAGE, "connection_lost", TroubleScope.CONNECTION)
QUOTA = Trouble(Cause.THROTTLED, "QUOTA_EXCEEDED_PROJECT", TroubleScope.ROUTE, retry_after=60.0)
TOO_MANY_TOKENS = Trouble(Cause.THROTTLED, "TooManyProviderTokenUpdates", TroubleScope.ROUTE)


class Route:
    """A breaker that was opened by three users at the second 0, and the probes of others."""

    def __init__(self, opened_by: Trouble = DOWN) -> None:
        self.breaker = Breaker(RESTS, lambda: 0.0)
        self.now = 0.0
        self._names = (f"user-{number}" for number in count())
        for _ in range(USERS):
            self.meets(opened_by)

    @property
    def told(self) -> tuple[Cause | None, str | None]:
        return self.breaker.cause, self.breaker.reason

    def meets(self, trouble: Trouble, name: str | None = None) -> float:
        """Let a push of this user, or of one who was never here before, call; gives the rest that follows."""
        user = user_digest(name or next(self._names))
        self.breaker.failed(self.breaker.admit(user), self.now, trouble, user)
        return self.breaker.open_until - self.now

    def probes(self, trouble: Trouble, name: str | None = None) -> float:
        """Let it be the probe when the rest is over."""
        self.now = self.breaker.open_until
        return self.meets(trouble, name)

    def waits(self, name: str) -> float:
        """Give for how many seconds a user may not call."""
        return self.breaker.rests_until(user_digest(name)) - self.now


@pytest.mark.parametrize("odd", [WRONG_KEY, BUSY, BUSY_FOR_AN_HOUR])
@pytest.mark.parametrize("before", [0, 1, 3, 8])
def test_one_users_odd_refusal_as_a_probe_neither_lengthens_the_rest_nor_changes_what_is_told(
    odd: Trouble, before: int
) -> None:
    route = Route()
    rest = [route.breaker.open_until, *(route.probes(DOWN) for _ in range(before))][-1]

    assert route.probes(odd, "mallory") == rest

    assert route.told == (Cause.OUTAGE, "ServiceUnavailable")
    assert route.waits("another") == 2.0  # no three users agree that it is to rest for longer
    assert route.breaker.next_probe_at == route.now + 2.0  # which operators read, too
    assert route.probes(DOWN) == min(2 * rest, 30)  # as if mallory had not called


@pytest.mark.parametrize("last", [WRONG_KEY, DOWN, BUSY_FOR_AN_HOUR])
def test_whatever_the_last_probe_met_the_rest_ends_while_what_waits_is_of_use(last: Trouble) -> None:
    route = Route(WRONG_KEY)
    for _ in range(8):
        route.probes(WRONG_KEY)
    route.probes(last, "mallory")

    route.breaker.shorten(route.now + 1, left=20.0)

    assert route.breaker.open_until == route.now + 11


def test_an_hour_that_one_user_was_asked_to_wait_as_a_probe_is_asked_of_nobody_else() -> None:
    route = Route()

    assert route.probes(DOWN_FOR_AN_HOUR, "mallory") == 4.0

    assert route.told == (Cause.OUTAGE, "ServiceUnavailable")
    assert route.probes(DOWN) == 8.0


def test_a_hundred_odd_refusals_of_one_user_or_of_two_change_nothing_for_the_others() -> None:
    route = Route()
    for _ in range(50):
        route.probes(WRONG_KEY, "mallory")
        route.probes(WRONG_KEY, "trudy")

    assert route.told == (Cause.OUTAGE, "ServiceUnavailable")
    assert route.waits("another") == 4.0
    assert route.waits("mallory") == route.waits("trudy") == 30.0  # they back off all the same
    assert route.probes(DOWN, "another") == 4.0


def test_one_odd_user_between_the_others_for_ever_is_not_told_and_probes_back_off() -> None:
    route = Route()
    rests = []
    for odd_one in cycle([WRONG_KEY, BUSY_FOR_AN_HOUR]):
        route.probes(odd_one, "mallory")
        rests += [route.probes(DOWN), route.probes(DOWN)]
        assert route.told == (Cause.OUTAGE, "ServiceUnavailable")
        if len(rests) > 20:
            break

    assert rests[:5] == [4, 8, 16, 30, 30]
    assert set(rests[5:]) == {30}


@pytest.mark.parametrize(("found", "first"), [(BUSY, 30.0), (WRONG_KEY, 30.0)])
@pytest.mark.parametrize("before", [0, 20])
def test_another_cause_is_told_as_soon_as_three_users_met_it_and_rests_as_at_first(
    found: Trouble, first: float, before: int
) -> None:
    route = Route()
    for _ in range(before):
        route.probes(DOWN)

    route.probes(found)
    route.probes(found)
    assert route.told == (Cause.OUTAGE, "ServiceUnavailable")
    assert route.probes(found) == first

    assert route.told == (found.cause, found.reason)
    assert route.probes(found) == 2 * first


def test_a_user_who_tells_of_the_former_cause_for_ever_does_not_keep_another_from_being_told() -> None:
    route = Route()
    for name in ("alice", "bob", "mallory", "carol", "alice", "bob"):
        route.probes(DOWN if name == "mallory" else BUSY, name)

    assert route.told == (Cause.THROTTLED, "RESOURCE_EXHAUSTED")
    route.probes(DOWN, "mallory")
    assert route.told == (Cause.THROTTLED, "RESOURCE_EXHAUSTED")


@pytest.mark.parametrize("named", [QUOTA, TOO_MANY_TOKENS])
def test_what_names_the_whole_route_is_told_at_once_and_one_user_does_not_change_that_either(named: Trouble) -> None:
    route = Route()
    rest = route.probes(named)
    assert rest >= 30
    assert route.told == (Cause.THROTTLED, named.reason)
    assert route.waits("another") == rest

    route.probes(DOWN)
    route.probes(DOWN)
    assert route.told == (Cause.THROTTLED, named.reason)
    assert route.probes(DOWN) == 2.0

    assert route.told == (Cause.OUTAGE, "ServiceUnavailable")


def test_where_every_probe_meets_something_else_they_back_off_all_the_same() -> None:
    route = Route()
    met, probes = cycle([DOWN, BUSY, WRONG_KEY, BUSY]), 0

    for tick in range(36_000):  # for an hour somebody new comes each tenth of a second
        route.now = tick / 10
        newcomer = f"newcomer-{tick}"
        if route.breaker.allows(route.now, user_digest(newcomer)):
            route.meets(next(met), newcomer)
            probes += 1

    assert route.breaker.state(route.now) is not State.CLOSED
    assert probes < 3600 / 10


def test_the_reason_that_is_told_is_what_most_of_the_three_met() -> None:
    breaker = Breaker(RESTS, lambda: 0.0)
    topic = Trouble(Cause.MISCONFIGURED, "BadTopic", TroubleScope.CALL)
    for name, trouble in (("alice", WRONG_KEY), ("bob", WRONG_KEY), ("mallory", topic)):
        breaker.failed(breaker.admit(0), 0.0, trouble, user_digest(name))

    assert breaker.reason == "InvalidProviderToken"


def test_another_reason_of_the_same_cause_is_told_once_three_users_met_it_and_the_rest_grows_on() -> None:
    route = Route()

    assert [route.probes(LOST), route.probes(LOST)] == [4.0, 8.0]
    assert route.told == (Cause.OUTAGE, "ServiceUnavailable")
    assert route.probes(LOST) == 16.0

    assert route.told == (Cause.OUTAGE, "connection_lost")


def test_a_connection_that_breaks_under_the_calls_of_before_is_one_voice() -> None:
    breaker = Breaker(RESTS, lambda: 0.0)
    before = [(breaker.admit(0), user_digest(f"before-{number}")) for number in range(100)]
    for number in range(USERS):
        breaker.failed(breaker.admit(0), 0.0, WRONG_KEY, user_digest(f"user-{number}"))

    for number, (breaker_permit, user) in enumerate(before):
        breaker.failed(breaker_permit, 1.0 + number * MOMENT / 1000, LOST, user)
    breaker.failed(breaker.admit(0), breaker.open_until, LOST, user_digest("probe"))

    assert (breaker.cause, breaker.reason) == (Cause.MISCONFIGURED, "InvalidProviderToken")


def test_what_was_met_before_an_acceptance_counts_no_more() -> None:
    route = Route()
    route.probes(BUSY)
    route.probes(BUSY)
    route.breaker.succeeded(route.breaker.admit(0), route.now)
    route.now += 60
    for _ in range(USERS):
        route.meets(DOWN)

    route.probes(BUSY)

    assert route.told == (Cause.OUTAGE, "ServiceUnavailable")
