"""Several workers share one rate: never more in all, whichever worker joins, leaves or dies."""

import asyncio
import os
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise

from domain.push import Environment, Provider, Route, TaskState
from fleet.heartbeat import HeartbeatTimings, Process
from fleet.token_error_cutoff import TokenErrorCutoff
from simulator import Simulator
from tests.busy import in_time
from tests.routes.worker_harness import WorkerHarness, attempts, due_now, worker_harness
from tests.stack import Stack, android, eventually

RATE = 100
LIMITED = {"FCM_RATE": str(RATE)}
HEARTBEAT_TIMINGS = HeartbeatTimings(every=0.2, lapses=0.9, lives=1.0)
FCM = Route(Provider.FCM, None, Environment.PRODUCTION)


async def test_two_workers_share_the_rate_and_one_that_joins_under_load_does_not_exceed_it(
    without_worker: Stack, simulator: Simulator
) -> None:
    firsts, seconds = [[android() for _ in range(200)] for _ in range(2)]
    first_due, second_due = [await due_now(without_worker, phones) for phones in (firsts, seconds)]
    async with worker_harness(without_worker, LIMITED, heartbeat_timings=HEARTBEAT_TIMINGS) as first:
        sending = asyncio.create_task(first.send_all(first_due))
        await eventually(lambda: _called(simulator, 50))
        async with worker_harness(without_worker, LIMITED, heartbeat_timings=HEARTBEAT_TIMINGS) as second:
            sent = await second.send_all(second_due) + await sending

    assert {each.state for each in sent} == {TaskState.ACCEPTED}
    assert await attempts(without_worker, [*first_due, *second_due]) == len(simulator.requests) == 400
    calls = sorted(request.received_timestamp for request in simulator.requests)
    by = [
        sorted(request.received_timestamp for phone in phones for request in simulator.requests.for_token(phone.token))
        for phones in (firsts, seconds)
    ]
    assert [len(each) for each in by] == [200, 200]
    bunched = RATE * sum(max(later - sooner for sooner, later in pairwise(each)) for each in by)  # where a check hung
    assert _most_within(calls, 2.0) <= 2.5 * RATE + bunched  # the burst of a tenth, and the database's jitter
    assert in_time(calls[-1] - calls[0], 12.0)  # and it was used: alone it would take 4 s
    assert min(by[1]) < max(by[0])  # they did call side by side


async def test_the_sum_of_all_shares_never_exceeds_the_rate(without_worker: Stack) -> None:
    first, second = (worker_harness(without_worker, LIMITED, heartbeat_timings=HEARTBEAT_TIMINGS) for _ in range(2))
    async with watched() as watch, first as one, second as other:
        watch.workers += [one, other]
        await eventually(lambda: _shares(one, RATE / 2))
        await eventually(lambda: _shares(other, RATE / 2))

    assert max(watch.sums) <= RATE + 0.001


async def test_a_worker_that_stalls_after_its_heartbeat_has_given_its_share_up_by_then(without_worker: Stack) -> None:
    async with (
        watched() as watch,
        worker_harness(without_worker, LIMITED, heartbeat_timings=HEARTBEAT_TIMINGS, cutoff_type=Stalling) as first,
    ):
        watch.workers.append(first)
        for _ in range(3):
            await eventually(lambda: _shares(first, RATE))
            async with worker_harness(without_worker, LIMITED, heartbeat_timings=HEARTBEAT_TIMINGS) as second:
                watch.workers.append(second)
                await eventually(lambda: _shares(second, RATE / 2))
            watch.workers.remove(second)

    assert max(watch.sums) <= RATE + 0.001


async def test_two_that_start_at_one_instant_do_not_both_take_all(without_worker: Stack) -> None:
    crews = [worker_harness(without_worker, LIMITED, heartbeat_timings=HEARTBEAT_TIMINGS) for _ in range(2)]
    async with watched() as watch, crews[0] as first, crews[1] as second:
        watch.workers += [first, second]
        await eventually(lambda: _shares(first, RATE / 2))
        await eventually(lambda: _shares(second, RATE / 2))

    assert max(watch.sums) <= RATE + 0.001


async def test_a_worker_that_cannot_be_heard_gives_its_share_up_before_others_take_it(without_worker: Stack) -> None:
    mute = HeartbeatTimings(every=60.0, lapses=1.5, lives=1.6)
    async with watched() as watch, worker_harness(without_worker, LIMITED, heartbeat_timings=mute) as worker:
        await eventually(lambda: _shares(worker, RATE))
        async with worker_harness(
            without_worker, LIMITED, heartbeat_timings=HeartbeatTimings(every=0.1, lapses=1.5, lives=1.6)
        ) as other:
            watch.workers += [worker, other]
            await eventually(lambda: _shares(other, RATE))

            assert _rate(worker) == 0
            assert RATE in watch.sums  # the first one's, while the other waited
            assert max(watch.sums) <= RATE + 0.001


async def test_a_restarted_worker_does_not_wait_for_its_dead_predecessor(without_worker: Stack) -> None:
    heartbeat_timings, process = HeartbeatTimings(every=0.1), Process("this-host", 7)
    async with worker_harness(without_worker, LIMITED, heartbeat_timings=heartbeat_timings, process=process) as killed:
        await eventually(lambda: _shares(killed, RATE))
        await killed.die()
        async with worker_harness(
            without_worker, LIMITED, heartbeat_timings=heartbeat_timings, process=process
        ) as successor:
            await eventually(lambda: _shares(successor, RATE), within=5)


async def test_a_newcomer_shares_with_those_of_its_host_that_live_and_with_other_hosts(without_worker: Stack) -> None:
    processes = [Process("this-host", os.getppid()), Process("other-host", 7), Process("this-host", 7)]
    async with AsyncExitStack() as exits:
        each = [
            await exits.enter_async_context(
                worker_harness(without_worker, LIMITED, heartbeat_timings=HEARTBEAT_TIMINGS, process=p)
            )
            for p in processes
        ]
        for worker in each:
            await eventually(lambda worker=worker: _shares(worker, RATE / 3))  # type: ignore[misc]


class Stalling(TokenErrorCutoff):
    """Takes long between the heartbeat and what follows from it."""

    async def learn(self, engaged: Collection[Route], *, changes: int) -> None:
        """Learn late."""
        await asyncio.sleep(0.4)
        await super().learn(engaged, changes=changes)


class Watch:
    """The sum of the rates of some workers, looked at often."""

    def __init__(self) -> None:
        self.workers: list[WorkerHarness] = []
        self.sums: list[float] = []

    async def look(self) -> None:
        """Look until cancelled."""
        while True:
            if self.workers:
                self.sums.append(sum(_rate(worker) for worker in self.workers))
            await asyncio.sleep(0.002)


@asynccontextmanager
async def watched() -> AsyncIterator[Watch]:
    """Watch while the block runs."""
    watch = Watch()
    looking = asyncio.create_task(watch.look())
    try:
        yield watch
    finally:
        looking.cancel()


def _rate(worker: WorkerHarness) -> float:
    return worker.dependencies.limiters.at(FCM).report().rate or 0.0


async def _shares(worker: WorkerHarness, rate: float) -> bool:
    return abs(_rate(worker) - rate) < 0.001


async def _called(simulator: Simulator, count: int) -> bool:
    return len(simulator.requests) >= count


def _most_within(instants: Sequence[float], seconds: float) -> int:
    first, most = 0, 0
    for last, instant in enumerate(instants):
        while instant - instants[first] > seconds:
            first += 1
        most = max(most, last - first + 1)
    return most
