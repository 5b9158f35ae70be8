"""A gate with a rate: whatever one user has waiting, others' pushes take their turns between."""

import asyncio
from dataclasses import replace
from uuid import uuid4

from simulator import Simulator
from tests.gates.worker_harness import Crew, crew, due_now
from tests.stack import House, eventually, iphone


async def test_400_pushes_of_one_user_at_one_instant_delay_nobody_by_a_second(
    unmanned: House, simulator: Simulator
) -> None:
    """The quotas' limits, 20 devices with 20 fasts, at 100 calls a second."""
    async with crew(unmanned, {"APNS_RATE": "100"}) as worker:
        before = await _calls_before_others(unmanned, simulator, worker, digests=True)

    assert max(before) < 100  # a second's worth


async def test_pushes_that_an_older_release_planned_have_turns_of_their_own(
    unmanned: House, simulator: Simulator
) -> None:
    async with crew(unmanned, {"APNS_RATE": "100"}) as worker:
        before = await _calls_before_others(unmanned, simulator, worker, digests=False)

    assert max(before) < 100


async def _calls_before_others(house: House, simulator: Simulator, worker: Crew, *, digests: bool) -> list[int]:
    """Give after how many calls of one user's 400 pushes those of five others come, each with two phones."""
    theirs = [iphone() for _ in range(400)]
    all_theirs = await due_now(house, theirs, of_one=f"mallory-{uuid4()}")
    phones = [[iphone(), iphone()] for _ in range(5)]
    honest = [due for pair in phones for due in await due_now(house, pair, of_one=f"honest-{uuid4()}")]
    if not digests:
        honest = [replace(due, user_digest=0) for due in honest]
    crowd = [asyncio.create_task(worker.send(due)) for due in all_theirs]
    await eventually(lambda: _stand_in_line(worker, 150))  # more than a second's worth
    await worker.send_all(honest)
    for each in crowd:
        each.cancel()
    await asyncio.wait(crowd)

    tokens = {phone.token for phone in theirs}
    called = [request.token for request in simulator.requests]
    return [sum(token in tokens for token in called[: called.index(phone.token)]) for pair in phones for phone in pair]


async def test_a_crowd_that_is_not_let_in_leaves_the_line_as_it_gives_up(unmanned: House) -> None:
    all_due = await due_now(unmanned, [iphone() for _ in range(10)])

    async with crew(unmanned) as worker:
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


async def _beats(worker: Crew) -> bool:
    return bool(await worker.house.rows("SELECT 1 FROM workers"))


async def _stand_in_line(worker: Crew, at_least: int) -> bool:
    return any(gate["waiting"] >= at_least for gate in worker.means.gates.report()["gates"])


async def _waiting(worker: Crew, count: int) -> bool:
    return [gate["waiting"] for gate in worker.means.gates.report()["gates"]] == [count]
