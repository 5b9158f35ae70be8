"""What becomes of a push whose time is over when its turn comes."""

from uuid import UUID

import pytest
from sqlalchemy import text
from temporalio.exceptions import ApplicationError

from domain.push import TaskState
from simulator import Simulator
from tests.gates.crew import crew, due_now
from tests.house import House, Phone, android, iphone, refuse_once


@pytest.mark.parametrize("phone", [iphone(), android()], ids=["apns", "fcm"])
async def test_trouble_that_lasts_until_the_end_makes_a_push_dead_not_silently_expired(
    unmanned: House, simulator: Simulator, phone: Phone
) -> None:
    refuse_once(simulator, phone)
    [due] = await due_now(unmanned, [phone])

    async with crew(unmanned) as worker:
        with pytest.raises(ApplicationError):
            await worker.send_once(due)
        await _let_expire(unmanned, due.task_id)
        sent = await worker.send_once(due, attempt=2)

    reason = {"apns": "ServiceUnavailable", "fcm": "UNAVAILABLE"}[phone.provider]
    assert (sent.state, sent.reason) == (TaskState.DEAD, reason)
    assert len(simulator.requests.for_token(phone.token)) == 1


async def test_a_push_that_comes_too_late_without_trouble_has_expired(unmanned: House, simulator: Simulator) -> None:
    phone = iphone()
    [due] = await due_now(unmanned, [phone])
    await _let_expire(unmanned, due.task_id)

    async with crew(unmanned) as worker:
        sent = await worker.send_once(due)

    assert (sent.state, sent.reason) == (TaskState.EXPIRED, "too_late")
    assert not simulator.requests.for_token(phone.token)


async def _let_expire(house: House, task_id: UUID) -> None:
    async with house.sessions.begin() as db:
        await db.execute(text("UPDATE push_tasks SET expires_at = now() WHERE task_id = :id"), {"id": task_id})
