"""One attempt: a claim that took too long leads to no call, and no answer leaves a call unrecorded."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from sqlalchemy import text

from activities import sending
from activities.sending import _call
from domain.kinds import Priority
from domain.push import Environment, Provider, Push, Route
from push.apns.sender import ApnsSender
from push.limiter.registry import DEFAULT_TIMINGS
from push.limiter.route_limiter import RouteLimiter
from push.limiter.settings import Limits
from push.sender import Answer, Delivery, Unavailable
from sending.precheck import Proceed
from simulator import Simulator
from tests.push.conftest import apns_account, made_of, make_push
from tests.stack import Stack, iphone
from tests.support.timelines import timeline

ROUTE = Route(Provider.APNS, None, Environment.PRODUCTION)

_FUNCTION = """
    CREATE FUNCTION slow_first_claim() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF EXISTS (SELECT FROM push_tasks WHERE task_id = NEW.task_id AND user_id = TG_ARGV[0]) THEN
                PERFORM pg_sleep(5.1);
            END IF;
            RETURN NEW;
        END $$
"""
_TRIGGER = """
    CREATE TRIGGER slow_first_claim BEFORE INSERT ON push_attempts
        FOR EACH ROW WHEN (NEW.number = 1) EXECUTE FUNCTION slow_first_claim('{user_id}')
"""


async def unreadable(push: Push) -> Answer:
    """Make a call whose answer nobody can read."""
    raise TypeError(f"not an answer to {push.kind}")


async def unanswered(_: Push) -> Answer:
    """Make a call whose answer never came, as far as the connection knows."""
    raise Unavailable("answer_timeout", Delivery.UNKNOWN)


async def test_an_answer_that_nobody_can_read_is_trouble_of_unknown_fate(
    simulator: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    limiter = RouteLimiter(ROUTE, Limits(1, None), DEFAULT_TIMINGS)
    limiter.share(1.0)
    go = Proceed(make_push("ab" * 32), ROUTE, uuid4(), 1, datetime.now(UTC), datetime.now(UTC), "alice")

    async with limiter.enter(Priority.REMINDER, uuid4()) as permit:
        attempted = await _call(permit, unreadable, go, ApnsSender(apns_account(simulator)), time.monotonic())

    assert made_of(attempted.result) == (Unavailable, "unreadable_answer", Delivery.UNKNOWN, None)
    assert "TypeError" in capsys.readouterr().out


async def test_a_call_that_outlasted_all_its_bounds_is_blamed_on_the_worker_that_stood_still(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "_STOOD_STILL", 0.0)
    limiter = RouteLimiter(ROUTE, Limits(1, None), DEFAULT_TIMINGS)
    limiter.share(1.0)
    go = Proceed(make_push("ab" * 32), ROUTE, uuid4(), 1, datetime.now(UTC), datetime.now(UTC), "alice")

    async with limiter.enter(Priority.REMINDER, uuid4()) as permit:
        attempted = await _call(permit, unanswered, go, ApnsSender(apns_account(simulator)), time.monotonic())

    assert made_of(attempted.result) == (Unavailable, "stalled_in_call", Delivery.UNKNOWN, None)


async def test_no_call_is_made_with_a_claim_that_took_more_than_five_seconds(
    stack: Stack, simulator: Simulator
) -> None:
    user, phone = stack.user(), iphone()
    await user.register(phone)

    async with _slow_first_claim(stack, user.user_id):
        session_id = await user.start_fast(due_in=0.5)
        assert await stack.finished(session_id) == "accepted"

    joined = (
        "SELECT outcome, a.reason, latency_ms = 0 AS no_call FROM push_attempts a JOIN push_tasks USING (task_id)"
        " WHERE conversation_id = :id ORDER BY number"
    )
    attempts = [tuple(row) for row in await stack.rows(joined, id=session_id)]
    assert attempts == [("unavailable", "claim_too_old", True), ("accepted", None, False)]
    [request] = simulator.requests.for_token(phone.token)
    [task] = await stack.tasks(session_id)
    assert (request.received_at - task.due_at).total_seconds() > 5.1
    assert [line.times_received for line in simulator.phone(phone.token).screen] == [1]
    told = await timeline(stack.user(None, "support"), user.user_id)
    [late, again] = [item["text"] for item in told if item["event"] == "attempted"]
    why = ": the database did not answer in time, or the worker stalled, so the check had to be made again."
    assert late.endswith(why)
    assert again.endswith(" (call 2).")
    [ended, _] = [item["text"] for item in told if item["event"] == "answered"]
    assert ended.startswith("Call 1 to Apple was not made: the database did not answer in time")


@asynccontextmanager
async def _slow_first_claim(stack: Stack, user_id: str) -> AsyncIterator[None]:
    """Let PostgreSQL take its time with the first attempt of somebody's pushes."""
    async with stack.sessions.begin() as db:
        await db.execute(text(_FUNCTION))
        await db.execute(text(_TRIGGER.format(user_id=user_id)))
    try:
        yield
    finally:
        async with stack.sessions.begin() as db:
            await db.execute(text("DROP FUNCTION slow_first_claim CASCADE"))
