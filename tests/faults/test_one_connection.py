"""Trouble with a whole connection, or with the way to one: every push gets through, and shows once."""

from typing import Any

import pytest

from tests.faults.service import Service, healthy, in_time, undisturbed
from tests.stack import Phone, android, iphone

pytestmark = pytest.mark.long


async def test_goaway_repeats_those_above_its_line_and_waits_for_those_below(service: Service) -> None:
    below, triggers, above = healthy(10), [iphone(), android()], healthy(10)
    for phone in below:  # in flight while the connection says goodbye
        _trouble(service, phone, fault="slow", delay=0.7, count=1)
    for phone in triggers:
        _trouble(service, phone, fault="goaway", count=1)

    pushed = await service.remind([*below, *triggers, *above])

    assert {(each.state, *each.times_received) for each in pushed} == {("accepted", 1)}
    assert {attempt for each in pushed for attempt in each.attempts[:-1]} == {("unavailable", "goaway")}
    for phone in triggers:
        [first, second] = service.simulator.requests.for_token(phone.token)
        assert (first.reason, second.status) == ("goaway", 200)


@pytest.mark.parametrize(
    ("fault", "attempts", "beside"),
    [
        ({"fault": "freeze", "processed": True}, 2, 10),
        ({"fault": "freeze", "processed": True}, 2, 0),
        ({"fault": "close"}, 2, 10),
        ({"fault": "cut_answer", "by": "close"}, 1, 10),  # behind the status line, which says it all
        ({"fault": "goaway", "processed": True, "answer_in_flight": False}, 2, 10),
    ],
    ids=["silent peer", "silent peer alone", "cut", "cut in the middle of an answer", "goaway without answers"],
)
async def test_a_connection_that_dies_costs_no_push_and_no_second_line(
    service: Service, fault: dict[str, Any], attempts: int, beside: int
) -> None:
    triggers = [iphone(), android()]
    for phone in triggers:
        _trouble(service, phone, count=1, **fault)

    pushed = await service.remind([*triggers, *healthy(beside)])

    assert {(each.state, each.token_active) for each in pushed} == {("accepted", True)}
    assert [len(each.attempts) for each in pushed[:2]] == [attempts, attempts]


@pytest.mark.parametrize(
    "fault",
    [
        {"fault": "refuse_connections"},
        *({"fault": "stall_connections", "at": stage} for stage in ("connect", "handshake", "greeting")),
    ],
    ids=["refused", "hang at connect", "hang at the handshake", "hang at the greeting"],
)
async def test_providers_that_cannot_be_reached_cost_waiting_and_no_attempt(
    service: Service, fault: dict[str, Any]
) -> None:
    for provider in ("apns", "fcm"):
        service.simulator.faults.add(provider=provider, **fault)

    fasts = await service.fasts(healthy())
    await service.all_wait(fasts)  # so the trouble lasts until every push has met it
    called = [request for phone in fasts for request in service.simulator.requests.for_token(phone.token)]
    service.simulator.faults.clear()
    pushed = await service.came_to(fasts)

    assert called == []
    assert [each for each in pushed if not undisturbed(each)] == []


async def test_the_limit_that_drops_after_a_rejection_costs_no_call_and_no_attempt_and_delays_by_seconds_at_most(
    service: Service,
) -> None:
    slow, dead = iphone(), [iphone() for _ in range(5)]
    _trouble(service, slow, fault="slow", delay=1.2, count=1)  # has the one place that is left
    for phone in dead:
        _trouble(service, phone, fault="answer", status=410, reason="ExpiredToken", timestamp=1)

    pushed = await service.remind([slow, *dead, *healthy(20)])

    of_dead, others = pushed[1 : 1 + len(dead)], [pushed[0], *pushed[1 + len(dead) :]]
    assert [each.state for each in of_dead] == ["unregistered"] * len(dead)
    assert [each for each in others if not (undisturbed(each) and in_time(each))] == []
    assert all(each.token_active for each in of_dead)  # registered after they were seen to die


def _trouble(service: Service, phone: Phone, **fault: Any) -> None:
    service.simulator.faults.add(provider=phone.provider, token=phone.token, **fault)
