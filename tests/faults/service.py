"""Fasts of people whose phones are in trouble, beside others that are not, and what must hold for all of them."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from domain.push import TaskState
from simulator import Simulator
from tests import busy
from tests.routes.worker_harness import WorkerHarness, due_now
from tests.stack import Phone, Stack, android, eventually, iphone

DUE_IN, PER_PHONE = 3.0, 0.08  # seconds; a reminder whose moment has passed when it is asked for is skipped
MAX_LATE = 8.0  # seconds, for who had no room; the calls in the way are given up after two
LONGEST = 50.0  # seconds until every push is settled; a reminder expires after a minute


@dataclass(frozen=True)
class Pushed:
    """The result of one phone's push."""

    phone: Phone
    state: str
    reason: str | None
    attempts: list[tuple[str, str | None]]
    calls: int  # that reached the provider
    times_received: list[int]  # by line on the screen
    token_active: bool
    late: float | None  # seconds from the due instant until it was accepted


@dataclass(frozen=True)
class Service:
    """API, Temporal and a worker, and the providers."""

    stack: Stack
    worker: WorkerHarness
    simulator: Simulator

    async def warm_up(self) -> None:
        """Let both providers accept something, so that connections are open and know their limits."""
        sent = await self.worker.send_all(await due_now(self.stack, [iphone(), android()]))
        assert {each.state for each in sent} == {TaskState.ACCEPTED}

    async def remind(self, phones: Sequence[Phone]) -> list[Pushed]:
        """Remind each phone's own user at one instant; gives what came of it, when all promises were kept."""
        return await self.came_to(await self.fasts(phones))

    async def fasts(self, phones: Sequence[Phone], *, due_in: float | None = None) -> dict[Phone, UUID]:
        """Start a fast of each phone's own user, all with a reminder at one instant; gives their ids."""
        due_in = due_in or DUE_IN + PER_PHONE * len(phones)
        users = [self.stack.user() for _ in phones]
        await asyncio.gather(*(user.register(phone) for user, phone in zip(users, phones, strict=True)))
        sessions = await asyncio.gather(*(user.start_fast(due_in=due_in) for user in users))
        return dict(zip(phones, sessions, strict=True))

    async def all_wait(self, fasts: Mapping[Phone, UUID]) -> None:
        """Wait until each push was due and had to wait for its provider, without an attempt."""
        waiting = (
            "SELECT 1 FROM push_tasks WHERE conversation_id = ANY(:ids)"
            " AND state = 'pending' AND last_reason IS NOT NULL AND attempt_count = 0"
        )

        async def are_held() -> bool:
            return len(await self.stack.rows(waiting, ids=list(fasts.values()))) == len(fasts)

        await eventually(are_held, within=LONGEST / 2)

    async def came_to(self, fasts: Mapping[Phone, UUID]) -> list[Pushed]:
        """Wait until all is settled; gives what came of each fast's push, when all promises were kept."""
        await asyncio.gather(*(self._settled(session_id) for session_id in fasts.values()))
        pushed = [await self._pushed(phone, session_id) for phone, session_id in fasts.items()]
        for each in pushed:
            await self._assert_promises(each, fasts[each.phone])
        return pushed

    async def _settled(self, session_id: UUID) -> None:
        try:
            await self.stack.finished(session_id, within=LONGEST)
        except TimeoutError:
            tasks = [(task.provider, task.state, task.last_reason) for task in await self.stack.tasks(session_id)]
            pytest.fail(f"never returned: {tasks}, {[dict(row._mapping) for row in await self._attempts(session_id)]}")

    async def _assert_promises(self, pushed: Pushed, session_id: UUID) -> None:
        """No push pending or lost, no second line, no call beyond one per attempt."""
        phone = pushed.phone
        assert pushed.state in {"accepted", "unregistered"}, pushed
        assert len(pushed.times_received) <= 1, pushed
        assert pushed.state != "accepted" or pushed.times_received, pushed
        assert pushed.calls <= len(pushed.attempts), pushed
        assert not [outcome for outcome, _ in pushed.attempts if outcome is None], pushed
        if phone.provider == "apns":
            calls = Counter(request.message_id for request in self.simulator.requests.for_token(phone.token))
            known = {str(row.attempt_id) for row in await self._attempts(session_id)}
            assert set(calls.values()) <= {1}, pushed
            assert calls.keys() <= known, pushed

    async def _pushed(self, phone: Phone, session_id: UUID) -> Pushed:
        [task] = await self.stack.tasks(session_id)
        [device] = await self.stack.rows("SELECT active FROM device_tokens WHERE token = :token", token=phone.token)
        attempts = await self._attempts(session_id)
        shown = self.simulator.phones.get(phone.token)
        return Pushed(
            phone=phone,
            state=task.state,
            reason=task.last_reason,
            attempts=[(row.outcome, row.reason) for row in attempts],
            calls=len(self.simulator.requests.for_token(phone.token)),
            times_received=[line.times_received for line in shown.screen] if shown else [],
            token_active=device.active,
            late=(task.accepted_at - task.due_at).total_seconds() if task.accepted_at else None,
        )

    async def _attempts(self, session_id: UUID) -> list[Any]:
        return await self.stack.rows(
            "SELECT a.* FROM push_attempts a JOIN push_tasks USING (task_id)"
            " WHERE conversation_id = :id ORDER BY number",
            id=session_id,
        )


def undisturbed(pushed: Pushed) -> bool:
    """Whether one attempt was made, one call, accepted, and shown once."""
    sent_once = (pushed.state, pushed.calls, pushed.times_received, pushed.token_active) == ("accepted", 1, [1], True)
    return sent_once and pushed.attempts == [("accepted", None)]


def in_time(pushed: Pushed) -> bool:
    """Whether it was accepted before it was much too late, though others may have been in its way."""
    return pushed.late is not None and busy.in_time(pushed.late, MAX_LATE)


def healthy(count: int = 10) -> list[Phone]:
    """Make so many phones of each kind, without any trouble."""
    return [iphone() for _ in range(count)] + [android() for _ in range(count)]
