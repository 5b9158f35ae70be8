"""Promise 2: no push to a token that is not, at that moment, an active token of the addressed user."""

from uuid import UUID

import pytest

from simulator import Simulator
from tests.busy import lead
from tests.stack import Phone, Stack, User, android, eventually, iphone, start_held, uncommitted


@pytest.fixture(params=[iphone, android], ids=["apns", "fcm"])
def phone(request: pytest.FixtureRequest) -> Phone:
    """A phone of each provider."""
    found: Phone = request.param()
    return found


async def test_a_phone_that_changed_hands_while_the_fast_slept_shows_nothing(
    stack: Stack, unarmed: Stack, simulator: Simulator, phone: Phone
) -> None:
    alice, bob = unarmed.user(), stack.user()
    await alice.register(phone)
    session_id = await alice.start_fast(due_in=lead(1.2))

    await bob.register(phone)

    await stack.finished(session_id)
    assert not simulator.requests.for_token(phone.token)
    assert not await stack.tasks(session_id)


async def test_a_phone_that_changed_hands_between_planning_and_sending_shows_nothing(
    stack: Stack, simulator: Simulator, phone: Phone
) -> None:
    alice, bob, session_id = await _armed(stack, phone)

    await bob.register(phone)

    await stack.finished(session_id)
    assert not simulator.requests.for_token(phone.token)
    assert await _ends(stack, session_id) == [("withdrawn", "token_transferred")]
    assert alice.user_id != bob.user_id


async def test_a_token_that_moved_to_another_installation_is_not_pushed_for_the_former_one(
    stack: Stack, simulator: Simulator, phone: Phone
) -> None:
    _, bob, session_id = await _armed(stack, phone)

    await bob.register(Phone(phone.provider, phone.token))

    await stack.finished(session_id)
    assert not simulator.requests.for_token(phone.token)
    assert await _ends(stack, session_id) == [("withdrawn", "no_active_token")]


async def test_a_sign_out_between_planning_and_sending_is_respected(
    stack: Stack, simulator: Simulator, phone: Phone
) -> None:
    alice, _, session_id = await _armed(stack, phone)

    await alice.call("DELETE", f"/v1/device-tokens/{phone.installation_id}")

    await stack.finished(session_id)
    assert not simulator.requests.for_token(phone.token)
    assert await _ends(stack, session_id) == [("withdrawn", "no_active_token")]


async def test_a_transfer_not_yet_committed_as_the_last_check_looks_is_waited_for(
    stack: Stack, simulator: Simulator, phone: Phone
) -> None:
    _, _, session_id = await _armed(stack, phone)
    taken = "UPDATE device_tokens SET active = false, inactive_reason = 'transferred' WHERE token = :token"

    async with uncommitted(stack, taken, token=phone.token):
        await eventually(stack.someone_waits_for_a_lock)

    await stack.finished(session_id)
    assert not simulator.requests.for_token(phone.token)
    assert await _ends(stack, session_id) == [("withdrawn", "no_active_token")]


async def test_a_phone_that_changed_hands_during_back_off_shows_nothing_of_the_former_owner(
    stack: Stack, simulator: Simulator, phone: Phone
) -> None:
    alice, bob = stack.user(), stack.user()
    await alice.register(phone)
    simulator.faults.add(provider=phone.provider, token=phone.token, fault="close")
    session_id = await alice.start_fast(due_in=1.0)
    await eventually(lambda: stack.failed_attempts(session_id, 1))

    await bob.register(phone)
    simulator.faults.clear()
    bobs = await bob.start_fast(due_in=1.0)

    await stack.finished(session_id)
    await stack.finished(bobs)
    assert await _ends(stack, session_id) == [("withdrawn", "token_transferred")]
    [line] = simulator.phone(phone.token).screen
    assert line.data["url"] == f"fastbell://fasting-sessions/{bobs}"


async def test_a_token_that_rotated_between_planning_and_sending_is_followed(
    stack: Stack, simulator: Simulator, phone: Phone
) -> None:
    alice, _, session_id = await _armed(stack, phone)
    rotated = Phone(phone.provider, (iphone() if phone.provider == "apns" else android()).token, phone.installation_id)

    await alice.register(rotated)

    await stack.finished(session_id)
    assert not simulator.requests.for_token(phone.token)
    assert len(simulator.phone(rotated.token).screen) == 1


async def _armed(stack: Stack, phone: Phone) -> tuple[User, User, UUID]:
    alice, bob = stack.user(), stack.user()
    await alice.register(phone)
    [session_id] = await start_held(alice, due_in=lead(2.0))
    return alice, bob, session_id


async def _ends(stack: Stack, session_id: UUID) -> list[tuple[str, str]]:
    return [(task.state, task.last_reason) for task in await stack.tasks(session_id)]
