"""What a lost worker held is sent by the living: once, when it is due, and not if it is no longer wanted."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID, uuid4

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.sending import SendPush
from db import holds, workers
from db.engine import as_of_one_moment
from db.views import present
from domain.kinds import Kind
from domain.push import PlannedSend, Provider, TaskState
from domain.timeline import TimelinePart, WaitsFor
from fleet.takeover import Hold, Holds, Others, TakeoverTimings
from sending.attempts import check_pushes
from sending.outcomes import end_attempts, never_called
from sending.precheck import ATTEMPT_LEASE, Claim, Hindered, Hindrance, Proceed, TakenOver
from simulator import Simulator
from telemetry import metrics
from tests.busy import lead
from tests.housekeeping.sweeps import change
from tests.routes.worker_harness import Due, WorkerHarness, due_now, states, worker_harness
from tests.stack import Phone, Stack, android, eventually, iphone, refuse_once, uncommitted

QUICK = TakeoverTimings(shows_life_every=0.05, lost_after=12, looks_every=0.2, batch=20)
ALL = holds.Part(0, 1)


async def test_what_a_lost_worker_held_is_sent_once_by_all_the_living(
    without_worker: Stack, simulator: Simulator
) -> None:
    phones = [iphone() for _ in range(101)]
    lost, kept = await due_now(without_worker, phones[:-1]), await due_now(without_worker, phones[-1:])
    dead, living = await _joined(without_worker), await _joined(without_worker)
    await _hold(without_worker, dead, lost)
    await _hold(without_worker, living, kept)
    counted = _taken_over()
    async with _shows_life(without_worker, living), AsyncExitStack() as until_all_live:
        await until_all_live.enter_async_context(_shows_life(without_worker, dead))
        async with _taking(without_worker) as one, _taking(without_worker) as other:
            await eventually(lambda: _show_life(without_worker, 4))
            await until_all_live.aclose()
            await eventually(lambda: _are(without_worker, lost, "accepted"))

    assert [len(simulator.requests.for_token(phone.token)) for phone in phones] == [1] * 100 + [0]
    parts = [[taken for taken in each if taken in _ids(lost)] for each in (one, other)]
    assert sorted(each for part in parts for each in part) == sorted(_ids(lost))
    assert min(map(len, parts)) >= 20  # a batch at a time, each another half first
    assert _taken_over() - counted >= 100
    assert await states(without_worker, kept) == {(TaskState.PENDING, None): 1}
    rows = "SELECT DISTINCT held_by, attempt_count FROM push_tasks WHERE task_id = ANY(:ids)"
    assert [tuple(row) for row in await without_worker.rows(rows, ids=_ids(lost))] == [(None, 1)]


async def test_nothing_is_taken_over_before_it_is_due(without_worker: Stack, simulator: Simulator) -> None:
    phone = iphone()
    [due] = await due_now(without_worker, [phone])
    await _hold(without_worker, uuid4(), [due])  # a worker without a row: stopped, or forgotten by its successor
    later = "due_at = clock_timestamp() + interval '0.8 s', next_attempt_at = clock_timestamp() + interval '0.8 s'"
    await change(without_worker, f"UPDATE push_tasks SET {later} WHERE task_id = :id", id=due.task_id)
    ends = "UPDATE fasting_sessions SET ends_at = t.due_at + interval '30 minutes' FROM push_tasks t"
    await change(without_worker, f"{ends} WHERE id = t.conversation_id AND t.task_id = :id", id=due.task_id)
    async with _taking(without_worker):
        await simulator.phones.received(phone.token)

    [task] = await without_worker.rows("SELECT due_at FROM push_tasks WHERE task_id = :id", id=due.task_id)
    [request] = simulator.requests.for_token(phone.token)
    assert request.received_at >= task.due_at


async def test_what_is_no_longer_wanted_is_withdrawn_by_the_one_who_took_it(
    without_worker: Stack, simulator: Simulator
) -> None:
    phone = android()
    [due] = await due_now(without_worker, [phone])
    await _hold(without_worker, uuid4(), [due])
    ended = "UPDATE fasting_sessions SET status = 'completed', ended_at = now()"
    its = "WHERE id = (SELECT conversation_id FROM push_tasks WHERE task_id = :id)"
    await change(without_worker, f"{ended} {its}", id=due.task_id)
    async with _taking(without_worker):
        await eventually(lambda: _are(without_worker, [due], "withdrawn"))

    assert await states(without_worker, [due]) == {(TaskState.WITHDRAWN, "session_ended"): 1}
    assert not simulator.requests.for_token(phone.token)


async def test_a_worker_whose_push_another_has_taken_makes_no_call_though_the_other_has_not_sent_it_either(
    without_worker: Stack, simulator: Simulator
) -> None:
    phone = iphone()
    [due] = await due_now(without_worker, [phone])
    async with worker_harness(without_worker, takeover_timings=QUICK) as frozen:
        held = frozen.dependencies.takeover.holds
        await eventually(lambda: _is_seen(held))
        worker, ask = ActivityEnvironment(), SendPush(due.task_id, due.environment, hold_seconds=lead(1.5))
        sending = asyncio.create_task(worker.run(frozen.sendings[Provider.APNS].send_push, ask))
        await eventually(lambda: _held_by(without_worker, due, held.seen_as))
        other = await _joined(without_worker)
        async with _shows_life(without_worker, other):
            await _hold(without_worker, other, [due])

            with pytest.raises(ApplicationError, match="taken_over"):
                await sending

    assert not simulator.requests.for_token(phone.token)
    assert await states(without_worker, [due]) == {(TaskState.PENDING, None): 1}


async def test_only_the_recorded_holder_passes_the_check_and_a_send_that_was_not_recorded_does(
    without_worker: Stack,
) -> None:
    one, other = await due_now(without_worker, [iphone(), android()])
    holder = uuid4()
    await _hold(without_worker, holder, [one, other])
    check = partial(check_pushes, without_worker.sessions)
    hindered = Hindered(one.task_id, Hindrance("paused", timedelta(seconds=9)), held_by=uuid4())

    assert await check([Claim(one.task_id, held_by=uuid4())]) == [TakenOver()]
    assert await check([hindered]) == [TakenOver()]
    [by_holder, by_temporal] = await check([Claim(one.task_id, held_by=holder), Claim(other.task_id)])

    assert (type(by_holder), type(by_temporal)) == (Proceed, Proceed)
    assert not await without_worker.rows("SELECT 1 FROM push_tasks WHERE held_by = :id", id=holder)


async def test_a_call_that_was_under_way_waits_for_its_lease(without_worker: Stack, simulator: Simulator) -> None:
    phone = android()
    [due] = await due_now(without_worker, [phone])
    [begun] = await check_pushes(without_worker.sessions, [Claim(due.task_id)])
    assert isinstance(begun, Proceed)
    await _hold(without_worker, uuid4(), [due])
    nobody = holds.Lost([], [Kind.REMINDER], list(Provider), unheld_for=0.0)
    async with without_worker.sessions() as db:
        taken = await holds.take(db, uuid4(), nobody, ALL, 10)
    assert due.task_id not in {each.send.task_id for each in taken}  # no next attempt is due while it is called

    assert not simulator.requests.for_token(phone.token)


async def test_what_was_being_called_when_its_worker_was_lost_is_sent_soon_after_its_lease(
    without_worker: Stack, simulator: Simulator
) -> None:
    phones = [iphone(), android()]
    [over], [still] = [await due_now(without_worker, [phone]) for phone in phones]
    await check_pushes(without_worker.sessions, [Claim(over.task_id), Claim(still.task_id)])
    began = "UPDATE push_attempts SET started_at = clock_timestamp() - CAST(:ago AS interval) WHERE task_id = :id"
    await change(without_worker, began, id=over.task_id, ago=ATTEMPT_LEASE + timedelta(milliseconds=1))
    await change(without_worker, began, id=still.task_id, ago=timedelta(seconds=1))
    async with _taking(without_worker, replace(QUICK, unheld_for=0.2)) as taken:
        await eventually(lambda: _are(without_worker, [over], "accepted"))

    assert still.task_id not in taken
    assert [len(simulator.requests.for_token(phone.token)) for phone in phones] == [1, 0]
    rows = "SELECT outcome, reason FROM push_attempts WHERE task_id = :id ORDER BY number"
    assert [tuple(row) for row in await without_worker.rows(rows, id=over.task_id)] == [
        ("unknown", "worker_lost"),
        ("accepted", None),
    ]
    said = "SELECT held_up_by FROM push_tasks WHERE task_id = :id"  # why it is late, also in its timeline
    assert [row.held_up_by for row in await without_worker.rows(said, id=over.task_id)] == ["worker_lost"]


async def test_a_loss_is_what_held_a_push_up_last_though_it_was_refused_before_that(without_worker: Stack) -> None:
    [due] = await due_now(without_worker, [iphone()])
    refused = "UPDATE push_tasks SET last_reason = :reason, held_up_by = :reason WHERE task_id = :id"
    await change(without_worker, refused, id=due.task_id, reason="ServiceUnavailable")
    await check_pushes(without_worker.sessions, [Claim(due.task_id)])
    began = "UPDATE push_attempts SET started_at = clock_timestamp() - CAST(:ago AS interval) WHERE task_id = :id"
    await change(without_worker, began, id=due.task_id, ago=ATTEMPT_LEASE)

    [again] = await check_pushes(without_worker.sessions, [Claim(due.task_id)])

    assert isinstance(again, Proceed)
    said = "SELECT held_up_by FROM push_tasks WHERE task_id = :id"
    assert [row.held_up_by for row in await without_worker.rows(said, id=due.task_id)] == ["worker_lost"]


@pytest.mark.parametrize("at", ["infinity", "294276-12-31 23:59:59", "2126-01-01"])
@pytest.mark.parametrize(("table", "column"), [("push_attempts", "started_at"), ("push_tasks", "again_at")])
async def test_a_push_that_was_called_or_redriven_at_an_odd_instant_keeps_no_other_from_being_taken_over(
    without_worker: Stack, table: str, column: str, at: str
) -> None:
    [odd], [lost] = [await due_now(without_worker, [phone]) for phone in (iphone(), iphone())]
    if table == "push_attempts":
        await check_pushes(without_worker.sessions, [Claim(odd.task_id)])
    change_to = f"UPDATE {table} SET {column} = CAST(CAST(:at AS text) AS timestamptz) WHERE task_id = :id"
    await change(without_worker, change_to, id=odd.task_id, at=at)
    await _hold(without_worker, uuid4(), [lost])
    of_all = holds.Lost([], [Kind.REMINDER], list(Provider), unheld_for=60.0)

    async with without_worker.sessions() as db:
        next_due = await holds.next_due(db, of_all, 5.0)
    async with without_worker.sessions() as db:
        taken = await holds.take(db, uuid4(), of_all, ALL, 100)

    await change(
        without_worker, "UPDATE push_tasks SET state = 'dead' WHERE task_id = ANY(:ids)", ids=_ids([odd, lost])
    )
    assert next_due is not None
    assert next_due <= 0
    assert lost.task_id in {each.send.task_id for each in taken}


async def test_what_nobody_holds_or_calls_though_it_is_due_is_sent_after_a_loss_or_a_start(
    without_worker: Stack, simulator: Simulator
) -> None:
    phones = [iphone() for _ in range(3)]
    [unheld], [called], [held] = [await due_now(without_worker, [phone]) for phone in phones]
    [begun] = await check_pushes(without_worker.sessions, [Claim(called.task_id)])
    assert isinstance(begun, Proceed)
    async with _taking(without_worker, replace(QUICK, unheld_for=0.2, unheld_until=0.0)):
        await _hold(without_worker, uuid4(), [held])
        await eventually(lambda: _are(without_worker, [held], "accepted"))
    assert await states(without_worker, [unheld]) == {(TaskState.PENDING, None): 1}

    async with _taking(without_worker, replace(QUICK, unheld_for=0.2)):
        await eventually(lambda: _are(without_worker, [unheld], "accepted"))

    assert [len(simulator.requests.for_token(phone.token)) for phone in phones] == [1, 0, 1]


async def test_a_phone_registered_after_arming_gets_what_a_lost_worker_held_for_the_others(
    without_worker: Stack, simulator: Simulator
) -> None:
    alice, bob = without_worker.user(), without_worker.user()
    armed, expired, new = iphone(), iphone(), android()
    [held] = await due_now(without_worker, [armed], of_one=alice.user_id)
    [over] = await due_now(without_worker, [expired], of_one=bob.user_id)
    await change(without_worker, "UPDATE push_tasks SET expires_at = now() WHERE task_id = :id", id=over.task_id)
    await alice.register(new)
    await bob.register(android())
    await _hold(without_worker, uuid4(), [held, over])

    async with _taking(without_worker, replace(QUICK, unheld_for=0.2)):
        await eventually(lambda: _was_called(simulator, new))
        await eventually(lambda: _are(without_worker, [held], "accepted"))
        await eventually(lambda: _are(without_worker, [over], "expired"))

    assert [len(simulator.requests.for_token(phone.token)) for phone in (armed, new, expired)] == [1, 1, 0]
    pushes = "SELECT 1 FROM push_tasks WHERE user_id = :id"
    assert len(await without_worker.rows(pushes, id=bob.user_id)) == 1


async def test_what_somebody_has_locked_keeps_no_other_push_from_being_taken_over(
    without_worker: Stack, simulator: Simulator
) -> None:
    phones = [iphone() for _ in range(3)]
    stuck, *others = await due_now(without_worker, phones)
    await _hold(without_worker, uuid4(), [stuck, *others])
    locked = "SELECT 1 FROM push_tasks WHERE task_id = :id FOR UPDATE"
    async with _taking(without_worker):
        async with uncommitted(without_worker, locked, id=stuck.task_id):
            await eventually(lambda: _are(without_worker, others, "accepted"))
        await eventually(lambda: _are(without_worker, [stuck], "accepted"))

    assert [len(simulator.requests.for_token(phone.token)) for phone in phones] == [1, 1, 1]


async def test_a_provider_that_turns_a_taken_push_away_is_asked_again(
    without_worker: Stack, simulator: Simulator
) -> None:
    phone = iphone()
    [due] = await due_now(without_worker, [phone])
    await _hold(without_worker, uuid4(), [due])
    refuse_once(simulator, phone)
    async with _taking(without_worker):
        await eventually(lambda: _are(without_worker, [due], "accepted"))

    rows = "SELECT outcome FROM push_attempts WHERE task_id = :id ORDER BY number"
    assert [row.outcome for row in await without_worker.rows(rows, id=due.task_id)] == ["unavailable", "accepted"]


async def test_a_taken_push_whose_check_the_database_did_not_make_is_checked_again(
    without_worker: Stack, simulator: Simulator
) -> None:
    """As where PostgreSQL dies soon after the worker: its taker lives, so nobody else takes the push over."""
    phone = iphone()
    [due] = await due_now(without_worker, [phone])
    await _hold(without_worker, uuid4(), [due])
    its = "SELECT 1 FROM fasting_sessions WHERE id = (SELECT conversation_id FROM push_tasks WHERE task_id = :id)"
    async with _taking(without_worker) as taken:
        async with uncommitted(without_worker, f"{its} FOR UPDATE", id=due.task_id):
            await eventually(lambda: _is_in(due, taken))
            await eventually(without_worker.someone_waits_for_a_lock)
            await eventually(lambda: _nobody_waits_for_a_lock(without_worker))
        await eventually(lambda: _are(without_worker, [due], "accepted"))

    assert len(simulator.requests.for_token(phone.token)) == 1


async def test_what_was_claimed_and_not_called_is_taken_over_when_its_worker_is_lost_then(
    without_worker: Stack, simulator: Simulator
) -> None:
    phone = iphone()
    [due] = await due_now(without_worker, [phone])
    [begun] = await check_pushes(without_worker.sessions, [Claim(due.task_id)])
    assert isinstance(begun, Proceed)
    await end_attempts(without_worker.sessions, [never_called(begun.push.attempt_id, due.task_id, "claim_too_old")])

    async with _taking(without_worker, replace(QUICK, unheld_for=0.2)):
        await eventually(lambda: _are(without_worker, [due], "accepted"))

    assert len(simulator.requests.for_token(phone.token)) == 1


async def test_a_send_that_calls_soon_is_never_recorded_and_one_that_waits_is(without_worker: Stack) -> None:
    prompt, waiting = await due_now(without_worker, [iphone(), android()])
    async with worker_harness(without_worker, takeover_timings=QUICK) as worker:
        held = worker.dependencies.takeover.holds
        await eventually(lambda: _is_seen(held))
        ask = SendPush(waiting.task_id, waiting.environment, hold_seconds=60.0)
        environment = ActivityEnvironment()
        sending = asyncio.create_task(environment.run(worker.sendings[Provider.FCM].send_push, ask))
        assert (await worker.send_once(prompt)).state is TaskState.ACCEPTED
        await eventually(lambda: _held_by(without_worker, waiting, held.seen_as))
        assert await _held_by(without_worker, prompt, None)
        environment.worker_shutdown()
        with suppress(ApplicationError):
            await sending


async def test_support_reads_that_it_is_being_taken_over_while_its_holder_is_lost_and_only_then(
    without_worker: Stack,
) -> None:
    [due] = await due_now(without_worker, [iphone()])
    living = await _joined(without_worker)

    await _hold(without_worker, living, [due])
    assert await _waits_for(without_worker, due) == WaitsFor.NOTHING
    await _hold(without_worker, uuid4(), [due])
    assert await _waits_for(without_worker, due) == WaitsFor.TAKEOVER


def test_a_worker_that_stood_still_itself_or_whose_database_did_counts_nobody_as_lost() -> None:
    slow, dead = uuid4(), uuid4()
    others = Others(lost_after=4)
    others.learn({slow: _at(0), dead: _at(0)})

    assert not any(others.learn({slow: _at(n), dead: _at(0)}) for n in (1, 2, 900))  # whatever time has passed
    assert others.lost == []
    assert others.learn({slow: _at(901), dead: _at(0)})
    assert (others.lost, others.living) == ([dead], [slow])
    assert not others.learn({slow: _at(902), dead: _at(903)})  # it had only been frozen
    assert others.lost == []


async def _waits_for(stack: Stack, send: Due) -> str:
    [task] = await stack.rows("SELECT user_id FROM push_tasks WHERE task_id = :id", id=send.task_id)
    async with stack.sessions() as db:
        await as_of_one_moment(db)
        [item] = await present.of_user(db, task.user_id, TimelinePart())
    return str(item.detail["waits_for"])


async def _joined(stack: Stack) -> UUID:
    """Let a worker be seen once."""
    worker_id = uuid4()
    async with stack.sessions.begin() as db:
        await workers.beat(db, worker_id, {}, lives=10.0)
    async with stack.sessions() as db:
        await workers.show_life(db, worker_id)
    return worker_id


async def _hold(stack: Stack, worker_id: UUID, sends: Sequence[Due]) -> None:
    async with stack.sessions() as db:
        assert len(await holds.record(db, worker_id, _ids(sends))) == len(sends)


@asynccontextmanager
async def _shows_life(stack: Stack, worker_id: UUID) -> AsyncIterator[None]:
    """Keep a worker among the living."""

    async def show() -> None:
        while True:
            async with stack.sessions() as db:
                await workers.show_life(db, worker_id)
            await asyncio.sleep(0.02)

    showing = asyncio.create_task(show())
    try:
        yield
    finally:
        showing.cancel()
        await asyncio.wait([showing])


@asynccontextmanager
async def _taking(stack: Stack, timings: TakeoverTimings = QUICK) -> AsyncIterator[list[UUID]]:
    """Run a worker that takes over; gives the push tasks that it took."""
    taken: list[UUID] = []

    def counting(worker: WorkerHarness, provider: Provider) -> None:
        async def send(push: PlannedSend, hold: Hold) -> None:
            taken.append(push.task_id)
            await worker.sendings[provider].take_over(push, hold)

        worker.dependencies.takeover.serve(provider, send)

    async with worker_harness(stack, takeover_timings=timings) as worker:
        for provider in Provider:
            counting(worker, provider)
        yield taken


async def _show_life(stack: Stack, count: int) -> bool:
    return len(await stack.rows("SELECT 1 FROM workers WHERE alive_at IS NOT NULL")) == count


async def _are(stack: Stack, sends: Sequence[Due], state: str) -> bool:
    rows = "SELECT 1 FROM push_tasks WHERE task_id = ANY(:ids) AND state = :state"
    return len(await stack.rows(rows, ids=_ids(sends), state=state)) == len(sends)


async def _was_called(simulator: Simulator, phone: Phone) -> bool:
    return bool(simulator.requests.for_token(phone.token))


async def _is_in(send: Due, taken: Sequence[UUID]) -> bool:
    return send.task_id in taken


async def _nobody_waits_for_a_lock(stack: Stack) -> bool:
    return not await stack.someone_waits_for_a_lock()


async def _held_by(stack: Stack, send: Due, worker_id: UUID | None) -> bool:
    [row] = await stack.rows("SELECT held_by FROM push_tasks WHERE task_id = :id", id=send.task_id)
    return bool(row.held_by == worker_id)


async def _is_seen(held: Holds) -> bool:
    return held.seen_as is not None


def _ids(sends: Sequence[Due]) -> list[UUID]:
    return [send.task_id for send in sends]


def _at(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC)


def _taken_over() -> float:
    return sum(
        sample.value
        for family in metrics.pushes_taken_over.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    )
