"""A route that works again: those who wait for it notice soon, however few they are."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from shutil import copy
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from temporalio.exceptions import ApplicationError

from db import token_error_cutoffs
from db.support_actions import Actor
from domain.back_off import BackOff
from domain.mass_failure import MassFailure
from domain.push import Environment, Provider, Route, TaskState
from fleet.heartbeat import HeartbeatTimings
from push.limiter.breaker import Cause, Rest
from push.limiter.settings import Timings
from push.registry import Senders
from push.sender import Misconfigured
from simulator import Simulator
from simulator.settings import private_pem
from tests.busy import in_time, soon
from tests.routes.worker_harness import BRISK_BACK_OFFS, Due, WorkerHarness, due_now, states, worker_harness
from tests.stack import Stack, eventually, iphone

LOOKS = 0.2  # seconds between two, where few wait
SOON = 2.0  # seconds
NEVER = timedelta(minutes=1)
PATIENT = Timings(rests=dict.fromkeys(Cause, Rest(first=60.0, longest=60.0)), shortest_pause=LOOKS)
PATIENT_BACK_OFFS = BRISK_BACK_OFFS | {Misconfigured: BackOff(2 * NEVER, 2 * NEVER)}


async def test_one_user_who_is_refused_for_ever_holds_up_no_newcomers_at_an_open_limiter(
    without_worker: Stack, simulator: Simulator
) -> None:
    """As in life, but ten times as fast."""
    timings = Timings(rests=dict.fromkeys(Cause, Rest(first=0.2, longest=30.0)), check_again=0.2, ramp=6.0)
    simulator.faults.add(provider="apns", fault="answer", status=503, reason="ServiceUnavailable")
    phone = iphone()
    [mallorys] = await due_now(without_worker, [phone])
    others = await due_now(without_worker, [iphone(), iphone()])
    async with worker_harness(without_worker, timings=timings) as worker:
        for due in (mallorys, *others):
            with pytest.raises(ApplicationError):
                await worker.send_once(due)
        simulator.faults.clear()
        simulator.faults.add(
            provider="apns", token=phone.token, fault="answer", status=503, reason="ServiceUnavailable"
        )
        refused = asyncio.create_task(worker.send(mallorys))
        all_due = await due_now(without_worker, [iphone()])
        all_due += await due_now(without_worker, [iphone(), iphone()], of_one=f"bob-{uuid4()}")
        await eventually(lambda: _rests_for(worker, 2.0))
        left, began = _rest(worker), time.monotonic()
        await worker.send_all(all_due)
        took = time.monotonic() - began
        refused.cancel()
        await asyncio.wait([refused])

    assert await states(without_worker, all_due) == {(TaskState.ACCEPTED, None): 3}
    assert in_time(took, left)  # before the rest would have been over


async def test_one_users_reminder_is_shown_soon_after_the_wrong_key_was_replaced(
    without_worker: Stack, simulator: Simulator, tmp_path: Path
) -> None:
    key_file, phone = tmp_path / "key.p8", iphone()
    key_file.write_bytes(private_pem(ec.generate_private_key(ec.SECP256R1())))
    [due] = await due_now(without_worker, [phone])

    async with _patient(without_worker, key_file) as worker:
        sending = asyncio.create_task(worker.send(due))
        await eventually(lambda: _waits(without_worker, due, "InvalidProviderToken"))
        await asyncio.sleep(3 * LOOKS)  # time in which it must not call; a slow machine only has it look less often
        calls = len(simulator.requests)
        next_try = await _next_try(without_worker, due)
        copy(simulator.environment["APNS_KEY_FILE"], key_file)
        async with soon(SOON):
            await sending

    assert calls == 1  # looking in costs the provider nothing
    assert next_try > 30  # and nobody is told that a look is a try
    assert len(simulator.phone(phone.token).screen) == 1


async def test_a_reminder_is_shown_soon_after_its_app_was_given_credentials(
    without_worker: Stack, simulator: Simulator
) -> None:
    phone = iphone()
    [due] = await due_now(without_worker, [phone])

    async with _patient(without_worker) as worker:
        apps = worker.dependencies.apps
        senders: Senders = {
            (provider, None): sender for provider in Provider if (sender := apps.sender(provider, None)) is not None
        }
        apps.replace({}, None)
        sending = asyncio.create_task(worker.send(due))
        await eventually(lambda: _waits(without_worker, due, "app_not_configured"))
        await asyncio.sleep(3 * LOOKS)  # looks in vain a few times first; fewer prove less and fail nothing
        apps.replace(senders, None)
        async with soon(SOON):
            await sending

    assert len(simulator.phone(phone.token).screen) == 1


async def test_a_reminder_that_waits_at_a_stopped_route_is_shown_soon_after_the_resume(
    without_worker: Stack, simulator: Simulator
) -> None:
    phone = iphone()
    [due] = await due_now(without_worker, [phone])
    async with without_worker.sessions.begin() as db:
        route = Route(Provider.APNS, None, Environment.PRODUCTION)
        await token_error_cutoffs.engage(db, route, MassFailure("BadDeviceToken", token_errors=20, answers=20))

    async with _patient(without_worker) as worker:
        await eventually(lambda: _cut_off(worker))
        sending = asyncio.create_task(worker.send(due))
        await eventually(lambda: _waits(without_worker, due, "brake_engaged"))
        await asyncio.sleep(5 * LOOKS)  # looks in vain a few times first; fewer prove less and fail nothing
        async with without_worker.sessions.begin() as db:
            [cutoff] = (await token_error_cutoffs.engaged(db)).values()
            assert await token_error_cutoffs.release(db, cutoff.id, Actor("carol"))
        async with soon(SOON):
            await sending

    assert len(simulator.phone(phone.token).screen) == 1


@asynccontextmanager
async def _patient(stack: Stack, key_file: Path | None = None) -> AsyncIterator[WorkerHarness]:
    """A worker that would not try again for a minute what was refused, but looks in often."""
    async with worker_harness(
        stack,
        {"APNS_KEY_FILE": str(key_file)} if key_file else {},
        timings=PATIENT,
        back_offs=PATIENT_BACK_OFFS,
        heartbeat_timings=HeartbeatTimings(every=LOOKS),
        credentials_every=timedelta(seconds=LOOKS) if key_file else None,
    ) as worker:
        yield worker


async def _waits(stack: Stack, due: Due, reason: str) -> bool:
    rows = await stack.rows("SELECT last_reason FROM push_tasks WHERE task_id = :id", id=due.task_id)
    return [row.last_reason for row in rows] == [reason]


async def _next_try(stack: Stack, due: Due) -> float:
    """Give in how many seconds the next try is, as people are told."""
    [row] = await stack.rows(
        "SELECT extract(epoch FROM next_attempt_at - now()) AS left FROM push_tasks WHERE task_id = :id", id=due.task_id
    )
    return float(row.left)


async def _cut_off(worker: WorkerHarness) -> bool:
    return any(report.state == "braked" for report in worker.dependencies.limiters.reports())


def _rest(worker: WorkerHarness) -> float:
    """Give for how many seconds more the one gate in use rests for who was refused there, others may try sooner."""
    limiter = worker.dependencies.limiters.at(Route(Provider.APNS, None, Environment.PRODUCTION))
    return limiter._breaker.open_until - limiter.now()


async def _rests_for(worker: WorkerHarness, seconds: float) -> bool:
    return _rest(worker) > seconds
