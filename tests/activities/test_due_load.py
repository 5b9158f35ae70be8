"""While many sends are due, finished ones wait for the others' calls: for a moment, and at the same instant."""

import asyncio
from contextlib import ExitStack

from fleet.due_load import MANY, MAX_RECORD_DELAY, DueLoad
from push.sender import Accepted
from sending.attempts import check_pushes
from sending.outcomes import answered, end_attempts
from sending.precheck import Claim, Proceed
from tests.routes.worker_harness import due_now
from tests.stack import Stack, android


async def test_finished_sends_give_way_until_few_are_due_even_if_one_of_them_leaves() -> None:
    load = DueLoad()

    with ExitStack() as due:
        for _ in range(MANY):
            due.enter_context(load.taking_part())
        waiting = [asyncio.ensure_future(load.give_way()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        await asyncio.sleep(0)
        assert [each.done() for each in waiting] == [False, True, False]

    assert max(await waiting[0], await waiting[2]) < MAX_RECORD_DELAY
    assert await load.give_way() == 0.0  # nobody is due


async def test_finished_sends_give_way_to_calls_that_hang_for_a_moment_only() -> None:
    load = DueLoad()

    with ExitStack() as due:
        for _ in range(MANY):
            due.enter_context(load.taking_part())
        for _ in range(2):
            assert await load.give_way() > MAX_RECORD_DELAY / 2


async def test_a_send_that_waits_for_its_instant_is_no_load() -> None:
    load = DueLoad()

    with load.taking_part():
        with load.not_yet():
            await load.over()
            assert not load.is_near()
        assert load.is_near()


async def test_a_push_was_accepted_when_the_provider_said_so_however_late_that_is_recorded(stack: Stack) -> None:
    [due] = await due_now(stack, [android()])
    [go] = await check_pushes(stack.sessions, [Claim(due.task_id)])
    assert isinstance(go, Proceed)

    await end_attempts(stack.sessions, [answered(go, Accepted(None), 0.1, (), ago=60.0)])

    query = "SELECT extract(epoch FROM settled_at - accepted_at) AS ago FROM push_tasks WHERE task_id = :id"
    [row] = await stack.rows(query, id=due.task_id)
    assert 59 < row.ago < 61
