"""Counts that take too long are cut off, and say so; everything else goes on."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import uuid4

import pytest
from sqlalchemy import text

from simulator import Simulator
from tests.console.visits import visit, words
from tests.stack import Stack, StackPlace, iphone, make_app, make_stack
from tests.support.dead import dead_task

CUT_OFF = 5.0  # seconds
UNCUT = 20
# What a table of many millions does to a query, done by a view that takes its time
SLOW = (
    "ALTER TABLE push_attempts RENAME TO many_attempts",
    f"CREATE VIEW push_attempts AS SELECT many_attempts.* FROM many_attempts, pg_sleep({UNCUT})",
)
FAST = ("DROP VIEW push_attempts", "ALTER TABLE many_attempts RENAME TO push_attempts")
ATTEMPT = (
    "INSERT INTO push_attempts (attempt_id, task_id, number, started_at, outcome, reason)"
    " VALUES (:attempt_id, :task_id, 1, now(), 'unknown', 'Shutdown')"
)


@pytest.fixture(scope="module")
async def crowded(
    new_database: Callable[[str], Awaitable[str]], temporal: str, simulator: Simulator
) -> AsyncIterator[Stack]:
    """An API whose database may be slowed down."""
    place = StackPlace(await new_database("crowded"), temporal, "detached", simulator)
    async with make_stack(place, make_app(place)) as stack:
        yield stack


@pytest.mark.long
async def test_counts_that_take_too_long_are_cut_off_and_say_so(crowded: Stack) -> None:
    supporter, operator = crowded.user(None, "support"), await visit(crowded)
    [task_id] = await dead_task(crowded.user(), iphone())
    await _run(crowded, ATTEMPT, attempt_id=uuid4(), task_id=task_id)
    await _run(crowded, *SLOW)
    began_at = time.monotonic()

    told, page, overview = await asyncio.gather(
        supporter.call("GET", "/v1/support/analytics"),
        operator.get("/console/analytics"),
        operator.get("/console/"),
    )

    assert CUT_OFF <= time.monotonic() - began_at < UNCUT  # which each of them would have taken, at least
    cut_off = "There are too many pushes to count within 5 s"
    refusal = "This many pushes cannot be counted within 5 s. Ask for a shorter time."
    assert told.status_code == page.status_code == 422
    assert told.json()["errors"] == [{"field": "days", "detail": refusal}]
    assert refusal in words(page)
    assert overview.status_code == 200
    assert cut_off in words(overview)
    await _run(crowded, *FAST)
    again = (await supporter.call("GET", "/v1/support/analytics")).json()
    assert [(each["dead"], each["pushes"]) for each in again["items"]] == [(1, 1)]
    assert cut_off not in words(await operator.get("/console/"))


async def _run(stack: Stack, *statements: str, **values: object) -> None:
    async with stack.sessions.begin() as db:
        for statement in statements:
            await db.execute(text(statement), values)
