"""A reminder and a phone whose token rotates, whose app may not notify, and whose line is tapped."""

from collections.abc import Callable
from uuid import UUID

import httpx
import pytest

from simulator import Simulator
from tests.busy import ANSWERED_WITHIN
from tests.stack import Phone, Stack, User, android, eventually, iphone


async def does(simulator: Simulator, phone: Phone, what: str) -> dict[str, str]:
    """Let a phone do something."""
    async with httpx.AsyncClient(timeout=ANSWERED_WITHIN) as client:
        answer = await client.post(f"{simulator.url}/phones/{phone.token}/{what}")
    assert answer.status_code == 200, answer.text
    told: dict[str, str] = answer.json()
    return told


async def declare(simulator: Simulator, phone: Phone, permission: str = "granted") -> None:
    """Let the simulator know a phone before its first push."""
    form = {"provider": phone.provider, "permission": permission}
    async with httpx.AsyncClient(timeout=ANSWERED_WITHIN) as client:
        assert (await client.put(f"{simulator.url}/phones/{phone.token}", json=form)).status_code == 200


async def needs_refresh(user: User) -> bool:
    """Tell whether the app learns that it has to register again."""
    return all(row["refresh_required"] for row in (await user.call("GET", "/v1/device-tokens")).json()["items"])


@pytest.mark.parametrize("new_phone", [iphone, android])
async def test_a_reminder_that_meets_a_rotated_token_reaches_the_phone_once_it_registers_again(
    stack: Stack, simulator: Simulator, new_phone: Callable[[], Phone]
) -> None:
    alice, phone = stack.user(), new_phone()
    await alice.register(phone)
    await declare(simulator, phone)
    token = (await does(simulator, phone, "rotate"))["token"]
    session_id = await alice.start_fast(due_in=0.5)
    assert await stack.finished(session_id) == "unregistered"
    await eventually(lambda: needs_refresh(alice))

    await alice.register(Phone(phone.provider, token, phone.installation_id))
    await simulator.phones.received(token)
    tapped = await does(simulator, phone, "tap")

    assert tapped["url"] == f"fastbell://fasting-sessions/{session_id}"
    opened = await alice.call("POST", f"/v1/push-tasks/{tapped['task_id']}/opened")
    [task] = await stack.tasks(session_id)
    assert (opened.status_code, task.task_id, task.opened_at is None) == (204, UUID(tapped["task_id"]), False)
    assert simulator.phone(token).screen == []


async def test_a_phone_that_may_not_notify_is_sent_the_reminder_all_the_same(
    stack: Stack, simulator: Simulator
) -> None:
    alice, phones = stack.user(), (iphone(), android())
    for phone in phones:
        await alice.register(phone, permission="denied")
        await declare(simulator, phone, "denied")

    assert await stack.finished(await alice.start_fast(due_in=0.5)) == "accepted"

    fates = [[receipt.reason for receipt in simulator.phone(phone.token).log] for phone in phones]
    assert fates == [["permission_denied"]] * 2
    assert [simulator.phone(phone.token).screen for phone in phones] == [[], []]
