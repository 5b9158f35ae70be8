"""Outcomes are on record whatever they hold and whatever is stuck, and no push is sent again for want of one."""

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from db.engine import make_engine, make_sessions
from db.push_attempts import Ended
from db.push_tasks import Update
from domain.push import Environment, Provider, Route, TaskState
from push.sender import Accepted
from sending.attempts import check_pushes
from sending.outcomes import (
    NotStored,
    Outcome,
    Recording,
    ReportedToken,
    answered,
    end_attempts,
    never_called,
    note_calls,
)
from sending.precheck import Claim, Final, Proceed
from tests.routes.worker_harness import due_now, keep_from_takeover
from tests.stack import Stack, eventually, iphone, uncommitted

ROUTE = Route(Provider.APNS, None, Environment.PRODUCTION)
HOLD = "SELECT 1 FROM push_tasks WHERE task_id = :id FOR UPDATE"


@pytest.mark.parametrize("odd", ["\x00", "\ud800", "a\x00b", "5c0\x00-4e"])
async def test_an_acceptance_whose_id_no_text_may_hold_is_stored_without_it(stack: Stack, odd: str) -> None:
    [go] = await _begun(stack, 1)

    stored = await Recording(stack.sessions).store(_accepted(go, odd), ROUTE, claimed_at=time.monotonic())

    assert stored.state is TaskState.ACCEPTED
    assert await _attempts(stack, go.push.task_id) == [("accepted", None, None)]
    assert await _task(stack, go.push.task_id) == ("accepted", None)


@pytest.mark.parametrize("odd", ["\x00", "\ud800"])
async def test_a_refusal_whose_reason_no_text_may_hold_is_stored_and_its_token_is_not_pushed_to(
    stack: Stack, odd: str
) -> None:
    [go] = await _begun(stack, 1)
    ended = Ended(go.push.attempt_id, "unregistered", odd, 1, None)
    dead = ReportedToken(ROUTE, go.device_id, go.push.token, datetime.now(UTC), odd)
    outcome = Outcome(ended, Update(go.push.task_id, TaskState.UNREGISTERED, odd), ROUTE, (dead,))

    stored = await Recording(stack.sessions).store(outcome, ROUTE, claimed_at=time.monotonic())

    assert (stored.state, stored.outcome.update.reason) == (TaskState.UNREGISTERED, "unstorable_answer")
    assert await _attempts(stack, go.push.task_id) == [("unregistered", "unstorable_answer", None)]
    assert await stack.rows("SELECT 1 FROM device_tokens WHERE id = :id AND NOT active", id=go.device_id)


async def test_odd_answers_and_a_stuck_row_cost_the_outcomes_beside_them_nothing(stack: Stack) -> None:
    stuck, odd, *others = await _begun(stack, 20)
    recording = Recording(stack.sessions)

    def store(go: Proceed, provider_id: str) -> asyncio.Future[object]:
        return asyncio.ensure_future(recording.store(_accepted(go, provider_id), ROUTE, claimed_at=time.monotonic()))

    async with uncommitted(stack, HOLD, id=stuck.push.task_id):
        waits = store(stuck, "fine")
        await asyncio.gather(store(odd, "\x00"), *(store(go, "fine") for go in others))
        assert not waits.done()
        await eventually(lambda: _is_noted(stack, stuck.push.task_id))
    await waits

    for go in (stuck, odd, *others):
        assert await _task(stack, go.push.task_id) == ("accepted", None)


async def test_a_push_that_was_taken_while_its_row_was_stuck_is_not_sent_again_though_its_worker_is_gone(
    stack: Stack,
) -> None:
    [go] = await _begun(stack, 1)
    long_ago = "UPDATE push_attempts SET started_at = started_at - interval '2 hours' WHERE task_id = :id"
    async with uncommitted(stack, HOLD, id=go.push.task_id):
        await note_calls(stack.sessions, [_accepted(go, "fine", timedelta(hours=1))])
    async with stack.sessions.begin() as db:
        await db.execute(text(long_ago), {"id": go.push.task_id})
    assert (await _task(stack, go.push.task_id))[0] == "pending"

    [verdict] = await check_pushes(stack.sessions, [Claim(go.push.task_id)])

    assert isinstance(verdict, Final)
    assert (verdict.state, verdict.reason) == (TaskState.ACCEPTED, None)
    assert await _task(stack, go.push.task_id) == ("accepted", None)
    assert await _attempts(stack, go.push.task_id) == [("accepted", None, "fine")]
    query = """
        SELECT extract(epoch FROM accepted_at - started_at) AS seconds
          FROM push_tasks JOIN push_attempts USING (task_id) WHERE task_id = :id
    """
    [row] = await stack.rows(query, id=go.push.task_id)
    assert row.seconds == pytest.approx(3600, abs=10)


