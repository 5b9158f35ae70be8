"""One user, one phone or one odd answer beside others whose reminders fall due at that instant: they notice nothing.

Through the API, Temporal and a worker, to the phones' screens.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text

from domain.back_off import BackOff
from domain.push import TaskState
from push.limiter.breaker import Cause, Rest
from push.limiter.settings import Timings
from push.sender import Unavailable
from sending.retry import BACK_OFFS
from simulator import Simulator
from tests.busy import crowding, in_time, stood_still
from tests.logs import own_logs
from tests.routes.worker_harness import WorkerHarness, due_now, states, worker_harness
from tests.stack import Phone, Stack, User, android, eventually, iphone

DUE_IN = 2.5  # seconds
LATE = 2.0  # seconds
FASTER = 20  # times as in life, at most


async def test_iphones_behind_fcm_without_an_apns_key_delay_no_android_and_are_told_of_once(
    without_worker: Stack, simulator: Simulator
) -> None:
    refused, androids = [android() for _ in range(6)], [android() for _ in range(20)]
    for phone in refused:
        simulator.faults.add(
            provider="fcm", token=phone.token, fault="answer", errorCode="THIRD_PARTY_AUTH_ERROR", message="APNs key"
        )

    with own_logs() as logs:
        async with _sent(without_worker, [*refused, *androids]) as worker:
            await eventually(lambda: _all_shown(simulator, androids))
            await eventually(lambda: _told(logs))
            [limiter] = [
                limiter for limiter in worker.dependencies.limiters.report()["gates"] if limiter["provider"] == "fcm"
            ]
            tasks = await _tasks(without_worker, refused)

    assert in_time(await _lateness(without_worker, androids), LATE)
    assert limiter["state"] == "closed"
    assert {(task.state, task.last_reason) for task in tasks} == {("pending", "THIRD_PARTY_AUTH_ERROR")}
    assert await _active(without_worker, refused) == 6
    [alarm] = [entry for entry in logs if entry["log_level"] == "error"]
    assert (alarm["event"], alarm["reason"]) == ("pushes refused", "THIRD_PARTY_AUTH_ERROR")
    assert (alarm["pushes"], alarm["users"]) == (6, 6)


async def test_one_invalid_provider_token_among_good_answers_delays_that_push_alone(
    without_worker: Stack, simulator: Simulator
) -> None:
    iphones = [iphone() for _ in range(20)]
    simulator.faults.add(
        provider="apns", token=iphones[7].token, fault="answer", status=403, reason="InvalidProviderToken", count=1
    )

    async with _sent(without_worker, iphones) as worker:
        await eventually(lambda: _all_shown(simulator, iphones))
        [limiter] = [
            limiter for limiter in worker.dependencies.limiters.report()["gates"] if limiter["provider"] == "apns"
        ]

    assert limiter["state"] == "closed"
    assert in_time(await _lateness(without_worker, [*iphones[:7], *iphones[8:]]), LATE)
    assert in_time(await _lateness(without_worker, iphones[7:8]), 2 * LATE + 2)  # after 1 to 2 seconds
    assert [task.attempt_count for task in await _tasks(without_worker, iphones[7:8])] == [2]


async def test_25_invented_tokens_of_one_user_stop_nobody_and_support_sees_whose_they_are(
    without_worker: Stack, simulator: Simulator
) -> None:
    invented, others = [iphone() for _ in range(25)], [iphone() for _ in range(10)]
    for phone in invented:
        simulator.faults.add(provider="apns", token=phone.token, fault="answer", status=400, reason="BadDeviceToken")
    mallory = without_worker.user()
    async with without_worker.sessions.begin() as db:  # what other tests sent is long ago
        await db.execute(text("UPDATE push_tasks SET due_at = due_at - interval '1 hour'"))
    support = without_worker.user(None, "support")

    async with _sent(without_worker, others, beside=[(mallory, invented)]):
        await eventually(lambda: _all_shown(simulator, others))
        await eventually(lambda: _refused(without_worker, mallory))
        listed = (await support.call("GET", "/v1/support/gates")).json()

    assert in_time(await _lateness(without_worker, others), LATE)
    assert not await without_worker.rows("SELECT 1 FROM brakes")
    assert await _active(without_worker, invented) == len(await _registered(without_worker, invented)) >= 20
    [route] = [each for each in listed["items"] if (each["provider"], each["environment"]) == ("apns", "production")]
    errors = route["errors"]
    assert errors["users"] == 1
    assert (errors["largest_user_id"], errors["largest_pushes"]) == (
        mallory.user_id,
        len(await _registered(without_worker, invented)),
    )


async def test_after_35_seconds_of_outage_no_reminder_of_60_seconds_dies(
    without_worker: Stack, simulator: Simulator
) -> None:
    """As in life, but twenty times as fast, or as many as leave a busy machine the time that it needs.

    Where the machine stood still meanwhile, the outage may have outlasted the reminders; then it has to hold twice.
    """
    began = time.monotonic()
    died = [await _died_of_an_outage(without_worker, simulator)]
    if any(died) and stood_still(since=began):
        died = [await _died_of_an_outage(without_worker, simulator) for _ in range(2)]

    assert not any(died)


async def _died_of_an_outage(stack: Stack, simulator: Simulator) -> int:
    """Let an outage pass that is shorter than reminders live; gives how many of six were not accepted."""
    scale = FASTER / crowding()
    simulator.faults.add(provider="apns", fault="answer", status=503, reason="ServiceUnavailable")
    all_due = await due_now(stack, [iphone() for _ in range(6)])
    async with worker_harness(stack, timings=_hasty(scale), back_offs=_hasty_back_offs(scale)) as worker:
        async with stack.sessions.begin() as db:
            await db.execute(
                text("UPDATE push_tasks SET expires_at = now() + :life WHERE task_id = ANY(:ids)"),
                {"life": timedelta(seconds=60 / scale), "ids": [due.task_id for due in all_due]},
            )
        sends = asyncio.gather(*map(worker.send, all_due))
        await asyncio.sleep(35 / scale)
        simulator.faults.clear()
        await sends
    return 6 - (await states(stack, all_due)).get((TaskState.ACCEPTED, None), 0)


def _hasty(scale: float) -> Timings:
    rests = {
        Cause.OUTAGE: Rest(first=2 / scale, longest=30 / scale),
        Cause.THROTTLED: Rest(first=30 / scale, longest=300 / scale),
        Cause.MISCONFIGURED: Rest(first=30 / scale, longest=300 / scale),
    }
    pauses = {"check_again": 2 / scale, "shortest_pause": 5 / scale, "longest_pause": 45 / scale}
    return Timings(rests=rests, ramp=60 / scale, looks=20.0 * scale, **pauses)


def _hasty_back_offs(scale: float) -> dict[Any, BackOff]:
    """Give those of life, but that a push whose own call failed is back within ten seconds: to test the limiter."""
    hasty = {kind: BackOff(each.first / scale, each.longest / scale) for kind, each in BACK_OFFS.items()}
    return hasty | {Unavailable: BackOff(BACK_OFFS[Unavailable].first / scale, timedelta(seconds=10 / scale))}


@asynccontextmanager
async def _sent(
    stack: Stack, phones: Sequence[Phone], *, beside: Sequence[tuple[User, Sequence[Phone]]] = ()
) -> AsyncIterator[WorkerHarness]:
    """Let a worker run; each of these phones is of its own user, and all their reminders fall due at one instant."""
    async with (
        worker_harness(stack, back_offs=BACK_OFFS, timings=Timings(alarm_after=3.0)) as worker,
        worker.employed(),
    ):
        owned = [*beside, *((stack.user(), [phone]) for phone in phones)]
        began = time.monotonic()
        await asyncio.gather(*(user.register(*theirs) for user, theirs in owned))
        due_in = max(DUE_IN, 4 * (time.monotonic() - began))  # as many starts take as long, on a loaded machine longer
        ends_at = datetime.now(UTC) + timedelta(seconds=due_in, minutes=1)
        body = {"ends_at": ends_at.isoformat(), "reminder_minutes": [1]}
        users = [user for user, _ in owned]
        begun = await asyncio.gather(*(user.call("PUT", f"/v1/fasting-sessions/{uuid4()}", body) for user in users))
        assert {answer.json()["reminders"][0]["state"] for answer in begun} == {"scheduled"}
        yield worker


async def _all_shown(simulator: Simulator, phones: Sequence[Phone]) -> bool:
    shown = [simulator.phones.get(phone.token) for phone in phones]
    return all(phone is not None and len(phone.screen) == 1 for phone in shown)


async def _told(logs: Sequence[Mapping[str, Any]]) -> bool:
    return any(entry["event"] == "pushes refused" for entry in logs)


async def _tasks(stack: Stack, phones: Sequence[Phone]) -> list[Any]:
    ids: list[UUID] = [phone.installation_id for phone in phones]
    return await stack.rows("SELECT * FROM push_tasks WHERE installation_id = ANY(:ids)", ids=ids)


async def _lateness(stack: Stack, phones: Sequence[Phone]) -> float:
    """Give how many seconds after its due instant the last of these phones had its push."""
    tasks = await _tasks(stack, phones)
    assert len(tasks) == len(phones)
    late: list[timedelta] = [task.accepted_at - task.due_at for task in tasks]
    return max(late).total_seconds()


async def _refused(stack: Stack, user: User) -> bool:
    tasks = await stack.rows("SELECT state FROM push_tasks WHERE user_id = :id", id=user.user_id)
    return bool(tasks) and all(task.state == "unregistered" for task in tasks)


async def _registered(stack: Stack, phones: Sequence[Phone]) -> list[Any]:
    ids = [phone.installation_id for phone in phones]
    return await stack.rows("SELECT 1 FROM push_tasks WHERE installation_id = ANY(:ids)", ids=ids)


async def _active(stack: Stack, phones: Sequence[Phone]) -> int:
    ids = [phone.installation_id for phone in phones]
    return len(await stack.rows("SELECT 1 FROM device_tokens WHERE active AND installation_id = ANY(:ids)", ids=ids))
