"""Looks of those who may not call: few often, many seldom; and pushes that rest alone. Time is passed in."""

from datetime import timedelta
from heapq import heapreplace
from uuid import UUID, uuid4

import pytest

from domain.kinds import Priority
from domain.push import Environment, Provider, Route
from push.limiter.probes import CheckTimes
from push.limiter.registry import RouteLimiters
from push.limiter.route_limiter import RouteLimiter
from push.limiter.settings import Limits, Timings
from push.sender import Accepted, AwaitsCredentials

ROUTE = Route(Provider.APNS, None, Environment.PRODUCTION)


@pytest.mark.parametrize(("waiting", "each"), [(1, 5), (100, 5), (400, 20), (3000, 34)])
def test_looks_of_all_who_wait_are_few_a_second(waiting: int, each: int) -> None:
    chances = iter(number % 100 / 100 for number in range(10**6))
    looks = CheckTimes(5, 45, 20, lambda: next(chances))
    due = sorted(looks.wait(0) for _ in range(waiting))
    waits = []

    for _ in range(3 * waiting):  # each comes when it was told to, and is told again
        waits.append(looks.wait(due[0]))
        heapreplace(due, due[0] + waits[-1])

    assert sum(waits[-waiting:]) / waiting == pytest.approx(each, rel=0.15)


async def test_a_push_that_rests_alone_makes_no_call_and_the_others_do_not_notice() -> None:
    limiter = _limiter()
    refused = uuid4()

    look = limiter.await_credentials(refused, "wrong_key", timedelta(seconds=30))

    assert look == timedelta(seconds=5.05)
    with pytest.raises(AwaitsCredentials, match="wrong_key"):
        await _passes(limiter, refused)
    await _passes(limiter, uuid4())
    with pytest.raises(AwaitsCredentials):  # another's acceptance says nothing about it
        await _passes(limiter, refused)


async def test_a_push_that_rests_alone_is_tried_at_the_end_of_its_rest_at_the_latest() -> None:
    limiter = _limiter()
    refused = uuid4()

    assert limiter.await_credentials(refused, "wrong_key", timedelta(seconds=2)) == timedelta(seconds=2)
    limiter.await_credentials(refused, "wrong_key", timedelta(0))

    await _passes(limiter, refused)


async def test_once_one_refused_push_is_accepted_the_others_rests_are_over() -> None:
    limiter = _limiter()
    first, second = uuid4(), uuid4()
    limiter.await_credentials(first, "wrong_key", timedelta(0))
    limiter.await_credentials(second, "wrong_key", timedelta(seconds=30))

    await _passes(limiter, first)

    await _passes(limiter, second)


async def test_other_credentials_end_the_rests_of_their_route_alone() -> None:
    limiters = RouteLimiters({Provider.APNS: Limits(10)}, clock=lambda: 1000.0)
    limiters.share(1.0)
    other = Route(Provider.APNS, "other", Environment.PRODUCTION)
    refused = uuid4()
    for route in (ROUTE, other):
        limiters.serving(route, "old").await_credentials(refused, "wrong_key", timedelta(seconds=30))

    await _passes(limiters.serving(ROUTE, "new"), refused)

    with pytest.raises(AwaitsCredentials):
        await _passes(limiters.serving(other, "old"), refused)


def _limiter() -> RouteLimiter:
    limiter = RouteLimiter(ROUTE, Limits(10), Timings(), clock=lambda: 1000.0, chance=lambda: 0.0)
    limiter.share(1.0)
    return limiter


async def _passes(limiter: RouteLimiter, task_id: UUID) -> None:
    async def call() -> Accepted:
        return Accepted("id")

    async with limiter.enter(Priority.REMINDER, task_id) as permit:
        await permit.call(call(), "somebody")
