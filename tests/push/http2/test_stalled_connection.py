"""A new connection to Apple takes one call at a time until one is accepted: one phone's calls may hang for ever."""

import asyncio
import secrets
import time

import pytest

from domain.push import Environment
from push.apns.sender import ApnsSender
from push.sender import Accepted
from simulator import Simulator
from tests.busy import quick
from tests.push.conftest import apns_account, make_push


@pytest.mark.long
async def test_one_users_calls_that_are_never_answered_on_a_new_connection_hold_up_nobody_elses(sim: Simulator) -> None:
    assert await quick(lambda: _others_wait(sim), 1.5)


async def _others_wait(sim: Simulator) -> float:
    """Send to others while one user's calls hang on a new connection; gives how many seconds all took."""
    sender = ApnsSender(apns_account(sim))
    hanging = [secrets.token_hex(32) for _ in range(20)]
    for token in hanging:
        sim.faults.add(provider="apns", token=token, fault="silent")

    async def send(token: str, user: int) -> object:
        async with sender.lease(Environment.PRODUCTION, user) as send:
            return await send(make_push(token))

    hung = [asyncio.create_task(send(token, 1)) for token in hanging]
    began = time.monotonic()
    answers = await asyncio.gather(*(send(secrets.token_hex(32), user) for user in range(2, 12)))
    took = time.monotonic() - began

    assert {type(answer) for answer in answers} == {Accepted}
    assert not any(task.done() for task in hung)
    for task in hung:
        task.cancel()
    await asyncio.wait(hung)
    await sender.close()
    return took
