"""What becomes of a push whose time is over when its turn comes."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from temporalio.exceptions import ApplicationError

from domain.back_off import LAST_LOOK, BackOff
from domain.push import TaskState
from sending.attempts import check_pushes
from sending.precheck import Deferred, Final, Hindered, Hindrance
from sending.retry import BACK_OFFS
from simulator import Simulator
from tests.busy import in_time, lead
from tests.routes.worker_harness import WorkerHarness, due_now, worker_harness
from tests.stack import Phone, Stack, android, eventually, iphone, refuse_once
from tests.support.timelines import timeline


@pytest.mark.parametrize("phone", [iphone(), android()], ids=["apns", "fcm"])
async def test_trouble_that_lasts_until_the_end_makes_a_push_dead_not_silently_expired(
    without_worker: Stack, simulator: Simulator, phone: Phone
) -> None:
    refuse_once(simulator, phone)
    [due] = await due_now(without_worker, [phone])

    async with worker_harness(without_worker) as worker:
        with pytest.raises(ApplicationError):
            await worker.send_once(due)
        await _let_expire(without_worker, due.task_id)
        sent = await worker.send_once(due, attempt=2)

    reason = {"apns": "ServiceUnavailable", "fcm": "UNAVAILABLE"}[phone.provider]
    assert (sent.state, sent.reason) == (TaskState.DEAD, reason)
    assert len(simulator.requests.for_token(phone.token)) == 1


async def test_a_push_that_comes_too_late_without_trouble_has_expired(
    without_worker: Stack, simulator: Simulator
) -> None:
    phone = iphone()
    [due] = await due_now(without_worker, [phone])
    await _let_expire(without_worker, due.task_id)

    async with worker_harness(without_worker) as worker:
        sent = await worker.send_once(due)

    assert (sent.state, sent.reason) == (TaskState.EXPIRED, "too_late")
    assert not simulator.requests.for_token(phone.token)


@pytest.mark.parametrize(
    ("phone", "trouble"),
    [
        (android(), {"error_code": "UNAVAILABLE", "retry_after": 60}),
        (android(), {"error_code": "QUOTA_EXCEEDED", "quota": "device"}),  # Google asks for a minute
        (iphone(), {"status": 429, "reason": "TooManyRequests"}),
    ],
    ids=["named", "usual", "apns"],
)
async def test_a_call_that_failed_is_followed_by_a_last_one_shortly_before_the_push_expires(
    without_worker: Stack, simulator: Simulator, phone: Phone, trouble: dict[str, Any]
) -> None:
    simulator.faults.add(provider=phone.provider, token=phone.token, fault="answer", count=1, **trouble)
    [due] = await due_now(without_worker, [phone])
    await _let_expire(without_worker, due.task_id, in_seconds=40)
    longest = dict.fromkeys(BACK_OFFS, BackOff(timedelta(minutes=2), timedelta(minutes=2)))

    async with worker_harness(without_worker, back_offs=longest) as worker:
        with pytest.raises(ApplicationError) as again:
            await worker.send_once(due)

    [task] = await without_worker.rows("SELECT * FROM push_tasks WHERE task_id = :id", id=due.task_id)
    [attempt] = await without_worker.rows("SELECT * FROM push_attempts WHERE task_id = :id", id=due.task_id)
    delay = again.value.next_retry_delay
    assert delay is not None
    assert timedelta(seconds=30) < delay <= timedelta(seconds=35)
    assert task.expires_at - LAST_LOOK - timedelta(seconds=1) < task.next_attempt_at < task.expires_at
    assert attempt.retry_at == task.next_attempt_at
    [planned] = [
        item
        for item in await timeline(without_worker.user(None, "support"), task.user_id)
        if (item["event"], item["task_id"]) == ("planned", str(due.task_id))
    ]
    assert planned["detail"]["next_attempt_at"] < planned["detail"]["expires_at"]


async def test_a_provider_that_is_back_in_time_for_the_last_try_takes_the_push(
    without_worker: Stack, simulator: Simulator
) -> None:
    phone = android()
    simulator.faults.add(
        provider="fcm", token=phone.token, fault="answer", error_code="UNAVAILABLE", retry_after=60, count=1
    )
    [due] = await due_now(without_worker, [phone])

    async with worker_harness(without_worker, back_offs=BACK_OFFS) as worker:
        await worker.send_all(await due_now(without_worker, [android()]))  # connects, and fetches a token
        await _let_expire(without_worker, due.task_id, in_seconds=LAST_LOOK.total_seconds() + lead(1.5))
        sent = await worker.send(due)

    assert sent.state is TaskState.ACCEPTED
    assert len(simulator.requests.for_token(phone.token)) == 2


@pytest.mark.parametrize(
    "trouble",
    [{"status": 429}, {"status": 429, "quota": "project"}, {"error_code": "UNAVAILABLE"}],
    ids=["unnamed quota", "project's quota", "outage"],
)
async def test_a_rest_that_nobody_asked_for_does_not_outlast_what_waits(
    without_worker: Stack, simulator: Simulator, trouble: dict[str, Any]
) -> None:
    """Google advises 60 s after a 429, and 10 s after a 5xx: where an answer names no time, a probe may come before."""
    all_due = await due_now(without_worker, [android() for _ in range(5)])
    tellers = 1 if "quota" in trouble else 3  # a project's quota is one answer's to tell
    simulator.faults.add(provider="fcm", fault="answer", count=tellers, **trouble)
    for due in all_due:
        await _let_expire(without_worker, due.task_id, in_seconds=lead(5))

    async with worker_harness(without_worker, back_offs=BACK_OFFS) as worker:
        first = [asyncio.create_task(worker.send(due)) for due in all_due[:tellers]]
        await eventually(lambda: _shut(worker))
        sent = await worker.send_all(all_due[tellers:])
        for told in first:
            told.cancel()
        await asyncio.wait(first)

    assert {each.state for each in sent} == {TaskState.ACCEPTED}


@pytest.mark.parametrize(
    ("left", "trouble"),
    [(4, {}), (40, {"retry_after": 3600}), (40, {"retry_after": 86_400}), (62, {"retry_after": 65})],
    ids=["nearly over", "an hour", "a day", "a little longer than it lives"],
)
async def test_a_call_that_failed_with_no_time_left_makes_the_push_dead_at_once_and_promises_no_other(
    without_worker: Stack, simulator: Simulator, left: float, trouble: dict[str, Any]
) -> None:
    phone = android()
    simulator.faults.add(
        provider="fcm", token=phone.token, fault="answer", error_code="UNAVAILABLE", count=1, **trouble
    )
    [due] = await due_now(without_worker, [phone])
    await _let_expire(without_worker, due.task_id, in_seconds=left)

    async with worker_harness(without_worker, back_offs=BACK_OFFS) as worker:
        sent = await worker.send_once(due)

    assert (sent.state, sent.reason) == (TaskState.DEAD, "UNAVAILABLE")
    [task] = await without_worker.rows("SELECT * FROM push_tasks WHERE task_id = :id", id=due.task_id)
    [attempt] = await without_worker.rows("SELECT * FROM push_attempts WHERE task_id = :id", id=due.task_id)
    assert (task.state, task.next_attempt_at) == ("dead", None)
    if trouble:  # no promise: until then the provider asked for patience
        assert attempt.retry_at > task.expires_at
    else:
        assert attempt.retry_at is None


@pytest.mark.parametrize(("left", "looks_in"), [(40.0, 35.0), (5.9, 1.0), (4.0, None), (3600.0, 45.0)])
async def test_who_waits_before_a_shut_limiter_is_never_told_a_try_beyond_its_expiry(
    without_worker: Stack, left: float, looks_in: float | None
) -> None:
    [due] = await due_now(without_worker, [iphone()])
    await _let_expire(without_worker, due.task_id, in_seconds=left)

    hindered = Hindered(due.task_id, Hindrance("paused", timedelta(seconds=45)))
    [verdict] = await check_pushes(without_worker.sessions, [hindered])

    [task] = await without_worker.rows("SELECT * FROM push_tasks WHERE task_id = :id", id=due.task_id)
    if looks_in is None:
        assert verdict == Final(TaskState.DEAD, "paused")
        assert task.next_attempt_at is None
    else:
        assert isinstance(verdict, Deferred)
        delay = verdict.hindrance.delay.total_seconds()
        assert delay <= looks_in
        assert in_time(looks_in - delay, 2.0)
        assert task.next_attempt_at <= task.expires_at


async def _let_expire(stack: Stack, task_id: UUID, *, in_seconds: float = 0) -> None:
    expire = text("UPDATE push_tasks SET expires_at = now() + :left * interval '1 second' WHERE task_id = :id")
    async with stack.sessions.begin() as db:
        await db.execute(expire, {"id": task_id, "left": in_seconds})


async def _shut(worker: WorkerHarness) -> bool:
    return any(limiter["state"] == "open" for limiter in worker.dependencies.limiters.report()["gates"])
