"""A route limiter: who goes first, who waits, who is told to come back, and what an open breaker means for all."""

import asyncio
import time
from contextlib import suppress
from datetime import timedelta
from itertools import pairwise
from math import inf
from uuid import uuid4

import pytest

from domain.kinds import Priority
from domain.push import Environment, Provider, Route
from push.limiter.breaker import USERS, Cause, Rest
from push.limiter.registry import RouteLimiters
from push.limiter.route_limiter import RouteLimiter
from push.limiter.settings import Limits, Timings
from push.sender import (
    Accepted,
    Delivery,
    Misconfigured,
    Paused,
    ProviderTrouble,
    Reserved,
    Throttled,
    ThrottleExtent,
    Unavailable,
)

ACCEPTED = Accepted("answer")
ROUTE = Route(Provider.APNS, None, Environment.PRODUCTION)
RESTS = dict.fromkeys(Cause, Rest(first=0.1, longest=0.4))
TIMINGS = Timings(rests=RESTS, patience=0.5, check_again=0.05, max_reserved=5.0, ramp=0.2)


def make_limiter(*, concurrency: int = 1000, rate: float | None = None, timings: Timings = TIMINGS) -> RouteLimiter:
    limiter = RouteLimiter(ROUTE, Limits(concurrency, rate), timings, chance=lambda: 0.0)
    limiter.share(1.0)
    return limiter


async def answer() -> Accepted:
    return Accepted("answer")


async def trouble(trouble: ProviderTrouble) -> Accepted:
    raise trouble


async def send(limiter: RouteLimiter, priority: Priority = Priority.REMINDER) -> Accepted:
    async with limiter.enter(priority, uuid4()) as permit:
        return await permit.call(answer(), f"user-{uuid4()}")


async def fail(limiter: RouteLimiter, with_trouble: ProviderTrouble) -> None:
    async with limiter.enter(Priority.REMINDER, uuid4()) as permit:
        with pytest.raises(type(with_trouble)):
            await permit.call(trouble(with_trouble), f"user-{uuid4()}")


async def refuse(limiter: RouteLimiter, with_trouble: ProviderTrouble, *, users: int = USERS) -> None:
    for _ in range(users):
        await fail(limiter, with_trouble)


async def in_line(limiter: RouteLimiter, count: int) -> None:
    while limiter.report().waiting < count:
        await asyncio.sleep(0)


async def test_a_limiter_without_limits_reached_never_yields_to_the_loop() -> None:
    limiter = make_limiter()
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    for _ in range(100):
        async with limiter.enter(Priority.REMINDER, uuid4()) as permit:
            permit.check()
    counting.cancel()

    assert turns == 0


async def test_no_more_than_the_limit_are_under_way_and_reminders_go_before_messages_and_tests_last() -> None:
    limiter = make_limiter(concurrency=1)
    order: list[Priority] = []

    async def note(priority: Priority) -> None:
        async with limiter.enter(priority, uuid4()):
            assert limiter.report().in_flight == 1
            order.append(priority)
            await asyncio.sleep(0)

    async with limiter.enter(Priority.TEST, uuid4()):
        crowd = [Priority.TEST, Priority.MESSAGE, Priority.REMINDER] * 3
        waiting = [asyncio.create_task(note(priority)) for priority in crowd]
        await in_line(limiter, 9)
    await asyncio.gather(*waiting)

    assert order == sorted(crowd)


async def test_a_quarter_of_the_room_is_for_reminders_whatever_slow_calls_fill_the_rest() -> None:
    limiter = make_limiter(concurrency=8)
    over = asyncio.Event()

    async def slow() -> None:
        async with limiter.enter(Priority.MESSAGE, uuid4()):
            await over.wait()

    crowd = [asyncio.create_task(slow()) for _ in range(20)]
    await in_line(limiter, 14)

    assert limiter.report().in_flight == 6
    assert await send(limiter, Priority.REMINDER) == ACCEPTED
    assert limiter.report().in_flight == 6
    over.set()
    await asyncio.gather(*crowd)