async def test_a_push_was_accepted_when_the_provider_said_so_however_late_that_is_recorded(stack: Stack) -> None:
    [go] = await _begun(stack, 1)

    await end_attempts(stack.sessions, [replace(_accepted(go, "fine"), answered_at=time.monotonic() - 60)])

    query = "SELECT extract(epoch FROM settled_at - accepted_at) AS ago FROM push_tasks WHERE task_id = :id"
    [row] = await stack.rows(query, id=go.push.task_id)
    assert 59 < row.ago < 61


@pytest.mark.parametrize("outcome", ["accepted", None])
@pytest.mark.parametrize("at", ["infinity", "-infinity", "294276-12-31 23:59:59"])
async def test_a_call_that_began_at_an_odd_instant_holds_up_neither_its_push_nor_those_beside_it(
    stack: Stack, at: str, outcome: str | None
) -> None:
    called, beside = await due_now(stack, [iphone(), iphone()])
    await check_pushes(stack.sessions, [Claim(called.task_id)])
    odd = """
        UPDATE push_attempts SET started_at = CAST(CAST(:at AS text) AS timestamptz), outcome = :outcome,
               latency_ms = 2000 WHERE task_id = :id
    """
    async with stack.sessions.begin() as db:
        await db.execute(text(odd), {"id": called.task_id, "at": at, "outcome": outcome})

    verdicts = await check_pushes(stack.sessions, [Claim(called.task_id), Claim(beside.task_id)])

    assert [type(each) for each in verdicts] == [Final if outcome else Proceed, Proceed]
    if outcome:
        late = "SELECT accepted_at - due_at BETWEEN '0' AND '1 minute' AS is_sound FROM push_tasks WHERE task_id = :id"
        [row] = await stack.rows(late, id=called.task_id)
        assert row.is_sound


@pytest.mark.parametrize("asked_late", [True, False])
async def test_a_push_was_accepted_soon_after_its_claim_though_worker_or_database_stood_still_since(
    stack: Stack, *, asked_late: bool
) -> None:
    """Whatever stands still between our look at the clock and PostgreSQL's, the answer came soon after the claim."""
    [go] = await _begun(stack, 1)
    go = replace(go, began_at=go.began_at - timedelta(hours=1))

    accepted = answered(go, Accepted("fine"), latency=0.1, dead_tokens=(), since_claim=2.0 if asked_late else 7200.0)
    await end_attempts(stack.sessions, [accepted])

    query = "SELECT extract(epoch FROM settled_at - accepted_at) AS ago FROM push_tasks WHERE task_id = :id"
    [row] = await stack.rows(query, id=go.push.task_id)
    assert row.ago == pytest.approx(3598 if asked_late else 0, abs=10)


@pytest.mark.parametrize("turned", [True, False])
async def test_a_call_that_was_not_made_undoes_no_acceptance_that_is_recorded_with_it(
    stack: Stack, *, turned: bool
) -> None:
    """As after a restart of PostgreSQL: a claim of which no word came is closed while the next one was accepted."""
    [go] = await _begun(stack, 1)
    both = [_accepted(go, "fine"), never_called(uuid4(), go.push.task_id, "claim_too_old")]

    await end_attempts(stack.sessions, both[::-1] if turned else both)

    assert await _task(stack, go.push.task_id) == ("accepted", None)
    assert await _attempts(stack, go.push.task_id) == [("accepted", None, "fine")]


async def test_a_refusal_of_before_a_redrive_settles_nothing(stack: Stack) -> None:
    [go] = await _begun(stack, 1)
    refused = Ended(go.push.attempt_id, "rejected", "BadTopic", 1, None)
    await note_calls(stack.sessions, [Outcome(refused, Update(go.push.task_id, TaskState.REJECTED, "BadTopic"))])
    async with stack.sessions.begin() as db:
        again = text("UPDATE push_tasks SET again_at = clock_timestamp() WHERE task_id = :id")
        await db.execute(again, {"id": go.push.task_id})

    [verdict] = await check_pushes(stack.sessions, [Claim(go.push.task_id)])

    assert isinstance(verdict, Proceed)


