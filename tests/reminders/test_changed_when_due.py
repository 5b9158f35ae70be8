"""A fast whose reminders are changed after some came due: what is opened late."""

from datetime import timedelta
from uuid import UUID

import pytest

from simulator import Simulator
from tests.house import House, User, iphone
from tests.support.timelines import pass_unopened


@pytest.fixture
def alice(house: House) -> User:
    """Somebody nobody has seen before."""
    return house.user()


@pytest.mark.parametrize(("minutes", "added"), [((60, 30), 60), ((30, 29), 29)], ids=["before it", "after it"])
async def test_a_due_reminder_that_nobody_opened_yet_is_sent_though_another_is_added_too_late(
    house: House, simulator: Simulator, alice: User, minutes: tuple[int, ...], added: int
) -> None:
    phone = iphone()
    await alice.register(phone)
    session_id = await alice.start_fast(due_in=3600, minutes=(30,))
    await pass_unopened(house, session_id, timedelta(seconds=3665))

    states = await _choose(alice, session_id, *minutes)

    assert states == {30: "due", added: "skipped"}
    assert await house.finished(session_id) == "accepted"
    assert [(row.reminder_minutes, row.state) for row in await house.tasks(session_id)] == [(30, "accepted")]
    assert len(simulator.requests.for_token(phone.token)) == 1


async def _choose(user: User, session_id: UUID, *minutes: int) -> dict[int, str]:
    """Choose a fast's reminders; gives how each stands."""
    body = {"reminder_minutes": list(minutes)}
    answer = await user.call("PATCH", f"/v1/fasting-sessions/{session_id}", body)
    assert answer.status_code == 200, answer.text
    return {each["minutes"]: each["state"] for each in answer.json()["reminders"]}
