"""Promise 1: no reminder starts towards a provider after its session ended, was cancelled or its goal moved.

Each change of mind meets the reminder in each moment of its life, forced by locks and faults rather than by luck.
"""

from collections import Counter
from collections.abc import Awaitable, Mapping
from datetime import UTC, datetime
from enum import Enum
from types import MappingProxyType
from uuid import UUID

import pytest

from simulator import Simulator
from tests.busy import lead
from tests.stack import Phone, Stack, User, android, eventually, iphone, refuse, start_held, uncommitted

LATER = 2.0  # seconds from a move to the new due instant


class Change(Enum):
    """How the user changes their mind."""

    END = "session_ended"
    CANCEL = "session_cancelled"
    MOVE = "goal_moved"


async def _apply(change: Change, user: User, session_id: UUID) -> None:
    match change:
        case Change.END:
            await user.end(session_id)
        case Change.CANCEL:
            await user.cancel(session_id)
        case Change.MOVE:
            await user.move_goal(session_id, due_in=lead(LATER))


@pytest.fixture(params=Change, ids=lambda change: change.name.lower())
def change(request: pytest.FixtureRequest) -> Change:
    """Each way of changing one's mind."""
    found: Change = request.param
    return found


async def test_nothing_is_sent_when_the_fast_is_over_while_its_workflow_sleeps(
    stack: Stack, unarmed: Stack, simulator: Simulator, change: Change
) -> None:
    user, phones = await _user_with_two_phones(unarmed)
    session_id = await user.start_fast(due_in=lead(1.5))
    await eventually(lambda: _is_asleep(stack, session_id))

    changed_at = await _now_after(_apply(change, user, session_id))

    await _assert_nothing_old_came(stack, simulator, session_id, phones, change, changed_at)
    assert not [task for task in await stack.tasks(session_id) if task.attempt_count and change is not Change.MOVE]


async def test_nothing_is_sent_when_the_fast_is_over_in_the_instant_of_waking(
    stack: Stack, unarmed: Stack, simulator: Simulator, change: Change
) -> None:
    user, phones = await _user_with_two_phones(unarmed)
    async with uncommitted(stack, "LOCK TABLE push_tasks IN EXCLUSIVE MODE"):  # the plan has read the session and hangs
        session_id = await user.start_fast(due_in=lead(1.0))
        await eventually(stack.someone_waits_for_a_lock)
        changed_at = await _now_after(_apply(change, user, session_id))

    await _assert_nothing_old_came(stack, simulator, session_id, phones, change, changed_at)


async def test_nothing_is_sent_when_the_fast_is_over_while_its_sends_are_armed(
    stack: Stack, simulator: Simulator, change: Change
) -> None:
    user, phones = await _user_with_two_phones(stack)
    [session_id] = await start_held(user, due_in=lead(1.5), sends=2)

    changed_at = await _now_after(_apply(change, user, session_id))

    await _assert_nothing_old_came(stack, simulator, session_id, phones, change, changed_at)
    states = {(task.state, task.last_reason) for task in await stack.tasks(session_id)}
    assert ("withdrawn", change.value) in states


async def test_nothing_is_sent_when_the_change_is_not_yet_committed_as_the_last_check_looks(
    stack: Stack, simulator: Simulator, change: Change
) -> None:
    user, phones = await _user_with_two_phones(stack)
    [session_id] = await start_held(user, due_in=lead(1.0), sends=2)

    async with uncommitted(stack, _CHANGES[change], id=session_id):
        await eventually(stack.someone_waits_for_a_lock)  # the check waits for the change instead of passing it

    await stack.finished(session_id)
    for phone in phones:
        assert not simulator.requests.for_token(phone.token)
    assert {(task.state, task.last_reason) for task in await stack.tasks(session_id)} == {("withdrawn", change.value)}


async def test_nothing_more_is_sent_when_the_fast_is_over_during_back_off(
    stack: Stack, simulator: Simulator, change: Change
) -> None:
    user, phones = await _user_with_two_phones(stack)
    for phone in phones:
        refuse(simulator, phone)
    session_id = await user.start_fast(due_in=1.0)
    await eventually(lambda: stack.failed_attempts(session_id, 2))

    changed_at = await _now_after(_apply(change, user, session_id))
    begun = await _calls_begun(stack, session_id)
    simulator.faults.clear()

    await _assert_nothing_old_came(stack, simulator, session_id, phones, change, changed_at, begun=begun)


