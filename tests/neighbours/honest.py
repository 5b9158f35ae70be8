"""People whose reminders fall due while a neighbour misbehaves, and what has to hold for them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from simulator import Simulator
from tests.stack import Phone, Stack, User, android, iphone

DUE_IN = 3.0  # seconds
PEOPLE = 5


@dataclass(frozen=True)
class Fast:
    """A fast, and the phones that are to be reminded of it."""

    user: User
    session_id: UUID
    phones: Sequence[Phone]


async def fasts(stack: Stack, people: int = PEOPLE, *, due_in: float = DUE_IN) -> list[Fast]:
    """Start a fast for each of so many people with an iPhone and an Android phone; all are due at about one instant."""
    return await asyncio.gather(*(_fast(stack.user(), due_in) for _ in range(people)))


async def latest(stack: Stack, simulator: Simulator, everybody: Sequence[Fast]) -> float:
    """Give the seconds by which the last phone's reminder came late; each got one, once, and each push is accepted."""
    late = [
        (await _received_at(simulator, phone)) - (await _due_at(fast)).timestamp()
        for fast in everybody
        for phone in fast.phones
    ]
    assert min(late) >= 0, late
    for fast in everybody:
        await stack.finished(fast.session_id)
        assert [task.state for task in await stack.tasks(fast.session_id)] == ["accepted"] * len(fast.phones)
        for phone in fast.phones:
            assert [line.times_received for line in simulator.phone(phone.token).screen] == [1]
    return max(late)


async def _fast(user: User, due_in: float) -> Fast:
    phones = [iphone(), android()]
    await user.register(*phones)
    return Fast(user, await user.start_fast(due_in=due_in), phones)


async def _due_at(fast: Fast) -> datetime:
    session = (await fast.user.call("GET", f"/v1/fasting-sessions/{fast.session_id}")).json()
    return datetime.fromisoformat(session["reminders"][0]["due_at"])


async def _received_at(simulator: Simulator, phone: Phone) -> float:
    [receipt] = await simulator.phones.received(phone.token)
    return receipt.request.received_timestamp
