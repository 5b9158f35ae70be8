"""A limiter with a rate: however much one user has waiting, others' pushes take their turns between."""

import asyncio
from dataclasses import replace
from uuid import uuid4

from simulator import Simulator
from tests.busy import in_time
from tests.routes.worker_harness import WorkerHarness, due_now, worker_harness
from tests.stack import Stack, eventually, iphone


async def test_400_pushes_of_one_user_at_one_instant_delay_nobody_by_a_second(
    without_worker: Stack, simulator: Simulator
) -> None:
    """The quotas' limits, 20 devices with 20 fasts, at 100 calls a second."""
    async with worker_harness(without_worker, {"APNS_RATE": "100"}) as worker:
        before = await _calls_before_others(without_worker, simulator, worker, digests=True)

    assert in_time(max(before) / 100, 1.0)  # at 100 calls a second


async def test_pushes_that_an_older_release_planned_have_turns_of_their_own(
    without_worker: Stack, simulator: Simulator
) -> None:
    async with worker_harness(without_worker, {"APNS_RATE": "100"}) as worker:
        before = await _calls_before_others(without_worker, simulator, worker, digests=False)

    assert in_time(max(before) / 100, 1.0)


async def _calls_before_others(
    stack: Stack, simulator: Simulator, worker: WorkerHarness, *, digests: bool
) -> list[int]:
    """Give after how many calls of one user's 400 pushes those of five others are called, who come later.

    Each has two phones.
    """
    theirs = [iphone() for _ in range(400)]
    all_theirs = await due_now(stack, theirs, of_one=f"mallory-{uuid4()}")
    phones = [[iphone(), iphone()] for _ in range(5)]
    honest = [due for pair in phones for due in await due_now(stack, pair, of_one=f"honest-{uuid4()}")]
    if not digests:
        honest = [replace(due, user_digest=0) for due in honest]
    crowd = [asyncio.create_task(worker.send(due)) for due in all_theirs]
    await eventually(lambda: _stand_in_line(worker, 150))  # more than a second's worth
    came = len(simulator.requests)
    await worker.send_all(honest)
    for each in crowd:
        each.cancel()
    await asyncio.wait(crowd)

    tokens = {phone.token for phone in theirs}
    called = [request.token for request in list(simulator.requests)[came:]]
    return [sum(token in tokens for token in called[: called.index(phone.token)]) for pair in phones for phone in pair]


async def test_a_crowd_that_is_not_let_in_leaves_the_line_as_it_gives_up(without_worker: Stack) -> None:
    all_due = await due_now(without_worker, [iphone() for _ in range(10)])

    async with worker_harness(without_worker) as worker:
        await eventually(lambda: _beats(worker))
        await worker.die()  # nobody lets anybody in
        crowd = [asyncio.create_task(worker.send_once(due)) for due in all_due]
        await eventually(lambda: _waiting(worker, 10))
        for each in crowd[1:]:
            each.cancel()
        await asyncio.wait(crowd[1:])

        assert await _waiting(worker, 1)
        crowd[0].cancel()
        await asyncio.wait(crowd)


async def _beats(worker: WorkerHarness) -> bool:
    return bool(await worker.stack.rows("SELECT 1 FROM workers"))


async def _stand_in_line(worker: WorkerHarness, at_least: int) -> bool:
    return any(limiter["waiting"] >= at_least for limiter in worker.dependencies.limiters.report()["gates"])


async def _waiting(worker: WorkerHarness, count: int) -> bool:
    return [limiter["waiting"] for limiter in worker.dependencies.limiters.report()["gates"]] == [count]