async def test_one_users_slow_calls_fill_a_quarter_of_the_room_whatever_their_number() -> None:
    limiter = make_limiter(concurrency=8)
    over = asyncio.Event()

    async def slow() -> None:
        async with limiter.enter(Priority.REMINDER, uuid4(), 1):
            await over.wait()

    crowd = [asyncio.create_task(slow()) for _ in range(20)]
    await in_line(limiter, 18)

    async with limiter.enter(Priority.REMINDER, uuid4(), 2), limiter.enter(Priority.MESSAGE, uuid4(), 3):
        assert limiter.report().in_flight == 4
    assert limiter.report().in_flight == 2
    over.set()
    await asyncio.gather(*crowd)
    assert (limiter.report().waiting, limiter.report().in_flight) == (0, 0)


async def test_who_waits_longer_than_its_patience_is_told_to_come_back() -> None:
    limiter = make_limiter(concurrency=1)

    async with limiter.enter(Priority.REMINDER, uuid4()):
        with pytest.raises(Reserved, match="limit_reached"):
            await send(limiter)

    assert await send(limiter) == ACCEPTED
    assert limiter.report().in_flight == 0


async def test_turns_beyond_patience_are_booked_one_after_the_other() -> None:
    """The limiter's clock goes ten times as fast as patience runs out, so that no busy machine costs a turn."""
    began, stopped = time.monotonic(), True
    limiter = RouteLimiter(
        ROUTE,
        Limits(1000, 100),
        Timings(rests=RESTS, patience=5.0, max_reserved=10.0),
        clock=lambda: began if stopped else began + 10 * (time.monotonic() - began),
        chance=lambda: 0.0,
    )
    limiter.share(1.0)
    sends = [asyncio.create_task(send(limiter)) for _ in range(650)]
    await in_line(limiter, 499)  # in one moment, however busy the machine is
    stopped = False

    results = await asyncio.gather(*sends, return_exceptions=True)

    booked = [result for result in results if isinstance(result, Reserved)]
    turns = sorted(each.retry_after for each in booked if each.retry_after and each.reason == "rate_limited")
    passed = results.count(ACCEPTED)
    assert passed + len(turns) == 650
    assert 499 <= passed <= 503  # five seconds of patience
    assert timedelta(seconds=4.9) < turns[0] < timedelta(seconds=5.3)
    assert max(later - sooner for sooner, later in pairwise(turns)) < timedelta(milliseconds=15)
    assert turns[-1] - turns[0] == pytest.approx(timedelta(seconds=0.01) * (len(turns) - 1), rel=0.1)


async def test_leave_that_was_not_used_is_given_to_the_next_one() -> None:
    limiter = make_limiter(rate=0.1)

    for _ in range(5):
        async with limiter.enter(Priority.REMINDER, uuid4()):
            pass  # withdrawn by the last check

    assert await send(limiter) == ACCEPTED


async def test_nothing_passes_before_the_process_is_counted_and_all_who_waited_do_then() -> None:
    limiter = RouteLimiter(ROUTE, Limits(1000), TIMINGS)
    waiting = [asyncio.create_task(send(limiter)) for _ in range(10)]
    await in_line(limiter, 10)

    limiter.share(1.0)

    assert await asyncio.gather(*waiting) == [ACCEPTED] * 10


async def test_who_gave_up_waiting_takes_nobodys_turn() -> None:
    limiter = make_limiter(concurrency=1)
    async with limiter.enter(Priority.REMINDER, uuid4()):
        quitter, other = asyncio.create_task(send(limiter)), asyncio.create_task(send(limiter))
        await in_line(limiter, 2)
        quitter.cancel()
        await asyncio.wait([quitter])

    assert await other == ACCEPTED
    assert limiter.report().in_flight == 0


async def test_an_opening_sends_those_who_wait_away_at_once_and_stops_those_who_passed() -> None:
    limiter = make_limiter(concurrency=2)
    async with (
        limiter.enter(Priority.REMINDER, uuid4()) as passed,
        limiter.enter(Priority.REMINDER, uuid4()) as calling,
    ):
        waiting = [asyncio.create_task(send(limiter)) for _ in range(3)]
        await in_line(limiter, 3)
        with pytest.raises(Throttled):
            await calling.call(trouble(Throttled("wrong_key", ThrottleExtent.ROUTE)), f"user-{uuid4()}")

        refused = await asyncio.gather(*waiting, return_exceptions=True)
        with pytest.raises(Paused, match="wrong_key"):
            passed.check()

    assert [type(each) for each in refused] == [Paused] * 3
    assert limiter.report().state == "open"


