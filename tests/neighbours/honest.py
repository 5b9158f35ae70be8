"""People whose reminders fall due while a neighbour misbehaves, and what has to hold for them."""

import asyncio
import os
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


def tolerance() -> float:
    """How late a reminder may be, in seconds: one, or two while the machine has more to do than it has cores.

    Where four wait for each core, everything takes longer than that, and the more so the more there are.
    """
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    return 1.0 if load <= 1 else max(2.0, load / 2)


async def fasts(stack: Stack, people: int = PEOPLE, *, due_in: float = DUE_IN) -> list[Fast]:
    """Start a fast for each of so many people with an iPhone and an Android phone; all are due at about one instant."""
    return await asyncio.gather(*(_fast(stack.user(), due_in) for _ in range(people)))


async def were_reminded_on_time(stack: Stack, simulator: Simulator, everybody: Sequence[Fast]) -> None:
    """Assert that each phone got its reminder on time and once, and that each push is accepted."""
    for fast in everybody:
        due_at = await _due_at(fast)
        for phone in fast.phones:
            [receipt] = await simulator.phones.received(phone.token)
            late = receipt.request.received_timestamp - due_at.timestamp()
            assert 0 <= late < tolerance(), f"{late:.2f} s late"
    for fast in everybody:
        await stack.finished(fast.session_id)
        assert [task.state for task in await stack.tasks(fast.session_id)] == ["accepted"] * len(fast.phones)
        for phone in fast.phones:
            assert [line.times_received for line in simulator.phone(phone.token).screen] == [1]


async def _fast(user: User, due_in: float) -> Fast:
    phones = [iphone(), android()]
    await user.register(*phones)
    return Fast(user, await user.start_fast(due_in=due_in), phones)


async def _due_at(fast: Fast) -> datetime:
    session = (await fast.user.call("GET", f"/v1/fasting-sessions/{fast.session_id}")).json()
    return datetime.fromisoformat(session["reminders"][0]["due_at"])
