"""Which trouble a limiter believes, for how long, and what it does afterwards. Time is passed in."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import inf
from uuid import uuid4

import pytest

from domain.kinds import Priority
from domain.push import Environment, Provider, Route
from push.limiter.breaker import IN_A_ROW, LONGEST_FLOOR, MOMENT, USERS
from push.limiter.registry import RouteLimiters
from push.limiter.route_limiter import RouteLimiter
from push.limiter.settings import Limits, Timings
from push.sender import (
    Answer,
    ChecksAgain,
    Delivery,
    Misconfigured,
    NoRoom,
    ProviderTrouble,
    Reserved,
    StaleCredential,
    Throttled,
    ThrottleExtent,
    Unavailable,
    Unsendable,
)
from push.verdict import note_unknown, unknown_refusals
from tests.logs import own_logs

ROUTE = Route(Provider.APNS, None, Environment.PRODUCTION)
CENTURIES = timedelta(days=365 * 7900)
HURRIED = Timings(patience=0.001, longest_call=1.0, max_reserved=100.0)


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def make_limiter(clock: Clock, limits: Limits, timings: Timings) -> RouteLimiter:
    limiter = RouteLimiter(ROUTE, limits, timings, clock=clock, chance=lambda: 0.0)
    limiter.share(1.0)
    return limiter


async def come_to(limiter: RouteLimiter, what: Answer | ProviderTrouble) -> None:
    async def call() -> Answer:
        if isinstance(what, ProviderTrouble):
            raise what
        return what

    async with limiter.enter(Priority.REMINDER, uuid4()) as permit:
        with suppress(ProviderTrouble):
            await permit.call(call(), f"user-{uuid4()}")


async def shut(limiter: RouteLimiter, retry_after: timedelta | None = None) -> None:
    """Shut it by what three users are told in a row."""
    for _ in range(USERS):
        await come_to(limiter, Misconfigured("wrong_key", retry_after=retry_after))


async def looks_in(limiter: RouteLimiter) -> float:
    """Give in how many seconds a send that finds the gate shut is told to look in."""
    with pytest.raises(ChecksAgain) as told:
        async with limiter.enter(Priority.REMINDER, uuid4()):
            pass
    assert told.value.retry_after is not None
    return told.value.retry_after.total_seconds()


async def booked(limiter: RouteLimiter, priority: Priority = Priority.REMINDER) -> float:
    """Give in how many seconds a send is told to come back."""
    with pytest.raises(Reserved) as told:
        async with limiter.enter(priority, uuid4()):
            pass
    assert told.value.retry_after is not None
    return told.value.retry_after.total_seconds()


async def test_refusals_of_a_credential_that_was_renewed_since_open_nothing_however_many() -> None:
    clock = Clock()
    limiter = make_limiter(clock, Limits(10), Timings())

    for _ in range(100):
        clock.now += MOMENT * 2
        await come_to(limiter, StaleCredential("UNAUTHENTICATED", Delivery.NOT_PROCESSED))

    assert limiter.report().state == "closed"


async def test_what_we_refuse_ourselves_opens_nothing_whether_before_a_call_or_instead_of_one() -> None:
    clock = Clock()
    limiter = make_limiter(clock, Limits(10), Timings())

    for _ in range(100):
        clock.now += MOMENT * 2
        await come_to(limiter, NoRoom("no_room_on_connection"))
        with pytest.raises(NoRoom):
            async with limiter.enter(Priority.REMINDER, uuid4()):
                raise NoRoom("resting_after_failed_connection")

    assert limiter.report().state == "closed"


async def test_a_failed_connection_counts_once_and_our_refusals_after_it_not_at_all() -> None:
    clock = Clock()
    limiter = make_limiter(clock, Limits(10), Timings())

    await come_to(limiter, Unavailable("connect_failed", Delivery.NOT_PROCESSED))
    for _ in range(20):
        clock.now += MOMENT * 2
        await come_to(limiter, NoRoom("resting_after_failed_connection"))

    assert limiter.report().state == "closed"


async def test_a_push_that_was_rejected_without_a_call_is_no_probe() -> None:
    clock = Clock()
    limiter = make_limiter(clock, Limits(10), Timings())
    await shut(limiter)
    clock.now += 30

    await come_to(limiter, Unsendable("MalformedDeviceToken"))

    assert limiter.report().state == "half_open"


async def test_a_provider_that_asks_for_centuries_gets_ten_minutes_and_is_reported() -> None:
    clock = Clock()
    limiter = make_limiter(clock, Limits(10), Timings())

    await shut(limiter, CENTURIES)

    assert limiter.report().until is not None
    clock.now += LONGEST_FLOOR + 1
    assert limiter.report().state == "half_open"


async def test_who_finds_a_limiter_shut_for_long_looks_in_sooner_the_fewer_they_are() -> None:
    limiter = make_limiter(Clock(), Limits(10), Timings())
    await shut(limiter, timedelta(minutes=5))

    looks = [await looks_in(limiter) for _ in range(2000)]

    assert looks[0] == pytest.approx(5.05)
    assert looks[500] == pytest.approx(5 + 501 / 20)  # twenty a second
    assert max(looks) == 45


async def test_other_credentials_close_an_open_breaker_aloud_and_slowly() -> None:
    clock = Clock()
    limiters = RouteLimiters({Provider.APNS: Limits(10)}, clock=clock)
    limiters.share(1.0)
    await shut(limiters.serving(ROUTE, "old"))
    clock.now += 20

    with own_logs() as logs:
        limiter = limiters.serving(ROUTE, "new")

    assert [(entry["event"], entry["after"]) for entry in logs] == [("breaker closed", 20.0)]
    assert limiter.report().rate == pytest.approx(20)  # 2 % of 1 000
    clock.now += 20
    assert limiter.report().rate is None


@pytest.mark.parametrize(
    "first", [[Unavailable("down", Delivery.UNKNOWN)] * IN_A_ROW, [Throttled("busy", extent=ThrottleExtent.ROUTE)]]
)
async def test_another_kind_of_trouble_is_told_when_the_probes_of_three_users_met_it(
    first: Sequence[ProviderTrouble],
) -> None:
    clock = Clock()
    limiter = make_limiter(clock, Limits(10), Timings())
    told = []

    with own_logs() as logs:
        for trouble in (*first, *[Misconfigured("wrong_key")] * 5):
            await come_to(limiter, trouble)
            told.append(limiter.report().reason)
            clock.now += 60 if limiter.report().state == "open" else 1

    cause = {"down": "outage", "busy": "throttled"}[first[0].reason]
    assert told[-6:] == [first[0].reason] * 3 + ["wrong_key"] * 3
    opened = [(entry["event"], entry["cause"], entry["reason"]) for entry in logs]
    assert opened == [("breaker opened", cause, first[0].reason), ("breaker opened", "misconfigured", "wrong_key")]


async def test_a_quota_of_the_whole_project_is_reported_at_once() -> None:
    clock = Clock()
    limiter = make_limiter(clock, Limits(10), Timings())
    await shut(limiter)
    clock.now += 60

    await come_to(limiter, Throttled("QUOTA_EXCEEDED_PROJECT", ThrottleExtent.ROUTE, retry_after=timedelta(seconds=60)))

    assert (limiter.report().cause, limiter.report().reason) == ("throttled", "QUOTA_EXCEEDED_PROJECT")


async def test_other_credentials_leave_a_limiter_that_was_open_as_it_is() -> None:
    limiters = RouteLimiters({Provider.APNS: Limits(10)})
    limiters.share(1.0)
    limiters.serving(ROUTE, "old")

    with own_logs() as logs:
        limiter = limiters.serving(ROUTE, "new")

    assert not logs
    assert limiter.report().rate is None


async def test_those_who_wait_too_long_at_a_full_limiter_come_back_one_after_the_other() -> None:
    limiter = make_limiter(Clock(), Limits(1000), HURRIED)
    for _ in range(1000):
        await limiter.enter(Priority.REMINDER, uuid4()).__aenter__()

    turns = sorted(await asyncio.gather(*(booked(limiter) for _ in range(200))))

    spaces = [later - sooner for sooner, later in pairwise(turns)]
    assert min(spaces) > 0.0009
    assert max(spaces) < 0.01  # at worst a thousand places for one second each


async def test_a_full_limiter_that_moves_fast_calls_them_back_soon() -> None:
    clock = Clock()
    limiter = make_limiter(clock, Limits(1), HURRIED)
    for _ in range(10):
        clock.now += 0.01
        await come_to(limiter, Unsendable("quick"))

    async with limiter.enter(Priority.REMINDER, uuid4()):
        turn = await booked(limiter)

    assert turn < 0.03


async def test_nobody_is_called_back_at_one_instant_where_nothing_may_go_out() -> None:
    chances = iter((0.1, 0.5, 0.9))
    limiter = RouteLimiter(ROUTE, Limits(10), HURRIED, clock=Clock(), chance=lambda: next(chances))

    turns = {await booked(limiter) for _ in range(3)}

    assert len(turns) == 3
    assert inf > max(turns) < 4


async def test_a_reminders_turn_does_not_lie_behind_the_messages() -> None:
    limiter = make_limiter(Clock(), Limits(1000, rate=1.0), HURRIED)
    async with limiter.enter(Priority.REMINDER, uuid4()):
        messages = [await booked(limiter, Priority.MESSAGE) for _ in range(20)]

        assert max(messages) > 15
        assert await booked(limiter) < 3


def test_refusals_that_no_table_knows_are_reported() -> None:
    began = datetime.now(UTC)
    note_unknown("apns", 400, "NeverHeardOf")
    try:
        told = RouteLimiters({}).report()["unknown_refusals"]
    finally:
        del unknown_refusals["apns", 400, "NeverHeardOf"]

    [found] = [each for each in told if each["reason"] == "NeverHeardOf"]
    assert began <= datetime.fromisoformat(found.pop("last_at")) <= datetime.now(UTC)
    assert found == {"provider": "apns", "status": 400, "reason": "NeverHeardOf", "count": 1}