async def test_after_the_rest_one_probe_passes_and_its_success_lets_all_in() -> None:
    limiter = make_limiter()
    await fail(limiter, Throttled("slower", ThrottleExtent.ROUTE))
    with pytest.raises(Paused) as paused:
        await send(limiter)
    assert paused.value.retry_after is not None
    await asyncio.sleep(paused.value.retry_after.total_seconds() + 0.01)

    async with limiter.enter(Priority.REMINDER, uuid4()) as probe:
        with pytest.raises(Paused):
            await send(limiter)
        await probe.call(answer(), f"user-{uuid4()}")

    assert await send(limiter) == ACCEPTED
    assert limiter.report().state == "closed"


@pytest.mark.parametrize("harmless", [Throttled("this_token"), Unavailable("once", Delivery.UNKNOWN)])
async def test_one_tokens_throttle_and_a_single_failure_open_nothing(harmless: ProviderTrouble) -> None:
    limiter = make_limiter()

    await fail(limiter, harmless)

    assert await send(limiter) == ACCEPTED


async def test_connections_that_cannot_be_made_count_as_an_outage() -> None:
    limiter = make_limiter()

    async def find_no_connection(user_id: str) -> None:
        permit, failed = (
            limiter.enter(Priority.REMINDER, uuid4()),
            Unavailable("connect_failed", Delivery.NOT_PROCESSED),
        )
        with suppress(Unavailable):
            async with permit:
                await asyncio.sleep(0.025)
                raise failed
        permit.hindered(failed, user_id, 60.0)

    for number in range(6):
        assert limiter.report().state == "closed"
        await find_no_connection(f"user-{number % 3}")

    assert (limiter.report().state, limiter.report().reason) == ("open", "connect_failed")


async def test_after_a_pause_the_rate_grows_slowly() -> None:
    limiter = make_limiter(timings=Timings(rests=RESTS, patience=5.0, ramp=60.0))
    limiter.cut_off()
    limiter.resume()

    began = asyncio.get_running_loop().time()
    await asyncio.gather(*(send(limiter) for _ in range(12)))

    assert asyncio.get_running_loop().time() - began > 0.4  # 2 % of 1 000 a second, and a burst of 2
    assert limiter.report().rate == pytest.approx(20, abs=5)


async def test_a_cut_off_limiter_lets_nothing_through_until_it_is_released() -> None:
    limiter = make_limiter()
    limiter.cut_off()
    with pytest.raises(Paused, match="brake_engaged"):
        await send(limiter)
    assert limiter.report().state == "braked"

    limiter.resume()

    assert await send(limiter) == ACCEPTED


async def test_other_credentials_open_the_limiter_at_once() -> None:
    limiters = RouteLimiters({Provider.APNS: Limits(10)}, TIMINGS)
    limiters.share(1.0)
    old, new = object(), object()
    await refuse(limiters.serving(ROUTE, old), Misconfigured("wrong_key"))
    with pytest.raises(Paused):
        await send(limiters.serving(ROUTE, old))

    assert await send(limiters.serving(ROUTE, new)) == ACCEPTED


async def test_limiters_tell_how_they_stand_as_json() -> None:
    limiters = RouteLimiters({Provider.APNS: Limits(10), Provider.FCM: Limits(10, rate=500)}, TIMINGS)
    limiters.share(0.5)
    await refuse(limiters.at(ROUTE), Misconfigured("wrong_key"))
    limiters.at(Route(Provider.FCM, "pro", Environment.PRODUCTION))

    apns, fcm = limiters.report()["gates"]

    assert (apns["state"], apns["cause"], apns["reason"], apns["rate"]) == ("open", "misconfigured", "wrong_key", None)
    assert apns["until"].endswith("+00:00")
    assert fcm == {
        "provider": "fcm",
        "app_id": "pro",
        "environment": "production",
        "state": "closed",
        "cause": None,
        "reason": None,
        "until": None,
        "waiting": 0,
        "in_flight": 0,
        "rate": 250.0,
    }
    assert limiters.at(ROUTE).report().rate != inf
