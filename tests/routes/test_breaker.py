"""A provider in trouble: no calls and no attempts for those who wait, one probe at a time, and then all of them."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from temporalio.exceptions import ApplicationError

from domain.push import PlannedSend, Provider, TaskState
from push.apns.sender import ApnsSender
from push.limiter.breaker import Cause, Rest
from push.limiter.settings import Timings
from simulator import Simulator
from tests.logs import own_logs
from tests.push.conftest import apns_account
from tests.routes.worker_harness import BRISK, WorkerHarness, active_tokens, attempts, due_now, states, worker_harness
from tests.stack import Stack, User, android, eventually, iphone

PROBES = 6
SHORTEST = 0.15  # seconds; the first rest of BRISK, a quarter less by chance
LONG = Timings(rests=dict.fromkeys(Cause, Rest(first=60.0, longest=60.0)), shortest_pause=44.0, alarm_after=0.5)


async def test_a_wrong_key_pauses_the_provider_after_three_users_and_alarms_once(
    without_worker: Stack, simulator: Simulator
) -> None:
    simulator.faults.add(provider="apns", fault="answer", status=403, reason="InvalidProviderToken")
    all_due = await due_now(without_worker, [iphone() for _ in range(50)])

    with own_logs() as logs:
        async with worker_harness(without_worker, timings=LONG) as worker:
            for due in all_due:
                await _fail(worker, due, "InvalidProviderToken")
            assert len(simulator.requests) == await attempts(without_worker, all_due) == 3

            simulator.faults.clear()  # a person fixed the key: other credentials need not wait for the rest to end
            mended = ApnsSender(apns_account(simulator))
            google = worker.dependencies.apps.sender(Provider.FCM, None)
            assert google is not None
            [old] = worker.dependencies.apps.replace(
                {(Provider.APNS, None): mended, (Provider.FCM, None): google}, None
            )
            sent = await worker.send_all(all_due)
            await asyncio.gather(mended.close(), old.close())

    assert {each.state for each in sent} == {TaskState.ACCEPTED}
    assert await active_tokens(without_worker, all_due) == 50
    alarms = [entry for entry in logs if entry["event"] == "breaker opened"]
    assert [(alarm["log_level"], alarm["cause"]) for alarm in alarms] == [("error", "misconfigured")]


async def test_two_users_never_pause_a_provider_and_all_are_told_of(
    without_worker: Stack, simulator: Simulator
) -> None:
    simulator.faults.add(provider="apns", fault="answer", status=403, reason="InvalidProviderToken")
    alices, bobs = [
        await due_now(without_worker, [iphone() for _ in range(10)], of_one=f"{name}-{uuid4()}")
        for name in ("alice", "bob")
    ]
    called = len(simulator.requests)

    with own_logs() as logs:
        async with worker_harness(without_worker, timings=LONG) as worker:
            await asyncio.gather(*(_fail(worker, due, "InvalidProviderToken") for due in alices + bobs))
            assert worker.dependencies.limiters.report()["gates"][0]["state"] == "closed"
            await eventually(lambda: _alarmed(logs))

    assert len(simulator.requests) - called == await active_tokens(without_worker, alices + bobs) == 20
    [alarm] = [entry for entry in logs if entry["event"] == "pushes refused"]
    assert (alarm["log_level"], alarm["reason"]) == ("error", "InvalidProviderToken")
    assert alarm["pushes"] in range(1, 21)  # as many as were refused by then, see test_gate_alarm
    assert alarm["users"] in {1, 2}


async def test_a_quota_that_names_nobody_pauses_nothing_before_three_users_met_it(
    without_worker: Stack, simulator: Simulator
) -> None:
    simulator.faults.add(provider="fcm", fault="answer", status=429)
    all_due = await due_now(without_worker, [android() for _ in range(5)])

    async with worker_harness(without_worker, timings=LONG) as worker:
        for due in all_due:
            await _fail(worker, due, "RESOURCE_EXHAUSTED")

    assert len(simulator.requests) == 3


async def test_an_app_without_credentials_waits_and_costs_nothing(without_worker: Stack, simulator: Simulator) -> None:
    all_due = await due_now(without_worker, [iphone() for _ in range(20)])

    async with worker_harness(without_worker, timings=LONG) as worker:
        worker.dependencies.apps.replace({}, None)
        await asyncio.gather(*(_fail(worker, due, "app_not_configured") for due in all_due))

    assert len(simulator.requests) == await attempts(without_worker, all_due) == 0
    assert await states(without_worker, all_due) == {(TaskState.PENDING, "app_not_configured"): 20}


async def test_a_projects_quota_pauses_all_of_it_for_as_long_as_google_says(
    without_worker: Stack, simulator: Simulator
) -> None:
    simulator.faults.add(
        provider="fcm", fault="answer", errorCode="QUOTA_EXCEEDED", quota="project", retry_after=2, count=1
    )
    [first, *others] = await due_now(without_worker, [android() for _ in range(20)])
    async with worker_harness(without_worker) as worker:
        await _fail(worker, first, "QUOTA_EXCEEDED_PROJECT")

        await worker.send_all(others)

    refused_at, *calls = sorted(request.received_timestamp for request in simulator.requests)
    assert len(calls) == 19
    assert min(calls) - refused_at >= 2


async def test_one_phones_quota_delays_that_phone_alone(without_worker: Stack, simulator: Simulator) -> None:
    phones = [android() for _ in range(20)]
    simulator.faults.add(
        provider="fcm",
        token=phones[0].token,
        fault="answer",
        errorCode="QUOTA_EXCEEDED",
        quota="device",
        retry_after=60,
    )
    all_due = await due_now(without_worker, phones)
    async with worker_harness(without_worker) as worker:
        results = await asyncio.gather(*map(worker.send_once, all_due), return_exceptions=True)

    assert sum(isinstance(result, ApplicationError) for result in results) == 1
    assert len(simulator.requests) == 20


async def test_a_sandbox_outage_leaves_production_alone(without_worker: Stack, simulator: Simulator) -> None:
    simulator.faults.add(provider="apns", environment="sandbox", fault="refuse_connections")
    sandboxed = await due_now(without_worker, [iphone() for _ in range(20)], environment="sandbox")
    production = await due_now(without_worker, [iphone() for _ in range(20)])
    async with worker_harness(without_worker) as worker:
        await worker.send_all(await due_now(without_worker, [iphone()]))  # connects to production
        waiting = [asyncio.create_task(worker.send(due)) for due in sandboxed]
        await eventually(lambda: _opened(worker))
        sent = await asyncio.gather(*map(worker.send_once, production))  # none is told to come back
        stood = {limiter["environment"]: limiter["state"] for limiter in worker.dependencies.limiters.report()["gates"]}
        still = sum(not each.done() for each in waiting)
        simulator.faults.clear()
        await asyncio.gather(*waiting)

    assert Counter(each.state for each in sent) == {TaskState.ACCEPTED: 20}
    assert still == 20
    assert stood.pop("production") == "closed"
    assert stood in ({"sandbox": "open"}, {"sandbox": "half_open"})


async def test_a_waiting_push_whose_fast_is_over_is_withdrawn_not_kept(
    without_worker: Stack, simulator: Simulator
) -> None:
    [*refused, other] = await due_now(without_worker, [iphone() for _ in range(4)])
    async with worker_harness(without_worker, timings=LONG) as worker:
        await _shut(worker, simulator, refused)
        async with without_worker.sessions.begin() as db:
            await db.execute(
                text(
                    "UPDATE fasting_sessions SET status = 'cancelled', ended_at = now()"
                    " WHERE id = (SELECT conversation_id FROM push_tasks WHERE task_id = :id)"
                ),
                {"id": other.task_id},
            )

        sent = await worker.send_once(other)

    assert (sent.state, sent.reason) == (TaskState.WITHDRAWN, "session_cancelled")


async def test_a_waiting_push_says_when_it_will_be_tried_again_and_looks_in_before_half_its_time_is_over(
    without_worker: Stack, simulator: Simulator
) -> None:
    [*refused, other] = await due_now(without_worker, [iphone() for _ in range(4)])
    async with worker_harness(without_worker, timings=LONG) as worker:
        await _shut(worker, simulator, refused)
        before = await _clock(without_worker)
        told = (await _fail(worker, other)).next_retry_delay
        after = await _clock(without_worker)
        [task] = await without_worker.rows(
            "SELECT next_attempt_at FROM push_tasks WHERE task_id = :id", id=other.task_id
        )
        expires_at = await _clock(without_worker) + timedelta(seconds=20)
        async with without_worker.sessions.begin() as db:
            expire = text("UPDATE push_tasks SET expires_at = :at WHERE task_id = :id")
            await db.execute(expire, {"id": other.task_id, "at": expires_at})
        hurried = (await _fail(worker, other)).next_retry_delay
        left = expires_at - await _clock(without_worker)

    assert told is not None
    assert told > timedelta(seconds=40)
    assert before + told <= task.next_attempt_at <= after + told
    assert hurried is not None
    assert left / 2 <= hurried <= timedelta(seconds=10)


@pytest.mark.parametrize("collapse_key", ["", "a-key"])
async def test_a_push_of_unknown_fate_is_sent_again_only_if_the_phone_can_collapse_it(
    without_worker: Stack, simulator: Simulator, collapse_key: str
) -> None:
    phone = iphone()
    simulator.faults.add(provider="apns", token=phone.token, fault="accept_then_fail", count=1)
    [due] = await due_now(without_worker, [phone])
    async with without_worker.sessions.begin() as db:
        values = {"key": collapse_key, "id": due.task_id}
        await db.execute(text("UPDATE push_tasks SET collapse_key = :key WHERE task_id = :id"), values)

    async with worker_harness(without_worker) as worker:
        sent = await worker.send(due)

    again = bool(collapse_key)
    assert (sent.state, sent.reason) == ((TaskState.ACCEPTED, None) if again else (TaskState.DEAD, "fate_unknown"))
    assert len(simulator.requests) == (2 if again else 1)
    assert len(simulator.phone(phone.token).screen) == 1


@pytest.mark.parametrize("collapse_key", ["", "a-key"])
async def test_a_push_whose_worker_was_lost_in_its_call_is_sent_again_only_if_the_phone_can_collapse_it(
    without_worker: Stack, simulator: Simulator, collapse_key: str
) -> None:
    [due] = await due_now(without_worker, [iphone()])
    async with without_worker.sessions.begin() as db:
        values = {"key": collapse_key, "id": due.task_id}
        await db.execute(
            text("UPDATE push_tasks SET collapse_key = :key, attempt_count = 1 WHERE task_id = :id"), values
        )
        await db.execute(
            text(
                "INSERT INTO push_attempts (attempt_id, task_id, number, started_at)"
                " VALUES (gen_random_uuid(), :id, 1, now() - interval '1 minute')"
            ),
            {"id": due.task_id},
        )

    async with worker_harness(without_worker) as worker:
        sent = await worker.send(due)

    again = bool(collapse_key)
    assert (sent.state, sent.reason) == ((TaskState.ACCEPTED, None) if again else (TaskState.DEAD, "fate_unknown"))
    assert len(simulator.requests) == (1 if again else 0)
    assert await attempts(without_worker, [due]) == (2 if again else 1)


async def test_through_temporal_an_outage_costs_a_few_calls_and_all_get_through_afterwards(
    without_worker: Stack, simulator: Simulator
) -> None:
    simulator.faults.add(provider="apns", fault="answer", status=503, reason="ServiceUnavailable")
    async with worker_harness(without_worker, timings=BRISK) as worker, worker.employed():
        users = [without_worker.user() for _ in range(5)]
        for user in users:
            await user.register(*(iphone() for _ in range(8)), android())
        session_ids = [await user.start_fast(due_in=1.0) for user in users]
        await eventually(lambda: _opened(worker))
        await eventually(lambda: _waiting(without_worker, users, 40))
        before = sum(request.provider == "apns" for request in simulator.requests)
        await eventually(lambda: _called(simulator, before + PROBES))
        called = sorted(request.received_timestamp for request in simulator.requests if request.provider == "apns")
        simulator.faults.clear()

        outcomes = await asyncio.gather(*map(without_worker.finished, session_ids))

    probes = called[before : before + PROBES]
    # One at a time, and beside it one of a user who was not refused before: the first may hang.
    assert min(third - first for first, third in zip(probes, probes[2:], strict=False)) >= SHORTEST
    assert max(later - sooner for sooner, later in pairwise(probes)) >= 0.45  # once three users agree
    assert set(outcomes) == {"accepted"}
    tasks = [task for session_id in session_ids for task in await without_worker.tasks(session_id)]
    assert Counter(task.state for task in tasks) == {"accepted": 45}
    assert sum(task.attempt_count for task in tasks) == len(simulator.requests)


async def _fail(worker: WorkerHarness, due: PlannedSend, reason: str | None = None) -> ApplicationError:
    with pytest.raises(ApplicationError, match=reason) as failure:
        await worker.send_once(due)
    return failure.value


async def _shut(worker: WorkerHarness, simulator: Simulator, three: Sequence[PlannedSend]) -> None:
    """Pause the route by what three users are told."""
    simulator.faults.add(provider="apns", fault="answer", status=403, reason="InvalidProviderToken")
    for due in three:
        await _fail(worker, due, "InvalidProviderToken")
    assert len(simulator.requests) == len(three) == 3


async def _alarmed(logs: Sequence[Mapping[str, Any]]) -> bool:
    return any(entry["event"] == "pushes refused" for entry in logs)


async def _called(simulator: Simulator, count: int) -> bool:
    return sum(request.provider == "apns" for request in simulator.requests) >= count


async def _opened(worker: WorkerHarness) -> bool:
    return any(limiter["state"] == "open" for limiter in worker.dependencies.limiters.report()["gates"])


async def _waiting(stack: Stack, users: Sequence[User], count: int) -> bool:
    rows = await stack.rows(
        "SELECT 1 FROM push_tasks WHERE state = 'pending' AND provider = 'apns' AND last_reason IS NOT NULL"
        " AND user_id = ANY(:ids)",
        ids=[user.user_id for user in users],
    )
    return len(rows) == count


async def _clock(stack: Stack) -> datetime:
    """Give the time as the database sees it, by which waits are planned."""
    [row] = await stack.rows("SELECT clock_timestamp() AS now")
    now: datetime = row.now
    return now
