"""Temporal is away: first for the whole life of a fast, then killed while one sleeps."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from uuid import UUID

import pytest
from sqlalchemy import text

from db import fasting_sessions, outbox
from simulator import Simulator
from tests.busy import in_time
from tests.servers import TemporalServer
from tests.stack import (
    Phone,
    Stack,
    StackPlace,
    User,
    eventually,
    iphone,
    make_app,
    make_stack,
    temporal_client,
    working,
)

pytestmark = pytest.mark.long


@pytest.mark.timeout(90)
async def test_writes_are_answered_without_temporal_and_made_true_once_it_is_back(
    new_database: Callable[[str], Awaitable[str]], simulator: Simulator, server: TemporalServer
) -> None:
    place = StackPlace(await new_database("away"), server.address, "default", simulator)
    environment = place.environment(ARM_WINDOW="0")
    app = make_app(place, ARM_WINDOW="0")
    async with make_stack(place, app, lazy=True) as api_stack:
        started_at = time.monotonic()
        stays, ended, cancelled = [await _fast(api_stack, due_in=3.0) for _ in range(3)]
        await ended.user.end(ended.session_id)
        await cancelled.user.cancel(cancelled.session_id)
        took = time.monotonic() - started_at
        assert in_time(took, 5.0)  # eight writes; one that waited for Temporal would take as long

        await server.run()
        stack = replace(api_stack, temporal=await temporal_client(place))
        async with working(stack, environment):
            assert await stack.finished(stays.session_id) == "accepted"
            await eventually(lambda: _nothing_owed(stack), within=20)

            soonest = 3.0
            while True:
                delays = (soonest + 1, 60.0, soonest)
                sleeps, over, over_unheard = [await _fast(stack, due_in=due_in) for due_in in delays]
                await eventually(lambda: _nothing_owed(stack))
                server.kill()
                if not await _is_due(stack, over_unheard):
                    break
                await server.run()  # it was killed too late: others that are due later
                soonest *= 2
            await over.user.end(over.session_id)
            await _end_without_dispatch(stack, over_unheard)
            await eventually(lambda: _is_due(stack, over_unheard))
            await server.run()
            assert await stack.finished(sleeps.session_id) == "accepted"
            assert await stack.finished(over.session_id) == "session_ended"  # told long before it would be due
            assert await stack.finished(over_unheard.session_id) == "withheld"  # its timer fired, nobody had told it
            await _dispatch_at_last(stack, over_unheard)
            await eventually(lambda: _nothing_owed(stack), within=20)

    for fast in (stays, sleeps):
        assert len(simulator.requests.for_token(fast.phone.token)) == 1
    for fast in (ended, cancelled, over, over_unheard):
        assert not simulator.requests.for_token(fast.phone.token)


@dataclass(frozen=True)
class _Fast:
    user: User
    phone: Phone
    session_id: UUID


async def _fast(stack: Stack, *, due_in: float) -> _Fast:
    user, phone = stack.user(), iphone()
    await user.register(phone)
    return _Fast(user, phone, await user.start_fast(due_in=due_in))


async def _end_without_dispatch(stack: Stack, fast: _Fast) -> None:
    """End a fast as an API process does that dies right after the commit; no sweeper gets to its outbox row either."""
    ended = "UPDATE fasting_sessions SET status = 'broken', ended_at = now(), rev = rev + 1 WHERE id = :id"
    async with stack.sessions.begin() as db:
        await db.execute(text(ended), {"id": fast.session_id})
        await outbox.add(db, fasting_sessions.OUTBOX_KIND, fast.session_id)
        later = "UPDATE outbox SET next_attempt_at = now() + interval '1 minute' WHERE subject_id = :id"
        await db.execute(text(later), {"id": fast.session_id})


async def _dispatch_at_last(stack: Stack, fast: _Fast) -> None:
    """Let a sweeper have it: there is no workflow any more that could be told."""
    async with stack.sessions.begin() as db:
        now = "UPDATE outbox SET next_attempt_at = now() WHERE subject_id = :id"
        await db.execute(text(now), {"id": fast.session_id})


async def _is_due(stack: Stack, fast: _Fast) -> bool:
    """Tell whether a fast's reminder would be due by now, had it not ended."""
    due = "SELECT 1 FROM fasting_sessions WHERE id = :id AND ends_at - interval '1 minute' <= clock_timestamp()"
    return bool(await stack.rows(due, id=fast.session_id))


async def _nothing_owed(stack: Stack) -> bool:
    return not await stack.rows("SELECT 1 FROM outbox")
