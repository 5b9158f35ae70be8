"""No caller asks more often than is granted, and none pays for another."""

from datetime import UTC, datetime
from typing import Protocol, TypeVar

import pytest
from fastapi import Request

from api.http.auth import Caller
from api.http.rates import Rate, Rates, address
from domain.problems import LimitReached, read_rate
from tests.stack import StackPlace, make_app, make_stack

PREFERENCES = "/v1/notification-preferences"
BELOW = "/v1/users/{}/notification-preferences"
NEVER = datetime.max.replace(tzinfo=UTC)


WhoT_contra = TypeVar("WhoT_contra", contravariant=True)


class Clock:
    """A clock that stands still until it is set."""

    now = 600.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


class Spends(Protocol[WhoT_contra]):
    """What grants requests, or not."""

    def spend(self, who: WhoT_contra, /) -> None:
        """Count one."""


def spent(rate: Spends[WhoT_contra], times: int, who: WhoT_contra) -> int:
    """Ask so often; gives how many of them were granted."""
    granted = 0
    for _ in range(times):
        try:
            rate.spend(who)
        except LimitReached:
            continue
        granted += 1
    return granted


def wait(rate: Rate) -> float:
    """Ask once too often; gives how long to wait."""
    with pytest.raises(LimitReached) as raised:
        rate.spend("alice")
    return raised.value.retry_after.total_seconds()


def test_so_many_are_granted_to_each_and_refusals_do_not_count() -> None:
    rate = Rate(read_rate("10/minute"), clock := Clock())

    assert (spent(rate, 25, "alice"), spent(rate, 4, "bob")) == (10, 4)
    clock.now += 120
    assert spent(rate, 25, "alice") == 10


def test_the_window_slides() -> None:
    rate = Rate(read_rate("10/minute"), clock := Clock())
    clock.now += 59
    spent(rate, 10, "alice")

    clock.now += 1  # a new minute, in which all ten still count
    at_once = spent(rate, 10, "alice")
    clock.now += 30  # by half
    later = spent(rate, 10, "alice")

    assert (at_once, later) == (0, 5)


@pytest.mark.parametrize("passed", [0, 20, 59])
def test_who_waits_as_told_is_granted_one_more_and_who_comes_earlier_is_not(passed: float) -> None:
    rate = Rate(read_rate("10/minute"), clock := Clock())
    for _ in range(5):
        spent(rate, 4, "alice")
        clock.now += 20
    clock.now += passed - 20
    spent(rate, 20, "alice")

    told = wait(rate)
    clock.now += told - 0.1
    early = spent(rate, 1, "alice")
    clock.now += 0.2

    assert (early, spent(rate, 1, "alice")) == (0, 1)


def test_services_and_support_have_a_limit_of_their_own() -> None:
    rates = Rates("1/hour", "2/hour")
    callers = {
        scope: Caller(f"caller-{scope}", frozenset(scope.split()), NEVER) for scope in ("", "service", "support")
    }

    granted = {scope: spent(rates, 5, caller) for scope, caller in callers.items()}

    assert granted == {"": 1, "service": 2, "support": 2}


def test_a_key_that_is_named_like_somebody_takes_nothing_of_their_limits() -> None:
    rates = Rates("1/hour", "2/hour")
    herself = Caller("alice", frozenset({"support"}), NEVER)
    key = Caller("alice", frozenset({"support"}), NEVER, is_person=False)

    assert [spent(rates, 5, each) for each in (key, herself, key)] == [2, 2, 0]


def test_a_limit_of_0_is_none() -> None:
    rates, caller = Rates("0", "0"), Caller("alice", frozenset(), NEVER)

    for _ in range(5000):
        rates.spend(caller)


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("a socket's path", "a socket's path"),
    ],
)
def test_whoever_has_many_addresses_counts_as_one(host: str, counted: str) -> None:
    assert address(Request({"type": "http", "client": (host, 1)})) == counted


async def test_one_request_too_many_is_told_when_to_come_again(detached: StackPlace) -> None:
    app = make_app(detached, RATE_LIMIT="3/day", RATE_LIMIT_SERVICE="8/day")
    async with make_stack(detached, app) as stack:
        alice, bob, backend = stack.user(), stack.user(), stack.user(None, "service")
        of_alice = [await alice.call("GET", PREFERENCES) for _ in range(6)]
        for_alice = [await backend.call("GET", BELOW.format(alice.user_id)) for _ in range(6)]
        for_others = [await backend.call("GET", BELOW.format(f"other-{n}")) for n in range(6)]
        others = [
            await bob.call("GET", PREFERENCES),
            *[await stack.http.get("/livez", headers=alice.headers) for _ in range(6)],
            *[await stack.http.get("/readyz", headers=alice.headers) for _ in range(6)],
            await stack.http.get(PREFERENCES),
        ]

    assert [answer.status_code for answer in of_alice] == [200] * 3 + [429] * 3
    assert [answer.status_code for answer in for_alice] == [200] * 3 + [429] * 3  # not counted for the backend
    assert [answer.status_code for answer in for_others] == [200] * 5 + [429]
    assert [answer.status_code for answer in others] == [200] + [204] * 6 + [200] * 6 + [401]
    refused = of_alice[-1]
    assert refused.headers["content-type"] == "application/problem+json"
    assert 0 < int(refused.headers["retry-after"]) <= 2 * 24 * 3600
    assert refused.json() == {
        "type": "urn:fastbell:problem:too-many-requests",
        "title": "Too many requests",
        "status": 429,
        "detail": "Too many requests. Try again later.",
    }
