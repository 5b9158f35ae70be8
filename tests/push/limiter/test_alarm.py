"""The alarm for pushes that are refused while their route goes on: one line for many, with counts."""

import asyncio
from collections.abc import Sequence
from uuid import UUID, uuid4

import pytest
import structlog

from push.limiter.refusal_alarm import RefusalAlarm
from tests.logs import own_logs

ALICE, BOB = 1, 2
Told = tuple[str, object, object, object]
Refused = tuple[UUID, int]


async def told_of(refused: Sequence[Refused], *, dropped: bool = False) -> list[Told]:
    """Give the lines that are told of these pushes, which were refused in one moment."""
    with own_logs() as logs:
        alarm = RefusalAlarm(structlog.get_logger(), gathered=0.0)
        for task_id, user in refused:
            alarm.note("InvalidProviderToken", task_id, user)
        assert logs == []  # not before all were counted
        if dropped:
            alarm.drop()
        over = asyncio.Event()
        asyncio.get_running_loop().call_later(0.0, over.set)  # behind the alarm
        await over.wait()
    return [(each["log_level"], each["reason"], each["pushes"], each["users"]) for each in logs]


async def test_one_line_tells_of_all_pushes_and_how_many_users_they_belong_to() -> None:
    refused = [(uuid4(), user) for user in (ALICE, BOB) for _ in range(10)]

    assert await told_of(refused) == [("error", "InvalidProviderToken", 20, 2)]


async def test_a_push_that_is_refused_again_counts_once() -> None:
    again = (uuid4(), ALICE)

    assert await told_of([again] * 5) == [("error", "InvalidProviderToken", 1, 1)]


async def test_nothing_is_told_of_what_the_limiter_was_shut_for() -> None:
    assert await told_of([(uuid4(), ALICE)], dropped=True) == []


@pytest.mark.parametrize("reasons", [20, 1000])
async def test_of_many_reasons_twenty_are_reported(reasons: int) -> None:
    with own_logs() as logs:
        alarm = RefusalAlarm(structlog.get_logger(), gathered=0.0)
        for number in range(reasons):
            alarm.note(f"reason-{number}", uuid4(), ALICE)
        while len(logs) < 20:
            await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)

    assert [each["reason"] for each in logs] == [f"reason-{number}" for number in range(20)]
