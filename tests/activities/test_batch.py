"""One ask that cannot be answered takes nobody down who happened to come along."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from typing import TypeVar
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from activities.reminders import Moment, OpenReminder, ReminderOpening
from db.batch import LANES, Batch
from db.push_attempts import Ended
from db.push_tasks import Update
from domain.push import TaskState
from sending.attempts import check_pushes, unheld_pushes
from sending.outcomes import Outcome, RecordedOutcome, end_attempts, unheld_outcomes
from sending.precheck import Claim, Deferred, Proceed
from tests.busy import in_time, soon
from tests.routes.worker_harness import due_now, keep_from_takeover
from tests.stack import Stack, eventually, iphone, uncommitted

SOME = 9
_LONG = 1000  # turns of the loop: whatever the clock says, the others need a few

Ask = TypeVar("Ask")


class Halves:
    """Halves even numbers; a batch with an odd one fails as a whole."""

    def __init__(self) -> None:
        self.batches: list[Sequence[int]] = []

    async def __call__(self, asks: Sequence[int]) -> list[int]:
        """Halve all of them, or none."""
        self.batches.append(asks)
        await asyncio.sleep(0)
        if any(ask % 2 for ask in asks):
            raise ValueError("odd")
        return [ask // 2 for ask in asks]


class Stuck:
    """Negates numbers; zero is stuck: all in its batch wait, and fail."""

    def __init__(self) -> None:
        self.waits = self.runs = self.most_at_once = self._at_once = 0

    async def __call__(self, asks: Sequence[int]) -> list[int]:
        """Negate all of them, or none."""
        self.runs += 1
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        for _ in range(_LONG if 0 in asks else 1):
            await asyncio.sleep(0)
        self._at_once -= 1
        if 0 in asks:
            self.waits += 1
            raise ValueError("stuck")
        return [-ask for ask in asks]


async def test_who_asks_in_one_turn_is_answered_in_one_batch() -> None:
    run = Halves()
    batch = Batch(run)

    answers = await asyncio.gather(*(batch.ask(ask) for ask in (2, 4, 6)))

    assert answers == [1, 2, 3]
    assert run.batches == [[2, 4, 6]]


async def test_a_small_batch_that_fails_is_asked_singly_and_at_once() -> None:
    run = Halves()
    batch = Batch(run)

    answers = await asyncio.gather(*(batch.ask(ask) for ask in (2, 4, 5, 6)), return_exceptions=True)

    assert [answer if isinstance(answer, int) else str(answer) for answer in answers] == [1, 2, "odd", 3]
    assert run.batches == [[2, 4, 5, 6], [2], [4], [5], [6]]


async def test_one_that_is_stuck_costs_199_others_two_waits_and_few_connections() -> None:
    run = Stuck()
    batch = Batch(run)

    async def waits_before(ask: int) -> int:
        assert await batch.ask(ask) == -ask
        return run.waits

    stuck, *waits = await asyncio.gather(
        batch.ask(0), *(waits_before(ask) for ask in range(1, 200)), return_exceptions=True
    )

    assert isinstance(stuck, ValueError)
    assert max(each for each in waits if isinstance(each, int)) == 2
    assert sum(each == 1 for each in waits) >= 180
    assert len(waits) == 199
    assert run.most_at_once == LANES
    assert run.runs < 35


async def test_an_exception_among_the_answers_is_its_askers_alone() -> None:
    async def judge(asks: Sequence[int]) -> list[int | Exception]:
        return [ValueError("odd") if ask % 2 else ask // 2 for ask in asks]

    answers = await asyncio.gather(*(Batch(judge).ask(ask) for ask in (2, 5)), return_exceptions=True)

    assert [answer if isinstance(answer, int) else str(answer) for answer in answers] == [1, "odd"]


async def test_a_database_that_is_away_is_not_asked_once_for_each() -> None:
    batches: list[int] = []

    async def away(asks: Sequence[int]) -> list[int]:
        batches.append(len(asks))
        raise ConnectionRefusedError

    batch = Batch(away)
    answers = await asyncio.gather(*(batch.ask(ask) for ask in range(100)), return_exceptions=True)

    assert {type(answer) for answer in answers} == {ConnectionRefusedError}
    assert batches == [100]


@pytest.mark.parametrize("leaves", ["cancelled", "out of patience"])
async def test_an_answer_for_somebody_who_has_left_is_not_lost(leaves: str) -> None:
    go, unheard = asyncio.Event(), list[int]()

    async def slow(asks: Sequence[int]) -> list[int]:
        await go.wait()
        return list(asks)

    batch = Batch(slow, within=0.05 if leaves == "out of patience" else 5.0, unheard=unheard.append)
    asking = asyncio.ensure_future(batch.ask(7))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    if leaves == "cancelled":
        asking.cancel()
    with pytest.raises((asyncio.CancelledError, TimeoutError)):
        await asking
    assert unheard == []

    async def is_reported() -> bool:
        return unheard == [7]

    go.set()
    await eventually(is_reported)


async def test_batches_that_hang_hold_up_nobody_for_good() -> None:
    hung = list[int]()

    async def hangs_at_first(asks: Sequence[int]) -> list[int]:
        if len(hung) < 3:
            hung.extend(asks)
            await asyncio.Event().wait()
        return list(asks)

    batch = Batch(hangs_at_first, most=1, within=0.2)  # also for those that are answered, within a turn or two
    refused = await asyncio.gather(*(batch.ask(ask) for ask in range(3)), return_exceptions=True)

    assert [type(answer) for answer in refused] == [TimeoutError] * 3
    assert await batch.ask(7) == 7
    assert await batch.ask_alone(8) == 8


async def test_an_answer_that_comes_as_its_asker_is_cancelled_is_not_lost() -> None:
    unheard = list[int]()
    asking: asyncio.Future[int]

    async def at_that_moment(asks: Sequence[int]) -> list[int]:
        asyncio.get_running_loop().call_soon(asking.cancel)  # after the answer is given, before it is taken
        return list(asks)

    asking = asyncio.ensure_future(Batch(at_that_moment, unheard=unheard.append).ask(7))

    with pytest.raises(asyncio.CancelledError):
        await asking
    assert unheard == [7]


async def test_answers_that_are_too_few_leave_nobody_waiting() -> None:
    async def too_few(asks: Sequence[int]) -> list[int]:
        return list(asks[1:])

    with pytest.raises(ValueError, match="zip"):
        await Batch(too_few).ask(1)


async def test_a_batch_holds_at_most_so_many_and_at_most_so_many_run() -> None:
    run = Halves()
    batch = Batch(run, most=2, in_flight=1)

    answers = await asyncio.gather(*(batch.ask(ask) for ask in (0, 2, 4, 6, 8)))

    assert answers == [0, 1, 2, 3, 4]
    assert run.batches == [[0, 2], [4, 6], [8]]


async def test_who_gave_up_is_not_asked_for_and_holds_up_nobody() -> None:
    run = Halves()
    batch = Batch(run, in_flight=1)
    first = asyncio.ensure_future(batch.ask(2))
    second, third = asyncio.ensure_future(batch.ask(4)), asyncio.ensure_future(batch.ask(6))
    await asyncio.sleep(0)

    second.cancel()

    assert (await first, await third) == (1, 3)
    assert 4 not in [ask for asks in run.batches for ask in asks]


async def test_a_claim_that_postgresql_refuses_fails_alone(stack: Stack) -> None:
    bad, *good = await _planned(stack)
    taken = (  # the number of its next attempt is taken, which no code of ours brings about
        "INSERT INTO push_attempts (attempt_id, task_id, number, started_at, outcome)"
        " VALUES (gen_random_uuid(), :id, 1, now(), 'unknown')"
    )
    async with stack.sessions.begin() as db:
        await db.execute(text(taken), {"id": bad})
    begin = Batch(partial(check_pushes, stack.sessions))

    refused, *verdicts = await _ask_for_each(begin.ask, [Claim(task_id) for task_id in (bad, *good)])

    assert isinstance(refused, IntegrityError)
    assert all(isinstance(verdict, Proceed) for verdict in verdicts)
    begun = await stack.rows(
        "SELECT task_id FROM push_attempts WHERE outcome IS NULL AND task_id = ANY(:ids)", ids=good
    )
    assert {row.task_id for row in begun} == set(good)


async def test_one_stuck_row_holds_up_no_claim_and_no_outcome_of_199_others(stack: Stack) -> None:
    task_ids = await _many_planned(stack, 200)
    begin = Batch(partial(check_pushes, stack.sessions))
    stuck, *others = task_ids

    async with soon(5):  # halving one part after the other took 7 to 28
        async with uncommitted(stack, "SELECT 1 FROM push_tasks WHERE task_id = :id FOR UPDATE", id=stuck):
            refused, *goes = await _ask_for_each(begin.ask, [Claim(task_id) for task_id in task_ids])
        goes.insert(0, await begin.ask(Claim(stuck)))
        end = Batch(partial(end_attempts, stack.sessions))
        rejected = [_rejected(go) for go in goes if isinstance(go, Proceed)]
        async with uncommitted(stack, "SELECT 1 FROM push_tasks WHERE task_id = :id FOR UPDATE", id=stuck):
            unstored, *stored = await _ask_for_each(end.ask, rejected)

    assert isinstance(refused, DBAPIError)
    assert isinstance(unstored, DBAPIError)
    assert stored == [RecordedOutcome(TaskState.REJECTED)] * len(others)


HELD_BY_ONE = {
    "their fast": "SELECT 1 FROM fasting_sessions WHERE user_id = :user FOR UPDATE",
    "their log": "SELECT 1 FROM log_heads WHERE user_id = :user FOR UPDATE",
    "their phones": "SELECT 1 FROM device_tokens WHERE user_id = :user FOR UPDATE",
    "their pushes": "SELECT 1 FROM push_tasks WHERE user_id = :user FOR UPDATE",
}


@pytest.mark.parametrize("what", HELD_BY_ONE)
async def test_what_one_user_holds_up_with_all_their_pushes_costs_the_others_one_wait(stack: Stack, what: str) -> None:
    user_id = f"mallory-{uuid4()}"
    all_due = await due_now(stack, [iphone() for _ in range(60)], of_one=user_id)
    await keep_from_takeover(stack, all_due)
    mallorys = [due.task_id for due in all_due]
    async with stack.sessions.begin() as db:  # so that the check enters it, as it does with one that was armed
        await db.execute(text("DELETE FROM log_items WHERE user_id = :user"), {"user": user_id})
        entered = "DELETE FROM messages WHERE id IN (SELECT message_id FROM push_tasks WHERE user_id = :user)"
        await db.execute(text(entered), {"user": user_id})
    others = await _many_planned(stack, 140)
    task_ids = [each for pair in zip(mallorys, others, strict=False) for each in pair] + others[60:]
    begin = Batch(partial(check_pushes, stack.sessions), unheld=partial(unheld_pushes, stack.sessions))
    asked_at, waits = time.monotonic(), list[float]()

    async def ask(task_id: UUID) -> object:
        verdict = await begin.ask(Claim(task_id))
        waits.append(time.monotonic() - asked_at)
        return verdict

    async with uncommitted(stack, HELD_BY_ONE[what], user=user_id):
        answers = await asyncio.gather(*map(ask, task_ids), return_exceptions=True)
    verdicts = dict(zip(task_ids, answers, strict=True))

    assert {type(verdicts[each]) for each in others} == {Proceed}
    assert {type(verdicts[each]) for each in mallorys} == {DBAPIError}
    assert len(waits) == 140
    assert in_time(max(waits), 2.0)  # in parts, and singly, sixty waits of 0.3 s, three at a time, were more than 6


async def test_many_stuck_pushes_cost_the_outcomes_of_others_one_wait(stack: Stack) -> None:
    task_ids = await _many_planned(stack, 200)
    goes = await check_pushes(stack.sessions, [Claim(task_id) for task_id in task_ids])
    rejected = [_rejected(go) for go in goes if isinstance(go, Proceed)]
    stuck = task_ids[::4]
    end = Batch(partial(end_attempts, stack.sessions), unheld=partial(unheld_outcomes, stack.sessions))
    asked_at = time.monotonic()

    async with uncommitted(stack, "SELECT 1 FROM push_tasks WHERE task_id = ANY(:ids) FOR UPDATE", ids=stuck):
        answers = await _ask_for_each(end.ask, rejected)
    took = time.monotonic() - asked_at

    by_task = dict(zip([each.update.task_id for each in rejected], answers, strict=True))
    assert {type(by_task[each]) for each in stuck} == {DBAPIError}
    assert {by_task[each] for each in set(task_ids) - set(stuck)} == {RecordedOutcome(TaskState.REJECTED)}
    assert in_time(took, 2.5)  # singly it was 5 and more for the stuck ones alone


async def test_who_is_held_for_a_moment_only_is_answered(stack: Stack) -> None:
    first, *others = task_ids = await _many_planned(stack, 9)
    begin = Batch(partial(check_pushes, stack.sessions), unheld=partial(unheld_pushes, stack.sessions))

    async with uncommitted(stack, "SELECT 1 FROM push_tasks WHERE task_id = :id FOR UPDATE", id=first):
        asked = {task_id: asyncio.ensure_future(begin.ask(Claim(task_id))) for task_id in task_ids}
        await asyncio.wait([asked[each] for each in others])
        assert not asked[first].done()

    assert {type(await each) for each in asked.values()} == {Proceed}


@pytest.mark.parametrize("odd", ["kind = 'hologram'", "state = 'teleported'", "provider = 'pigeon'"])
async def test_a_row_of_a_newer_release_is_not_judged_and_costs_the_others_nothing(stack: Stack, odd: str) -> None:
    bad, *good = task_ids = await _many_planned(stack, 5)
    async with stack.sessions.begin() as db:
        await db.execute(text(f"UPDATE push_tasks SET {odd} WHERE task_id = :id"), {"id": bad})

    refused, *verdicts = await check_pushes(stack.sessions, [Claim(task_id) for task_id in task_ids])

    assert isinstance(refused, Deferred)
    assert refused.hindrance.reason == "not_understood"
    assert [verdict.push.task_id for verdict in verdicts if isinstance(verdict, Proceed)] == good
    known = "UPDATE push_tasks SET kind = 'reminder', state = 'dead', provider = 'apns' WHERE task_id = :id RETURNING *"
    async with stack.sessions.begin() as db:
        assert (await db.execute(text(known), {"id": bad})).one().attempt_count == 0


async def test_an_outcome_that_postgresql_refuses_fails_alone(stack: Stack) -> None:
    task_ids = await _planned(stack)
    goes = await check_pushes(stack.sessions, [Claim(task_id) for task_id in task_ids])
    bad, *good = [_rejected(go) for go in goes if isinstance(go, Proceed)]
    bad = Outcome(bad.ended, Update(bad.update.task_id, TaskState.REJECTED, "\x00"))  # no text for PostgreSQL
    end = Batch(partial(end_attempts, stack.sessions))

    refused, *stored = await _ask_for_each(end.ask, [bad, *good])

    assert isinstance(refused, DBAPIError)
    assert not any(isinstance(answer, Exception) for answer in stored)
    states = await stack.rows("SELECT task_id, state FROM push_tasks WHERE task_id = ANY(:ids)", ids=task_ids)
    assert {row.task_id for row in states if row.state == "rejected"} == {outcome.update.task_id for outcome in good}
    assert {row.task_id for row in states if row.state == "pending"} == {bad.update.task_id}


def _rejected(go: Proceed) -> Outcome:
    ended = Ended(go.push.attempt_id, "rejected", "no", 1, None)
    return Outcome(ended, Update(go.push.task_id, TaskState.REJECTED, "no"))


async def _many_planned(stack: Stack, count: int) -> list[UUID]:
    """Plan a reminder for as many phones of one person."""
    all_due = await due_now(stack, [iphone() for _ in range(count)])
    await keep_from_takeover(stack, all_due)
    return [due.task_id for due in all_due]


async def _ask_for_each(ask: Callable[[Ask], Awaitable[object]], asks: Sequence[Ask]) -> list[object]:
    return await asyncio.gather(*(ask(each) for each in asks), return_exceptions=True)


async def _planned(stack: Stack) -> list[UUID]:
    """Plan a push task each for some people whose reminders are not due for long."""
    opening = ReminderOpening(stack.sessions)
    asks = []
    for _ in range(SOME):
        user = stack.user()
        await user.register(iphone())
        session_id = await user.start_fast(due_in=36_000)
        session = (await user.call("GET", f"/v1/fasting-sessions/{session_id}")).json()
        due_at = datetime.fromisoformat(session["reminders"][0]["due_at"])
        asks.append(OpenReminder(session_id, 1, due_at, Moment.ARMING))
    return [send.task_id for opened in await asyncio.gather(*map(opening.open_reminder, asks)) for send in opened.sends]
