"""Who is told of a message by push, and who is not."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from activities.handoff import HandoffPlanning, PlanHandoff, PlannedHandoff
from domain.messages import PRESENCE_TRUSTED, PresencePolicy
from simulator import Simulator
from tests.busy import in_time
from tests.stack import Phone, Stack, User, android, eventually, iphone, refuse, refuse_once, uncommitted
from tests.support.timelines import timeline
from tests.talk import (
    connected,
    conversation_of,
    handed_off,
    handoff,
    has_looked,
    post,
    posted,
    store,
    sync,
    tasks_of,
)

GENERIC = {"title": "New message", "body": "Open the app to read it."}


async def test_every_phone_of_the_others_is_pushed_to_and_the_senders_is_not(
    stack: Stack, simulator: Simulator, alice: User, bob: User
) -> None:
    hers, his = iphone(), [iphone(), android()]
    await alice.register(hers)
    await bob.register(*his)
    conversation_id = await conversation_of(alice, bob)

    message_id = await posted(alice, conversation_id, "Shall we eat at 8?")

    assert await handed_off(stack, message_id) == "accepted"
    tasks = {task.installation_id: task for task in await tasks_of(stack, message_id)}
    assert set(tasks) == {phone.installation_id for phone in his}
    for phone in his:
        [receipt] = await simulator.phones.received(phone.token)
        task = tasks[phone.installation_id]
        data = {"task_id": str(task.task_id), "kind": "message", "url": f"fastbell://conversations/{conversation_id}"}
        assert _shown(receipt.request.payload) == GENERIC
        assert data.items() <= _data(receipt.request.payload).items()
        assert "eat at 8" not in str(receipt.request.payload)
        assert (task.collapse_key, task.state) == (f"conversation/{conversation_id}", "accepted")
    assert not simulator.requests.for_token(hers.token)


async def test_the_text_is_shown_to_those_who_want_it_in_their_language(
    stack: Stack, simulator: Simulator, alice: User, bob: User
) -> None:
    phone = iphone()
    await bob.register(phone, locale="de")
    await bob.call("PUT", "/v1/notification-preferences", {"message_preview": "full"})

    await handed_off(stack, await posted(alice, await conversation_of(alice, bob), "Shall we eat at 8?"))

    [receipt] = await simulator.phones.received(phone.token)
    assert _shown(receipt.request.payload) == {"title": "Neue Nachricht", "body": "Shall we eat at 8?"}


def _quiet_now() -> dict[str, str]:
    now = datetime.now(UTC)
    starts, ends = now - timedelta(hours=1), now + timedelta(hours=1)
    return {"starts": f"{starts:%H:%M}", "ends": f"{ends:%H:%M}", "time_zone": "UTC", "mode": "withhold"}


@pytest.mark.parametrize(
    "wishes", [{"messages": False}, {"quiet_hours": _quiet_now()}], ids=["switched off", "quiet hours"]
)
async def test_whoever_wants_no_push_gets_none_and_syncs_all_the_same(
    stack: Stack, alice: User, bob: User, wishes: dict[str, Any]
) -> None:
    phone = iphone()
    await bob.register(phone)
    await bob.call("PUT", "/v1/notification-preferences", wishes)

    message_id = await posted(alice, await conversation_of(alice, bob))

    assert await handed_off(stack, message_id) == "no_push"
    assert not await tasks_of(stack, message_id)
    assert [item["id"] for item in (await sync(bob, phone.installation_id))["items"]] == [str(message_id)]


async def test_a_phone_that_has_synced_past_a_message_needs_no_push_and_its_owners_other_does(
    stack: Stack, alice: User, bob: User
) -> None:
    read, unread = iphone(), iphone()
    conversation_id = await conversation_of(alice, bob)
    message_id = await posted(alice, conversation_id)  # handed off to nobody: he has no phone yet
    await handed_off(stack, message_id)
    await bob.register(read, unread)
    await sync(bob, read.installation_id, after=1)

    planned = await _plan(stack, message_id)

    [task] = await tasks_of(stack, message_id)
    assert task.installation_id == unread.installation_id
    assert [send.task_id for send in planned.sends] == [task.task_id]
    assert (planned.streaming, planned.quiet) == (0, 1)


async def test_a_phone_that_syncs_while_its_push_is_planned_gets_none(
    stack: Stack, simulator: Simulator, alice: User, bob: User
) -> None:
    phone = iphone()
    await bob.register(phone)
    conversation_id = await conversation_of(alice, bob)

    held = "SELECT 1 FROM device_tokens WHERE installation_id = :id FOR UPDATE"
    async with uncommitted(stack, held, id=phone.installation_id):  # the plan has read positions, and cannot write
        message_id = await posted(alice, conversation_id)
        await eventually(stack.someone_waits_for_a_lock)
        await sync(bob, phone.installation_id, after=1)
    await handed_off(stack, message_id)

    [task] = await tasks_of(stack, message_id)
    assert (task.state, task.last_reason, task.attempt_count) == ("withdrawn", "synced", 0)
    assert task.synced_at is not None
    assert not simulator.requests.for_token(phone.token)


async def test_ten_messages_to_a_sleeping_phone_are_one_line_that_shows_the_latest(
    stack: Stack, simulator: Simulator, alice: User, bob: User
) -> None:
    phones = [iphone(), android()]
    await bob.register(*phones)
    await bob.call("PUT", "/v1/notification-preferences", {"message_preview": "full"})
    conversation_id = await conversation_of(alice, bob)

    message_ids = [await posted(alice, conversation_id, f"number {number}") for number in range(10)]
    for message_id in message_ids:
        await handed_off(stack, message_id)

    for phone in phones:
        [line] = simulator.phone(phone.token).screen
        assert line.notification.body == "number 9"
    states = {(task.state, task.last_reason) for each in message_ids for task in await tasks_of(stack, each)}
    assert states <= {("accepted", None), ("withdrawn", "superseded")}


async def test_a_later_message_supersedes_one_that_waits_for_its_next_attempt(
    stack: Stack, simulator: Simulator, alice: User, bob: User
) -> None:
    phone = iphone()
    await bob.register(phone)
    while (messages := await _posted_in_back_off(stack, simulator, alice, bob, phone)) is None:
        pass
    first, second, before = messages
    await handed_off(stack, second)
    await handed_off(stack, first)

    [superseded] = await tasks_of(stack, first)
    [accepted] = await tasks_of(stack, second)
    assert (superseded.state, superseded.last_reason) == ("withdrawn", "superseded")
    assert accepted.state == "accepted"
    assert len(simulator.requests.for_token(phone.token)) - before == 2


async def _posted_in_back_off(
    stack: Stack, simulator: Simulator, alice: User, bob: User, phone: Phone
) -> tuple[UUID, UUID, int] | None:
    """Post a message while the push of the one before it is in back-off; None where its next attempt came sooner.

    Gives both, and the count of requests before them.
    """
    before = len(simulator.requests.for_token(phone.token))
    conversation_id = await conversation_of(alice, bob)
    refuse_once(simulator, phone)
    first = await posted(alice, conversation_id, "first")
    await eventually(lambda: _waits_again(stack, first))
    second = await posted(alice, conversation_id, "second")
    tried_sooner = (
        "SELECT 1 FROM push_attempts a JOIN push_tasks t USING (task_id) WHERE a.number = 2 AND t.message_id = :first"
        " AND a.started_at <= (SELECT created_at FROM push_tasks WHERE message_id = :second)"
    )
    await eventually(lambda: tasks_of(stack, second))
    if await stack.rows(tried_sooner, first=first, second=second):
        await handed_off(stack, second)
        return None
    return first, second, before


async def test_a_sync_during_back_off_withdraws_the_push(
    stack: Stack, simulator: Simulator, alice: User, bob: User
) -> None:
    phone = iphone()
    await bob.register(phone)
    refuse(simulator, phone)

    message_id = await posted(alice, await conversation_of(alice, bob))
    await eventually(lambda: _waits_again(stack, message_id))
    cursor = (await sync(bob, phone.installation_id))["next_cursor"]
    await sync(bob, phone.installation_id, after=cursor)
    begun = await _calls_begun(stack, message_id)
    await handed_off(stack, message_id)

    [task] = await tasks_of(stack, message_id)
    assert (task.state, task.last_reason, task.attempt_count) == ("withdrawn", "synced", begun)
    assert task.synced_at is not None
    assert len(simulator.requests.for_token(phone.token)) == begun


async def test_whoever_is_no_member_any_more_is_not_pushed_to_again(
    stack: Stack, simulator: Simulator, alice: User, bob: User
) -> None:
    phone = iphone()
    await bob.register(phone)
    refuse(simulator, phone)
    conversation_id = await conversation_of(alice, bob)

    message_id = await posted(alice, conversation_id)
    await eventually(lambda: _waits_again(stack, message_id))
    await store(stack, conversation_id, alice)
    begun = await _calls_begun(stack, message_id)
    await handed_off(stack, message_id)

    [task] = await tasks_of(stack, message_id)
    assert (task.state, task.last_reason) == ("withdrawn", "not_a_member")
    assert len(simulator.requests.for_token(phone.token)) == begun


@pytest.mark.parametrize(
    ("wishes", "reason"), [({"messages": False}, "messages_off"), ({"quiet_hours": _quiet_now()}, "quiet_hours")]
)
async def test_whoever_wants_no_push_any_more_is_not_pushed_to_again(
    stack: Stack, simulator: Simulator, alice: User, bob: User, wishes: dict[str, Any], reason: str
) -> None:
    phone, carol = iphone(), stack.user()
    await carol.register(iphone())  # hers is accepted: refusals of three people in a row would pause the route for all
    assert await handed_off(stack, await posted(alice, await conversation_of(alice, carol))) == "accepted"
    await bob.register(phone)
    refuse(simulator, phone)

    message_id = await posted(alice, await conversation_of(alice, bob))
    await eventually(lambda: _waits_again(stack, message_id))
    await bob.call("PUT", "/v1/notification-preferences", wishes)
    begun = await _calls_begun(stack, message_id)
    await handed_off(stack, message_id)

    [task] = await tasks_of(stack, message_id)
    assert (task.state, task.last_reason) == ("withdrawn", reason)
    assert len(simulator.requests.for_token(phone.token)) == begun


async def test_a_token_that_changed_hands_during_back_off_is_not_pushed_to(
    stack: Stack, simulator: Simulator, alice: User, bob: User
) -> None:
    phone, carol = iphone(), stack.user()
    await bob.register(phone)
    refuse(simulator, phone)

    message_id = await posted(alice, await conversation_of(alice, bob))
    await eventually(lambda: _waits_again(stack, message_id))
    await carol.register(Phone(phone.provider, phone.token))
    begun = await _calls_begun(stack, message_id)
    await handed_off(stack, message_id)

    [task] = await tasks_of(stack, message_id)
    assert task.state == "withdrawn"
    assert len(simulator.requests.for_token(phone.token)) == begun


async def test_a_repeated_message_is_handed_off_once(
    stack: Stack, simulator: Simulator, alice: User, bob: User
) -> None:
    phone = iphone()
    await bob.register(phone)
    conversation_id = await conversation_of(alice, bob)
    message_id = await posted(alice, conversation_id)
    await handed_off(stack, message_id)
    first = (await handoff(stack, message_id).describe()).run_id

    again = await post(alice, conversation_id, message_id=message_id)

    async def nothing_is_owed() -> bool:
        return not await stack.rows("SELECT 1 FROM outbox WHERE subject_id = :id", id=message_id)

    await eventually(nothing_is_owed)
    assert again.status_code == 200
    assert (await handoff(stack, message_id).describe()).run_id == first
    assert len(simulator.requests.for_token(phone.token)) == 1


async def test_a_phone_that_is_connected_and_stays_silent_is_pushed_to_after_all(
    stack: Stack, simulator: Simulator, alice: User, bob: User
) -> None:
    silent, reads = iphone(), iphone()
    await bob.register(silent, reads)
    for phone in (silent, reads):
        await connected(stack, bob, phone)

    message_id = await posted(alice, await conversation_of(alice, bob))
    await eventually(lambda: has_looked(stack, message_id))
    assert not await tasks_of(stack, message_id)
    await sync(bob, reads.installation_id, after=1)
    await handed_off(stack, message_id)

    [task] = await tasks_of(stack, message_id)
    assert task.installation_id == silent.installation_id
    late = (task.accepted_at - task.due_at).total_seconds()
    assert late >= 5
    assert in_time(late, 10.0)
    assert task.again_at - task.due_at == PRESENCE_TRUSTED  # late since then, not before
    items = await timeline(stack.user(None, "support"), bob.user_id, message_id=str(message_id))
    assert items[-1]["detail"]["late_seconds"] == (task.accepted_at - task.again_at).total_seconds()
    assert not simulator.requests.for_token(reads.token)


async def _plan(stack: Stack, message_id: UUID, heed: PresencePolicy = PresencePolicy.PRESENCE) -> PlannedHandoff:
    return await HandoffPlanning(stack.sessions).plan_handoff(PlanHandoff(message_id, heed))


async def _waits_again(stack: Stack, message_id: UUID) -> bool:
    tasks = await tasks_of(stack, message_id)
    return any(task.state == "pending" and task.last_reason is not None and task.attempt_count for task in tasks)


async def _calls_begun(stack: Stack, message_id: UUID) -> int:
    """Count the calls for the one push of a message that have begun."""
    [task] = await tasks_of(stack, message_id)
    return int(task.attempt_count)


def _shown(payload: Any) -> Any:
    return payload["aps"]["alert"] if "aps" in payload else payload["message"]["notification"]


def _data(payload: Any) -> Any:
    return payload["message"]["data"] if "message" in payload else payload
