"""A fast whose reminders are changed after some came due: what is opened late, and for which phones."""

from datetime import timedelta
from uuid import UUID

import pytest

from simulator import Simulator
from tests.stack import Phone, Stack, User, android, eventually, iphone
from tests.support.timelines import pass_unopened


@pytest.mark.parametrize(("minutes", "added"), [((60, 30), 60), ((30, 29), 29)], ids=["before it", "after it"])
async def test_a_due_reminder_that_nobody_opened_yet_is_sent_though_another_is_added_too_late(
    stack: Stack, simulator: Simulator, alice: User, minutes: tuple[int, ...], added: int
) -> None:
    phone = iphone()
    await alice.register(phone)
    session_id = await alice.start_fast(due_in=3600, minutes=(30,))
    await pass_unopened(stack, session_id, timedelta(seconds=3665))

    states = await _choose(alice, session_id, *minutes)

    assert states == {30: "due", added: "skipped"}
    assert await stack.finished(session_id) == "accepted"
    assert [(row.reminder_minutes, row.state) for row in await stack.tasks(session_id)] == [(30, "accepted")]
    assert len(simulator.requests.for_token(phone.token)) == 1


async def test_a_reminder_that_was_sent_is_not_dead_for_a_phone_that_came_when_it_was_over(
    stack: Stack, alice: User
) -> None:
    old, new = iphone(), android()
    await alice.register(old)
    session_id = await alice.start_fast(due_in=3600, minutes=(31, 30, 29))
    await pass_unopened(stack, session_id, timedelta(seconds=3597))
    await _choose(alice, session_id, 30, 29)
    assert await stack.finished(session_id) == "accepted"

    await alice.register(new)
    await _choose(alice, session_id, 30, 29, 5)
    await stack.knows(session_id, rev=3)

    async def settled() -> bool:
        told = (await stack.workflow(session_id).query("status"))["reminders"]
        return len(told) == 2 and all(row.state != "pending" for row in await stack.tasks(session_id))

    await eventually(settled)
    found = {(row.installation_id, row.reminder_minutes, row.state) for row in await stack.tasks(session_id)}
    assert found == {
        (old.installation_id, 30, "accepted"),
        (old.installation_id, 29, "accepted"),
        (new.installation_id, 29, "accepted"),  # of use until the next one is due
    }
    await alice.end(session_id)


@pytest.mark.parametrize("is_rotated", [False, True], ids=["same token", "another token"])
async def test_a_reminder_that_nobody_opened_in_time_is_dead_for_the_phones_that_missed_it_and_no_other(
    stack: Stack, simulator: Simulator, alice: User, is_rotated: bool
) -> None:
    old, new = iphone(), android()
    await alice.register(old)
    session_id = await alice.start_fast(due_in=3600, minutes=(2, 1))
    await pass_unopened(stack, session_id, timedelta(seconds=3661))
    opened_again = Phone("apns", iphone().token if is_rotated else old.token, old.installation_id)
    await alice.register(opened_again, new)

    states = await _choose(alice, session_id, 1)

    assert states == {1: "dead"}
    await stack.finished(session_id)
    found = [(row.installation_id, row.state, row.last_reason) for row in await stack.tasks(session_id)]
    assert found == [(old.installation_id, "dead", "opened_too_late")]
    assert not simulator.requests.for_token(opened_again.token)


async def test_a_reminder_that_nobody_opened_in_time_is_withheld_where_no_phone_was_there_to_miss_it(
    stack: Stack, alice: User
) -> None:
    session_id = await alice.start_fast(due_in=3600, minutes=(2, 1))
    await pass_unopened(stack, session_id, timedelta(seconds=3661))
    await alice.register(iphone())

    await _choose(alice, session_id, 1)

    await stack.finished(session_id)
    assert not await stack.tasks(session_id)
    withheld = "SELECT reason FROM withheld_pushes WHERE conversation_id = :id AND reminder_minutes = 1"
    assert [row.reason for row in await stack.rows(withheld, id=session_id)] == ["no_active_token"]


async def _choose(user: User, session_id: UUID, *minutes: int) -> dict[int, str]:
    """Choose a fast's reminders; gives how each stands."""
    body = {"reminder_minutes": list(minutes)}
    answer = await user.call("PATCH", f"/v1/fasting-sessions/{session_id}", body)
    assert answer.status_code == 200, answer.text
    return {each["minutes"]: each["state"] for each in answer.json()["reminders"]}
