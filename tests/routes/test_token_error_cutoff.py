"""The token-error cutoff: a mistake of ours deactivates no token, keeps the pushes, and waits for a person."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import structlog
from sqlalchemy import text
from temporalio.exceptions import ApplicationError

from db import device_tokens, token_error_cutoffs
from db.support_actions import Actor
from domain.mass_failure import MassFailure, Threshold
from domain.push import Environment, PlannedSend, Provider, Route, TaskState
from fleet.heartbeat import HeartbeatTimings
from operations.redrive import resume
from simulator import Simulator
from simulator.http.exchange import SimulatedEnvironment as Space
from simulator.http.exchange import SimulatedProvider as Peer
from simulator.phones import PhoneState
from simulator.settings import Behaviour
from tests.busy import soon
from tests.routes.worker_harness import (
    WorkerHarness,
    active_tokens,
    attempts,
    due_now,
    engaged_cutoff,
    refused_until_cut_off,
    states,
    worker_harness,
)
from tests.stack import Phone, Stack, android, eventually, iphone

SOON = HeartbeatTimings(every=0.2)
MANY = 60
FEW_AT_ONCE = "25"  # calls, so that the cutoff engages before all were made, and some pushes wait
NEVER = Threshold(token_errors=10_000)
Mistake = Callable[[Stack, Simulator], dict[str, str]]


def wrong_topic(_: Stack, simulator: Simulator) -> dict[str, str]:
    simulator.faults.add(provider="apns", fault="answer", status=400, reason="DeviceTokenNotForTopic")
    return {}


def swapped_environment(stack: Stack, _: Simulator) -> dict[str, str]:
    known = stack.place.simulator.environment
    return {"APNS_URL": known["APNS_SANDBOX_URL"], "APNS_SANDBOX_URL": known["APNS_URL"]}


def wrong_project(_: Stack, simulator: Simulator) -> dict[str, str]:
    simulator.faults.add(provider="fcm", fault="answer", errorCode="SENDER_ID_MISMATCH")
    return {}


@pytest.mark.parametrize(
    ("mistake", "new_phone", "reason"),
    [
        (wrong_topic, iphone, "DeviceTokenNotForTopic"),
        (swapped_environment, iphone, "BadDeviceToken"),
        (wrong_project, android, "SENDER_ID_MISMATCH"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
async def test_a_mistake_that_hits_every_device_deactivates_none_and_a_resume_drains_the_pushes(
    without_worker: Stack, simulator: Simulator, mistake: Mistake, new_phone: Callable[[], Phone], reason: str
) -> None:
    phones = [new_phone() for _ in range(MANY)]
    for phone in phones:  # known to the provider in production
        simulator.phones.declare(phone.token, Peer(phone.provider), Space.PRODUCTION)
    all_due = await due_now(without_worker, phones)
    settings = mistake(without_worker, simulator)

    with structlog.testing.capture_logs() as logs:
        few = {f"{phones[0].provider.upper()}_CONCURRENCY": FEW_AT_ONCE}
        async with worker_harness(without_worker, settings | few, heartbeat_timings=SOON) as wrong:
            sends = [asyncio.create_task(wrong.send(due)) for due in all_due]
            await eventually(lambda: _braked_with_none_under_way(wrong, without_worker, phones[0].provider))
            await eventually(lambda: _dead_or_at_the_brake(without_worker, all_due, reason))
            called = len(simulator.requests)
            assert await active_tokens(without_worker, all_due) == MANY
            found = await states(without_worker, all_due)
            for send in sends:
                send.cancel()
            await asyncio.wait(sends)

    assert [entry["log_level"] for entry in logs if entry["event"] == "token-error cutoff engaged"] == ["error"]
    assert found[TaskState.DEAD, reason] >= 20
    assert found[TaskState.DEAD, reason] + found[TaskState.PENDING, "brake_engaged"] == MANY
    assert called == await attempts(without_worker, all_due) == found[TaskState.DEAD, reason]

    simulator.faults.clear()
    waiting = "SELECT task_id FROM push_tasks WHERE state = 'pending' AND task_id = ANY(:ids)"
    pending = {row.task_id for row in await without_worker.rows(waiting, ids=[due.task_id for due in all_due])}
    async with worker_harness(without_worker, heartbeat_timings=SOON) as mended:
        draining = asyncio.gather(*(mended.send(due) for due in all_due if due.task_id in pending))
        async with without_worker.sessions.begin() as db:
            cutoff_id = await engaged_cutoff(without_worker, phones[0].provider)
            assert await token_error_cutoffs.release(db, cutoff_id, Actor("ann"))
        assert {sent.state for sent in await draining} == {TaskState.ACCEPTED}
    assert await active_tokens(without_worker, all_due) == MANY


@pytest.mark.parametrize(
    ("mistake", "new_phone"), [(wrong_topic, iphone), (swapped_environment, iphone), (wrong_project, android)]
)
async def test_a_mistake_that_hits_few_devices_in_several_workers_deactivates_none_either(
    without_worker: Stack, simulator: Simulator, mistake: Mistake, new_phone: Callable[[], Phone]
) -> None:
    phones = [new_phone() for _ in range(6)]
    for phone in phones:
        simulator.phones.declare(phone.token, Peer(phone.provider), Space.PRODUCTION)
    all_due = await due_now(without_worker, phones)
    settings = mistake(without_worker, simulator)

    async with (
        worker_harness(without_worker, settings, heartbeat_timings=SOON) as first,
        worker_harness(without_worker, settings, heartbeat_timings=SOON) as second,
    ):
        sent = await first.send_all(all_due[:3]) + await second.send_all(all_due[3:])

    foreign = mistake is not swapped_environment
    assert {each.state for each in sent} == {TaskState.REJECTED if foreign else TaskState.UNREGISTERED}
    assert await active_tokens(without_worker, all_due) == len(simulator.requests) == 6
    assert not await without_worker.rows("SELECT 1 FROM brakes")


async def test_one_user_never_engages_it_however_many_tokens_they_invent_nor_after_a_resume(
    without_worker: Stack, simulator: Simulator
) -> None:
    mallory = f"mallory-{uuid4()}"
    invented = [iphone() for _ in range(75)]
    for phone in invented:
        simulator.faults.add(provider="apns", token=phone.token, fault="answer", status=400, reason="BadDeviceToken")
    all_due = await due_now(without_worker, invented, of_one=mallory)
    refused = [all_due[n : n + 25] for n in (0, 25, 50)]

    async with worker_harness(without_worker, heartbeat_timings=SOON) as worker:
        await worker.send_all(refused[0])
        assert not await without_worker.rows("SELECT 1 FROM brakes")
        async with without_worker.sessions.begin() as db:  # others engaged it, while some of hers wait
            await token_error_cutoffs.engage(
                db, Route(Provider.APNS, None, Environment.PRODUCTION), MassFailure("Wrong", 20, 20)
            )
        await eventually(lambda: _says(worker.dependencies.limiters.report(), "braked"))
        waiting = [asyncio.create_task(worker.send(due)) for due in refused[1]]
        await eventually(lambda: _waits(without_worker, refused[1][0].task_id))
        async with without_worker.sessions.begin() as db:
            assert await token_error_cutoffs.release(db, await engaged_cutoff(without_worker, "apns"), Actor("ann"))
        await asyncio.gather(*waiting)
        [sent] = await worker.send_all(await due_now(without_worker, [iphone()]))
        await worker.send_all(refused[2])

    assert sent.state is TaskState.ACCEPTED
    assert await states(without_worker, all_due) == {
        (TaskState.UNREGISTERED, "BadDeviceToken"): 50,
        (TaskState.DEAD, "BadDeviceToken"): 25,  # refused before others engaged it: kept for a redrive
    }
    assert not await without_worker.rows("SELECT 1 FROM brakes WHERE resumed_at IS NULL")


@pytest.mark.alone
async def test_3000_bad_device_tokens_deactivate_none_and_cost_few_calls(
    without_worker: Stack, simulator: Simulator
) -> None:
    simulator.faults.add(provider="apns", fault="answer", status=400, reason="BadDeviceToken")
    all_due = await due_now(without_worker, [iphone() for _ in range(3000)])

    async with worker_harness(without_worker, heartbeat_timings=SOON) as worker:
        results = await asyncio.gather(*map(worker.send_once, all_due), return_exceptions=True)

    dead = sum(not isinstance(result, BaseException) for result in results)
    assert all(isinstance(result, ApplicationError) for result in results if isinstance(result, BaseException))
    assert await active_tokens(without_worker, all_due) == 3000
    found = await states(without_worker, all_due)
    assert found[TaskState.DEAD, "BadDeviceToken"] == dead >= 20
    assert sum(n for (state, _), n in found.items() if state is TaskState.PENDING) == 3000 - dead
    assert len(simulator.requests) == dead <= 820  # those who had passed the limiter


@pytest.mark.alone
async def test_3000_tokens_called_dead_stop_at_the_cutoff_too(without_worker: Stack, simulator: Simulator) -> None:
    simulator.faults.add(provider="apns", fault="answer", status=410, reason="Unregistered", timestamp=_in_a_minute())
    all_due = await due_now(without_worker, [iphone() for _ in range(3000)])

    async with worker_harness(without_worker, {"APNS_CONCURRENCY": "40"}, heartbeat_timings=SOON) as worker:
        results = await asyncio.gather(*map(worker.send_once, all_due), return_exceptions=True)

    settled = [result for result in results if not isinstance(result, BaseException)]
    found = await states(without_worker, all_due)
    deactivated = 3000 - await active_tokens(without_worker, all_due)
    assert deactivated == found.get((TaskState.UNREGISTERED, "Unregistered"), 0) <= len(simulator.requests)
    assert len(simulator.requests) <= 20 + 40  # twenty, and the calls under way
    assert found[TaskState.UNREGISTERED, "Unregistered"] + found.get((TaskState.DEAD, "Unregistered"), 0) == len(
        settled
    )


def uninstalled(simulator: Simulator, phone: Phone) -> None:
    known = simulator.phones.declare(phone.token, Peer(phone.provider), Space.PRODUCTION)
    simulator.phones.change(known, PhoneState.UNINSTALLED)


def of_the_sandbox(simulator: Simulator, phone: Phone) -> None:
    simulator.phones.declare(phone.token, Peer(phone.provider), Space.SANDBOX)


@pytest.mark.alone
@pytest.mark.parametrize(
    ("make", "reason"), [(uninstalled, "Unregistered"), (of_the_sandbox, "BadDeviceToken")], ids=["410", "400"]
)
async def test_3000_refusals_on_one_connection_disturb_no_push_beside_them_where_the_cutoff_lets_all_pass(
    without_worker: Stack, tmp_path: Path, make: Callable[[Simulator, Phone], None], reason: str
) -> None:
    dead = [iphone() for _ in range(3000)]
    roomy = Simulator.start(run_dir=tmp_path, behaviour=Behaviour(stream_limit_after_rejection=None))

    with structlog.testing.capture_logs() as logs:
        one = {"APNS_CONCURRENCY": "90"}  # connection has room for 100
        async with roomy as apple, worker_harness(without_worker, apple.environment | one, threshold=NEVER) as worker:
            await worker.send_all(await due_now(without_worker, [iphone()]))  # the connection gets its full limit
            refused, good = (
                await due_now(without_worker, dead),
                await due_now(without_worker, [iphone() for _ in range(100)]),
            )
            for phone in dead:
                make(apple, phone)
            apple.requests.clear()
            beside = [each for n, due in enumerate(good) for each in (*refused[30 * n : 30 * (n + 1)], due)]
            async with soon(45):
                sent = await worker.send_all(beside)

    assert Counter((each.state, each.reason) for each in sent) == {
        (TaskState.UNREGISTERED, reason): 3000,
        (TaskState.ACCEPTED, None): 100,
    }
    assert len(apple.requests) == await _calls(without_worker, beside) == 3100
    assert await active_tokens(without_worker, good) == 100
    assert {entry["connections"] for entry in logs if entry["event"] == "connection opened"} == {1}  # of each provider
    assert not await without_worker.rows("SELECT 1 FROM brakes")


async def test_dead_tokens_among_good_ones_are_deactivated_and_engage_nothing(
    without_worker: Stack, simulator: Simulator
) -> None:
    good, dead = [iphone() for _ in range(90)], [iphone() for _ in range(60)]
    words = {"status": 410, "reason": "Unregistered", "timestamp": _in_a_minute()}
    for phone in dead:
        simulator.faults.add(provider="apns", token=phone.token, fault="answer", **words)

    async with worker_harness(without_worker) as worker:
        await worker.send_all(await due_now(without_worker, good))
        all_due = await due_now(without_worker, dead)
        await worker.send_all(all_due)

    assert await active_tokens(without_worker, all_due) == 0
    assert not await without_worker.rows("SELECT 1 FROM brakes")


async def test_a_doubtful_token_is_deactivated_once_its_route_is_known_to_work(
    without_worker: Stack, simulator: Simulator
) -> None:
    doubtful, good, later = iphone(), iphone(), iphone()
    simulator.faults.add(provider="apns", token=doubtful.token, fault="answer", status=400, reason="BadDeviceToken")
    suspect = await due_now(without_worker, [doubtful])
    clock = Clock()

    async with worker_harness(without_worker, clock=clock) as worker:
        [sent] = await worker.send_all(suspect)
        assert (sent.state, sent.reason) == (TaskState.UNREGISTERED, "BadDeviceToken")
        clock.now += 9.9
        await worker.send_all(await due_now(without_worker, [good]))
        assert await active_tokens(without_worker, suspect) == 1
        clock.now += 0.1
        await worker.send_all(await due_now(without_worker, [later]))

    assert await active_tokens(without_worker, suspect) == 0
    events = await without_worker.rows(
        "SELECT e.event, e.reason FROM device_token_events e JOIN push_tasks t USING (device_id) WHERE task_id = :id",
        id=suspect[0].task_id,
    )
    assert [tuple(event) for event in events] == [("invalidated", "BadDeviceToken")]


async def test_a_suspect_that_was_registered_again_meanwhile_stays_active(
    without_worker: Stack, simulator: Simulator
) -> None:
    phone = iphone()
    fault = simulator.faults.add(
        provider="apns", token=phone.token, fault="answer", status=400, reason="BadDeviceToken"
    )
    suspect = await due_now(without_worker, [phone])
    clock = Clock()

    async with worker_harness(without_worker, clock=clock) as worker:
        await worker.send_all(suspect)
        simulator.faults.remove(fault.id)
        async with without_worker.sessions.begin() as db:
            [row] = await without_worker.rows(
                "SELECT user_id FROM push_tasks WHERE task_id = :id", id=suspect[0].task_id
            )
            told = device_tokens.Registration(Provider.APNS, phone.token, Environment.PRODUCTION)
            await device_tokens.register(db, row.user_id, phone.installation_id, told)
        clock.now += 60
        await worker.send_all(await due_now(without_worker, [iphone()]))

    assert await active_tokens(without_worker, suspect) == 1


async def test_once_the_cutoff_is_engaged_no_deactivation_commits_whoever_asked_for_it_before(
    without_worker: Stack, simulator: Simulator
) -> None:
    route = Route(Provider.APNS, None, Environment.PRODUCTION)
    phone = iphone()
    all_due = await due_now(without_worker, [phone])
    simulator.faults.add(
        provider="apns", token=phone.token, fault="answer", status=410, reason="Unregistered", timestamp=_in_a_minute()
    )
    async with worker_harness(without_worker) as worker:
        async with without_worker.sessions.begin() as db:
            await db.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            await token_error_cutoffs.engage(db, route, MassFailure("Unregistered", 20, 20))
            sending = asyncio.create_task(worker.send(all_due[0]))
            await eventually(without_worker.someone_waits_for_a_lock)
        sent = await sending

    assert (sent.state, sent.reason) == (TaskState.DEAD, "Unregistered")
    assert await active_tokens(without_worker, all_due) == 1


async def test_all_workers_learn_of_a_cutoff_and_of_its_end(without_worker: Stack, simulator: Simulator) -> None:
    all_due = await due_now(without_worker, [iphone() for _ in range(30)])
    fault = simulator.faults.add(provider="apns", fault="answer", status=400, reason="BadDeviceToken")
    async with (
        worker_harness(without_worker, heartbeat_timings=SOON) as first,
        worker_harness(without_worker, heartbeat_timings=SOON) as second,
    ):
        await eventually(lambda: _alive(without_worker, 2))
        await refused_until_cut_off(without_worker, first, all_due)
        await eventually(lambda: _says(second.dependencies.limiters.report(), "braked"))
        simulator.faults.remove(fault.id)
        called = len(simulator.requests)
        [other] = await due_now(without_worker, [iphone()])

        sending = asyncio.create_task(second.send(other))
        await eventually(lambda: _waits(without_worker, other.task_id))
        assert len(simulator.requests) == called
        async with without_worker.sessions.begin() as db:
            assert (await resume(db, await engaged_cutoff(without_worker, "apns"), Actor("ann"))).resumed_by == "ann"

        assert (await sending).state is TaskState.ACCEPTED
    [deed] = await without_worker.rows(
        "SELECT actor, action, subject_kind, detail FROM support_actions ORDER BY id DESC LIMIT 1"
    )
    assert (deed.actor, deed.action, deed.subject_kind) == ("ann", "resume", "brake")
    assert deed.detail["reason"] == "BadDeviceToken"


async def test_what_another_worker_was_refused_before_a_cutoff_engages_is_kept_for_a_redrive_too(
    without_worker: Stack, simulator: Simulator
) -> None:
    simulator.faults.add(provider="apns", fault="answer", status=400, reason="BadDeviceToken")
    few, many = [await due_now(without_worker, [iphone() for _ in range(count)]) for count in (5, 30)]
    async with (
        worker_harness(without_worker, heartbeat_timings=SOON) as first,
        worker_harness(without_worker, heartbeat_timings=SOON) as second,
    ):
        await eventually(lambda: _alive(without_worker, 2))
        await second.send_all(few)
        assert await states(without_worker, few) == {(TaskState.UNREGISTERED, "BadDeviceToken"): 5}

        await refused_until_cut_off(without_worker, first, many)
        await eventually(lambda: _all_dead(without_worker, few))

    assert await active_tokens(without_worker, few + many) == 35


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


async def _braked_with_none_under_way(worker: WorkerHarness, stack: Stack, provider: str) -> bool:
    engaged = await stack.rows("SELECT 1 FROM brakes WHERE provider = :p AND resumed_at IS NULL", p=provider)
    return bool(engaged) and not any(limiter["in_flight"] for limiter in worker.dependencies.limiters.report()["gates"])


async def _calls(stack: Stack, all_due: Sequence[PlannedSend]) -> int:
    """Count the attempts that made a call: one whose check took too long does not, and may stay on record."""
    called = "SELECT 1 FROM push_attempts WHERE task_id = ANY(:ids) AND reason IS DISTINCT FROM 'claim_too_old'"
    return len(await stack.rows(called, ids=[due.task_id for due in all_due]))


async def _dead_or_at_the_brake(stack: Stack, all_due: Sequence[PlannedSend], reason: str) -> bool:
    found = await states(stack, all_due)
    return set(found) == {(TaskState.DEAD, reason), (TaskState.PENDING, "brake_engaged")}


async def _alive(stack: Stack, count: int) -> bool:
    return len(await stack.rows("SELECT 1 FROM workers")) == count


async def _all_dead(stack: Stack, all_due: Sequence[PlannedSend]) -> bool:
    return await states(stack, all_due) == {(TaskState.DEAD, "BadDeviceToken"): len(all_due)}


async def _says(report: dict[str, list[dict[str, object]]], state: str) -> bool:
    return any(limiter["state"] == state for limiter in report["gates"])


async def _waits(stack: Stack, task_id: UUID) -> bool:
    braked = "SELECT 1 FROM push_tasks WHERE task_id = :id AND last_reason = 'brake_engaged'"
    return bool(await stack.rows(braked, id=task_id))


def _in_a_minute() -> int:
    return int((datetime.now(UTC) + timedelta(minutes=1)).timestamp() * 1000)
