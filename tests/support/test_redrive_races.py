"""A redrive is accepted, then the world changes before the push is sent: the check at that moment decides."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from simulator import Simulator
from tests.servers import TemporalServer, free_port
from tests.stack import (
    Phone,
    Stack,
    StackPlace,
    User,
    android,
    eventually,
    iphone,
    make_app,
    make_stack,
    refuse_once,
    temporal_client,
    uncommitted,
    working,
)
from tests.support.dead import dead_task, redrive, redriven, task

CHANGES = {
    "session_ended": "UPDATE fasting_sessions SET status = 'broken', ended_at = now(), rev = rev + 1 WHERE id = :id",
    "session_cancelled": "UPDATE fasting_sessions SET status = 'cancelled', ended_at = now(), rev = 2 WHERE id = :id",
    "goal_moved": "UPDATE fasting_sessions SET ends_at = ends_at + interval '1 hour', rev = rev + 1 WHERE id = :id",
}


@pytest.mark.parametrize("reason", CHANGES)
async def test_a_fast_that_ends_as_its_push_is_redriven_sends_nothing(
    stack: Stack, simulator: Simulator, alice: User, carol: User, reason: str
) -> None:
    phone = iphone()
    [task_id] = await dead_task(alice, phone)
    session_id = (await task(stack, task_id)).conversation_id

    async with uncommitted(stack, CHANGES[reason], id=session_id):
        assert (await redrive(carol, task_id)).status_code == 202  # which saw the fast as it was
        await eventually(stack.someone_waits_for_a_lock)

    assert await redriven(stack, task_id) == ("withdrawn", reason)
    assert not simulator.requests.for_token(phone.token)


async def test_a_fast_that_ends_while_a_redrive_backs_off_sends_nothing_more(
    stack: Stack, simulator: Simulator, alice: User, carol: User
) -> None:
    phone = iphone()
    task_id = await _backing_off(simulator, alice, carol, phone)

    await alice.end((await task(stack, task_id)).conversation_id)

    assert await redriven(stack, task_id) == ("withdrawn", "session_ended")
    assert len(simulator.requests.for_token(phone.token)) == 1


async def test_a_phone_that_changes_hands_as_its_push_is_redriven_shows_nothing(
    stack: Stack, simulator: Simulator, alice: User, carol: User
) -> None:
    phone = iphone()
    [task_id] = await dead_task(alice, phone)
    taken = "UPDATE device_tokens SET active = false, inactive_reason = 'transferred' WHERE token = :token"

    async with uncommitted(stack, taken, token=phone.token):
        assert (await redrive(carol, task_id)).status_code == 202
        await eventually(stack.someone_waits_for_a_lock)

    assert await redriven(stack, task_id) == ("withdrawn", "no_active_token")
    assert not simulator.requests.for_token(phone.token)


async def test_a_phone_that_changes_hands_while_a_redrive_backs_off_shows_nothing_of_the_former_owner(
    stack: Stack, simulator: Simulator, alice: User, carol: User
) -> None:
    phone = iphone()
    task_id = await _backing_off(simulator, alice, carol, phone)

    await stack.user().register(phone)

    assert await redriven(stack, task_id) == ("withdrawn", "token_transferred")
    assert len(simulator.requests.for_token(phone.token)) == 1


async def test_a_push_that_expires_as_it_is_redriven_is_not_sent(
    stack: Stack, simulator: Simulator, alice: User, carol: User
) -> None:
    phone = iphone()
    [task_id] = await dead_task(alice, phone)
    session_id = (await task(stack, task_id)).conversation_id

    async with uncommitted(stack, "SELECT 1 FROM fasting_sessions WHERE id = :id FOR UPDATE", id=session_id):
        assert (await redrive(carol, task_id)).status_code == 202
        await eventually(stack.someone_waits_for_a_lock)
        async with uncommitted(stack, "UPDATE push_tasks SET expires_at = now() WHERE task_id = :id", id=task_id):
            pass

    assert await redriven(stack, task_id) == ("dead", "Shutdown")
    assert not simulator.requests.for_token(phone.token)


async def test_a_redriven_push_whose_time_runs_out_is_dead_again(
    stack: Stack, simulator: Simulator, alice: User, carol: User
) -> None:
    phone = android()
    [task_id] = await dead_task(alice, phone)
    simulator.faults.add(
        provider="fcm",
        token=phone.token,
        fault="answer",
        status=429,
        error_code="QUOTA_EXCEEDED",
        retry_after=3600,
    )

    assert (await redrive(carol, task_id)).status_code == 202

    assert await redriven(stack, task_id) == ("dead", "QUOTA_EXCEEDED")
    simulator.faults.clear()
    assert (await redrive(carol, task_id)).status_code == 202
    assert (await redriven(stack, task_id))[0] == "accepted"
    assert [line.times_received for line in simulator.phone(phone.token).screen] == [1]


async def test_a_redrive_is_accepted_without_temporal_and_sent_once_it_is_there(
    new_database: Callable[[str], Awaitable[str]], simulator: Simulator, tmp_path: Path
) -> None:
    server = TemporalServer(free_port(), database=tmp_path / "temporal.db")
    place = StackPlace(await new_database("redrive_away"), server.address, "default", simulator)
    environment = place.environment()
    app = make_app(place)
    async with make_stack(place, app, lazy=True) as api_stack:
        phone = iphone()
        [task_id] = await dead_task(api_stack.user(), phone, minutes=10)  # the server may take long to start

        assert (await redrive(api_stack.user(None, "support"), task_id)).status_code == 202

        await server.run()
        try:
            stack = replace(api_stack, temporal=await temporal_client(place))
            async with working(stack, environment):
                assert await redriven(stack, task_id) == ("accepted", None)
        finally:
            server.kill()
    assert len(simulator.requests.for_token(phone.token)) == 1


async def _backing_off(simulator: Simulator, owner: User, carol: User, phone: Phone) -> UUID:
    """Give a redriven push task whose first call was refused, and which waits for the next one."""
    [task_id] = await dead_task(owner, phone)
    refuse_once(simulator, phone)
    assert (await redrive(carol, task_id)).status_code == 202
    await eventually(lambda: _failed(owner.stack, task_id))
    return task_id


async def _failed(stack: Stack, task_id: UUID) -> bool:
    return bool(await stack.rows("SELECT 1 FROM push_attempts WHERE task_id = :id AND outcome <> ''", id=task_id))