@pytest.mark.parametrize("change", [Change.END, Change.CANCEL])
async def test_a_call_under_way_when_the_fast_is_over_is_recorded_and_told_as_what_it_came_to(
    stack: Stack, simulator: Simulator, change: Change
) -> None:
    user, phones = await _user_with_two_phones(stack)
    for phone in phones:
        simulator.faults.add(provider=phone.provider, token=phone.token, fault="slow", delay=9, count=1)
    session_id = await user.start_fast(due_in=1.0)
    for phone in phones:
        await simulator.phones.received(phone.token)  # the provider has it; its answer is on the way

    await _apply(change, user, session_id)
    await stack.knows(session_id, rev=2)
    assert await _attempts(stack, session_id) == [None, None]
    simulator.faults.clear()  # and arrives

    assert await stack.finished(session_id) == "accepted"
    assert await _attempts(stack, session_id) == ["accepted", "accepted"]
    assert {(task.state, task.last_reason) for task in await stack.tasks(session_id)} == {("accepted", None)}
    for phone in phones:
        assert len(simulator.requests.for_token(phone.token)) == 1
        assert [line.times_received for line in simulator.phone(phone.token).screen] == [1]


_CHANGES = {
    Change.END: "UPDATE fasting_sessions SET status = 'broken', ended_at = now(), rev = rev + 1 WHERE id = :id",
    Change.CANCEL: "UPDATE fasting_sessions SET status = 'cancelled', ended_at = now(), rev = rev + 1 WHERE id = :id",
    Change.MOVE: "UPDATE fasting_sessions SET ends_at = ends_at + interval '1 hour', rev = rev + 1 WHERE id = :id",
}


async def _user_with_two_phones(stack: Stack) -> tuple[User, list[Phone]]:
    user, phones = stack.user(), [iphone(), android()]
    await user.register(*phones)
    return user, phones


async def _assert_nothing_old_came(
    stack: Stack,
    simulator: Simulator,
    session_id: UUID,
    phones: list[Phone],
    change: Change,
    changed_at: datetime,
    *,
    begun: Mapping[str, int] = MappingProxyType({}),
) -> None:
    """Check that a fast that is over sends nothing more, and that a moved one sends once, at the new instant.

    `begun`: how many calls to each provider had begun before it was over.
    """
    await stack.finished(session_id)
    for phone in phones:
        calls, before = simulator.requests.for_token(phone.token), begun.get(phone.provider, 0)
        if change is not Change.MOVE:
            assert len(calls) == before
            continue
        due = "SELECT ends_at - interval '1 minute' AS due_at FROM fasting_sessions WHERE id = :id"
        [reminder] = await stack.rows(due, id=session_id)
        assert len(calls) == before + 1
        assert calls[-1].received_at >= reminder.due_at > changed_at
        assert len(simulator.phone(phone.token).screen) == 1


async def _calls_begun(stack: Stack, session_id: UUID) -> dict[str, int]:
    """Count the calls of a session that have begun, by provider."""
    joined = "SELECT provider FROM push_attempts JOIN push_tasks USING (task_id) WHERE conversation_id = :id"
    return Counter(row.provider for row in await stack.rows(joined, id=session_id))


async def _attempts(stack: Stack, session_id: UUID) -> list[str | None]:
    """Read the results of a session's provider calls; None: under way."""
    joined = "SELECT outcome FROM push_attempts JOIN push_tasks USING (task_id) WHERE conversation_id = :id"
    return [row.outcome for row in await stack.rows(joined, id=session_id)]


async def _is_asleep(stack: Stack, session_id: UUID) -> bool:
    try:
        return "next reminder" in (await stack.workflow(session_id).query("status"))["waiting_for"]
    except Exception:  # noqa: BLE001 -- not started yet
        return False


async def _now_after(call: Awaitable[None]) -> datetime:
    await call
    return datetime.now(UTC)