async def test_an_attempt_that_nobody_used_is_forgotten(stack: Stack) -> None:
    [go] = await _begun(stack, 1)

    Recording(stack.sessions).store_later(never_called(go.push.attempt_id, go.push.task_id, "claim_too_old"))

    async def is_forgotten() -> bool:
        return not await _attempts(stack, go.push.task_id)

    await eventually(is_forgotten)
    [task] = await stack.rows("SELECT * FROM push_tasks WHERE task_id = :id", id=go.push.task_id)
    assert (task.state, task.attempt_count) == ("pending", 0)


async def test_a_claim_of_which_no_word_came_takes_its_push_from_no_other_worker(stack: Stack) -> None:
    """It is closed once PostgreSQL is back; by then another worker may hold the push, or call."""
    held, called = await due_now(stack, [iphone() for _ in range(2)])
    holder = await keep_from_takeover(stack, [held])
    await check_pushes(stack.sessions, [Claim(called.task_id)])
    now = "SELECT state, held_by, next_attempt_at IS NULL AS is_called FROM push_tasks WHERE task_id = ANY(:ids)"

    both = [never_called(uuid4(), each.task_id, "claim_too_old") for each in (held, called)]
    await end_attempts(stack.sessions, both)

    rows = await stack.rows(f"{now} ORDER BY is_called", ids=[held.task_id, called.task_id])
    assert [tuple(row) for row in rows] == [("pending", holder, False), ("pending", None, True)]
    assert await _attempts(stack, called.task_id) == [(None, None, None)]


async def test_an_outcome_without_a_call_holds_its_push_only_once_those_before_it_are_held(stack: Stack) -> None:
    first, last = sorted((go.push for go in await _begun(stack, 2)), key=lambda push: push.task_id)
    outcomes = [never_called(each.attempt_id, each.task_id, "claim_too_old") for each in (last, first)]
    outcomes[1] = Outcome(
        Ended(first.attempt_id, "accepted", None, 1, None), Update(first.task_id, TaskState.ACCEPTED, None)
    )
    async with uncommitted(stack, HOLD, id=first.task_id):
        recording = asyncio.ensure_future(end_attempts(stack.sessions, outcomes))

        async def waits() -> bool:
            return recording.done() or await stack.someone_waits_for_a_lock()

        await eventually(waits)
        free = await stack.rows(f"{HOLD} SKIP LOCKED", id=last.task_id)
        with pytest.raises(DBAPIError):
            await recording

    assert free


async def test_an_outcome_outlasts_a_database_that_is_away_for_longer_than_its_lease(stack: Stack) -> None:
    [go] = await _begun(stack, 1)
    engine = make_engine("postgresql://postgres@127.0.0.1:1/away")
    recording = Recording(make_sessions(engine))
    long_ago = time.monotonic() - 15.9
    with pytest.raises(NotStored):
        await recording.store(_accepted(go, "fine"), ROUTE, claimed_at=long_ago)
    with pytest.raises(NotStored):
        await recording.store_kept(go.push.task_id)
    assert await recording.store_kept(UUID(int=0)) is None
    await engine.dispose()


async def _begun(stack: Stack, count: int) -> list[Proceed]:
    planned = await due_now(stack, [iphone() for _ in range(count)])
    goes = await check_pushes(stack.sessions, [Claim(due.task_id) for due in planned])
    return [go for go in goes if isinstance(go, Proceed)]


def _accepted(go: Proceed, provider_id: str, latency: timedelta = timedelta(milliseconds=1)) -> Outcome:
    ended = Ended(go.push.attempt_id, "accepted", None, latency // timedelta(milliseconds=1), provider_id)
    return Outcome(ended, Update(go.push.task_id, TaskState.ACCEPTED, None))


async def _attempts(stack: Stack, task_id: UUID) -> list[tuple[str | None, str | None, str | None]]:
    rows = await stack.rows("SELECT outcome, reason, provider_id FROM push_attempts WHERE task_id = :id", id=task_id)
    return [tuple(row) for row in rows]


async def _task(stack: Stack, task_id: UUID) -> tuple[str, str | None]:
    [row] = await stack.rows("SELECT state, last_reason FROM push_tasks WHERE task_id = :id", id=task_id)
    return (row.state, row.last_reason)


async def _is_noted(stack: Stack, task_id: UUID) -> bool:
    return await _attempts(stack, task_id) == [("accepted", None, "fine")]
