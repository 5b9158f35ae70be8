"""Erasure meets what is under way: sleeping, armed, held, in back-off, in flight, just being written."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from activities.handoff import HandoffPlanning, PlanHandoff
from activities.reminders import Moment, OpenReminder, ReminderOpening
from db.erasures import Erasing
from dispatch.eraser import Eraser
from domain.messages import PresencePolicy
from operations.erasure import erase_rows
from sending.attempts import check_pushes
from sending.precheck import ATTEMPT_LEASE, Claim, Proceed
from simulator import Simulator
from tests.busy import lead
from tests.erasure.leaving import all_done, change, done, erased, holding, leave, path_of, state_of, workflows_about
from tests.stack import Stack, User, android, eventually, iphone, uncommitted
from tests.support.dead import dead_task
from tests.support.timelines import of
from tests.talk import conversation_of, handed_off, post, posted, posted_and_refused, tasks_of


@pytest.mark.long  # it waits for the due instant
async def test_from_the_answer_on_no_push_starts_although_the_sends_are_held(
    stack: Stack, alice: User, simulator: Simulator
) -> None:
    phone = iphone()
    await alice.register(phone)
    ahead = lead(2.5)
    session_id = await alice.start_fast(due_in=ahead)
    await eventually(lambda: stack.holds_sends(session_id, 1))

    erasure_id = await leave(stack, alice.user_id)

    await done(stack, erasure_id)
    await eventually(lambda: _gone(stack, session_id))
    await asyncio.sleep(ahead)  # past the due instant
    assert simulator.requests.for_token(phone.token) == []


async def test_a_call_that_has_begun_may_end_and_is_erased_with_its_outcome(stack: Stack, alice: User) -> None:
    [task_id] = await dead_task(alice, iphone())
    await change(stack, "UPDATE push_tasks SET state = 'pending', last_reason = NULL WHERE task_id = :id", id=task_id)
    [begun] = await check_pushes(stack.sessions, [Claim(task_id)])
    assert isinstance(begun, Proceed)

    erasure_id = await leave(stack, alice.user_id)
    await Eraser(stack.sessions, stack.temporal).work()

    assert await stack.rows("SELECT 1 FROM push_tasks WHERE task_id = :id", id=task_id)
    [refused] = await check_pushes(stack.sessions, [Claim(task_id)])
    assert not isinstance(refused, Proceed)
    await change(stack, "UPDATE push_attempts SET outcome = 'accepted' WHERE task_id = :id", id=task_id)
    await done(stack, erasure_id)
    assert await holding(stack, [alice.user_id, str(task_id)]) == set()


async def test_a_push_in_back_off_is_not_tried_again(stack: Stack, alice: User, simulator: Simulator) -> None:
    phone = android()
    simulator.faults.add(provider="fcm", token=phone.token, fault="answer", status=503, error_code="UNAVAILABLE")
    await alice.register(phone)
    session_id = await alice.start_fast(due_in=1.0)
    await eventually(lambda: stack.failed_attempts(session_id, 1))

    await leave(stack, alice.user_id)

    calls = len(simulator.requests.for_token(phone.token))
    simulator.faults.clear()
    await all_done(stack)
    assert len(simulator.requests.for_token(phone.token)) == calls


async def test_a_reminder_that_is_opened_meanwhile_leaves_no_row(stack: Stack, alice: User) -> None:
    await alice.register(iphone())
    session_id = await alice.start_fast(due_in=600)
    [fast] = await stack.rows("SELECT ends_at FROM fasting_sessions WHERE id = :id", id=session_id)

    erasure_id = await leave(stack, alice.user_id)
    opened = await ReminderOpening(stack.sessions).open_reminder(
        OpenReminder(session_id, 1, fast.ends_at - timedelta(minutes=1), Moment.DUE)
    )

    assert opened.sends == ()
    assert await stack.rows("SELECT 1 FROM messages WHERE conversation_id = :id", id=session_id)
    await done(stack, erasure_id)
    assert await holding(stack, [alice.user_id, str(session_id)]) == set()


async def test_what_knows_of_the_time_before_brings_nothing_back_once_the_person_is_back(
    stack: Stack, alice: User, bob: User
) -> None:
    phone = iphone()
    [task_id] = await dead_task(alice, phone)
    session_id = await alice.start_fast(due_in=600)
    [fast] = await stack.rows("SELECT ends_at FROM fasting_sessions WHERE id = :id", id=session_id)
    message_id = await posted(bob, await conversation_of(alice, bob))
    await handed_off(stack, message_id)
    await erased(stack, alice.user_id)

    await alice.register(phone)
    due_at = fast.ends_at - timedelta(minutes=1)
    opened = await ReminderOpening(stack.sessions).open_reminder(OpenReminder(session_id, 1, due_at, Moment.DUE))
    ask = PlanHandoff(message_id, PresencePolicy.NOTHING, paged=True)
    planned = await HandoffPlanning(stack.sessions).plan_handoff(ask)
    [checked] = await check_pushes(stack.sessions, [Claim(task_id)])

    assert (opened.withheld, planned.sends) == ("session_missing", ())
    assert getattr(checked, "reason", None) == "task_missing"
    assert {table for table, _ in await holding(stack, [alice.user_id])} <= {"device_tokens", *_OF_EVENTS}
    assert await holding(stack, [str(session_id), str(task_id)]) == set()


_OF_EVENTS = ("unnumbered_events", "events")  # that they have registered


async def test_what_began_before_and_commits_late_is_erased_too(stack: Stack, alice: User) -> None:
    late = "INSERT INTO preferences (user_id, reminders, reminder_minutes, messages, reminder_preview, message_preview)"
    values = " VALUES (:id, true, '{}', true, 'full', 'full')"
    async with uncommitted(stack, late + values, id=alice.user_id):
        erasure_id = await leave(stack, alice.user_id)
        await Eraser(stack.sessions, stack.temporal).work()
        assert await state_of(stack, erasure_id) == "running"

    await done(stack, erasure_id)
    assert await holding(stack, [alice.user_id]) == set()


async def test_what_has_read_before_and_writes_afterwards_cannot_bring_anybody_back(stack: Stack, alice: User) -> None:
    """A transaction that has only read takes no lock; so the erasure is not done before it has ended."""
    async with uncommitted(stack, "SELECT 1"):
        erasure_id = await leave(stack, alice.user_id)
        await Eraser(stack.sessions, stack.temporal).work()
        assert await state_of(stack, erasure_id) == "running"

    await done(stack, erasure_id)


async def test_writes_are_refused_until_it_is_done(stack: Stack, alice: User, bob: User, carol: User) -> None:
    phone = iphone()
    await alice.register(phone)
    conversation_id = await conversation_of(alice, bob)
    session_id = await alice.start_fast(due_in=600)
    [task_id] = await dead_task(alice, phone)
    erasure_id = await leave(stack, alice.user_id)
    backend, later = stack.user("backend", "service"), datetime.now(UTC) + timedelta(hours=1)

    for _ in range(2):  # with the rows, and when they are gone and the name is not
        answers = {
            "register": await alice.call(
                "PUT", f"/v1/device-tokens/{phone.installation_id}", {"provider": "apns", "token": phone.token}
            ),
            "start": await alice.call("PUT", f"/v1/fasting-sessions/{uuid4()}", {"ends_at": later.isoformat()}),
            "move": await alice.call("PATCH", f"/v1/fasting-sessions/{session_id}", {"ends_at": later.isoformat()}),
            "end": await alice.call("POST", f"/v1/fasting-sessions/{session_id}/end"),
            "cancel": await alice.call("POST", f"/v1/fasting-sessions/{session_id}/cancel"),
            "preferences": await alice.call("PUT", "/v1/notification-preferences", {"reminders": False}),
            "some": await alice.call("PATCH", "/v1/notification-preferences", {"reminders": False}),
            "link": await alice.call("POST", "/v1/preference-links"),
            "post": await post(alice, conversation_id),
            "opened": await alice.call("POST", f"/v1/push-tasks/{task_id}/opened"),
            "join": await backend.call(
                "PUT", f"/v1/conversations/{uuid4()}", {"member_ids": [bob.user_id, alice.user_id]}
            ),
            "test": await carol.call("POST", of(alice.user_id, "test-push"), {}),
        }
        statuses = {name: (answer.status_code, answer.json()["type"]) for name, answer in answers.items()}
        refused = dict.fromkeys(answers, (409, "urn:fastbell:problem:being-erased"))
        assert statuses == refused | {"test": (409, "urn:fastbell:problem:no-active-token")}
        assert (await alice.call("DELETE", f"/v1/device-tokens/{phone.installation_id}")).status_code == 204
        assert (await backend.call("GET", path_of(alice.user_id, "/export"))).status_code == 409
        assert await erase_rows(stack.sessions, Erasing(erasure_id, alice.user_id, 0), ATTEMPT_LEASE, within=10.0)

    await done(stack, erasure_id)
    assert await holding(stack, [alice.user_id]) == set()
    assert (await alice.call("POST", f"/v1/push-tasks/{task_id}/opened")).status_code == 404
    await alice.register(phone)


async def test_a_message_that_is_being_pushed_to_others_is_withdrawn(stack: Stack, alice: User, bob: User) -> None:
    phone = iphone()
    await bob.register(phone)
    message_id = await posted_and_refused(alice, await conversation_of(alice, bob), phone)

    await erased(stack, alice.user_id)

    [task] = await tasks_of(stack, message_id)
    assert (task.state, task.last_reason) in {("withdrawn", "message_erased"), ("accepted", None)}
    assert await eventually(lambda: _gone(stack, message_id))


async def test_a_push_about_an_erased_message_is_withdrawn_by_its_last_check(
    stack: Stack, alice: User, bob: User
) -> None:
    await bob.register(iphone())
    message_id = await posted(alice, await conversation_of(alice, bob))
    await handed_off(stack, message_id)
    await erased(stack, alice.user_id)
    [task] = await tasks_of(stack, message_id)
    again = "state = 'pending', last_reason = NULL, accepted_at = NULL, settled_at = NULL"
    await change(stack, f"UPDATE push_tasks SET {again} WHERE task_id = :id", id=task.task_id)
    await change(stack, "DELETE FROM push_attempts WHERE task_id = :id", id=task.task_id)

    [verdict] = await check_pushes(stack.sessions, [Claim(task.task_id)])

    assert getattr(verdict, "reason", None) == "message_erased"


async def test_a_post_to_a_conversation_of_somebody_who_leaves_reaches_the_others(
    stack: Stack, alice: User, bob: User
) -> None:
    """Their log takes nothing more, though their membership may not be deleted yet."""
    await bob.register(iphone())
    conversation_id = await conversation_of(alice, bob)
    erasure_id = await leave(stack, alice.user_id)

    message_id = await posted(bob, conversation_id)
    await HandoffPlanning(stack.sessions).plan_handoff(PlanHandoff(message_id, PresencePolicy.NOTHING, paged=True))

    logs = await stack.rows("SELECT user_id FROM log_items WHERE message_id = :id", id=message_id)
    assert [row.user_id for row in logs] == [bob.user_id]
    await done(stack, erasure_id)
    assert await holding(stack, [alice.user_id]) == set()


async def test_a_workflow_that_is_just_being_dispatched_is_awaited(stack: Stack, alice: User) -> None:
    """Its row of the outbox says that a relay may start it at any moment."""
    session_id = await alice.start_fast(due_in=600)
    await stack.started(session_id)
    await eventually(lambda: _nothing_owed(stack, session_id))
    put_off = "now() + interval '40 seconds'"
    await change(
        stack,
        f"INSERT INTO outbox (subject_kind, subject_id, next_attempt_at) VALUES ('fasting_session', :id, {put_off})",
        id=session_id,
    )
    erasure_id = await leave(stack, alice.user_id)

    for _ in range(2):
        await Eraser(stack.sessions, stack.temporal).work()
        await change(stack, "UPDATE erasures SET next_attempt_at = now() WHERE id = :id", id=erasure_id)

    assert await state_of(stack, erasure_id) == "running"
    assert (await stack.workflow(session_id).describe()).status
    await change(stack, "DELETE FROM outbox WHERE subject_id = :id", id=session_id)
    await done(stack, erasure_id)
    assert await eventually(lambda: _gone(stack, session_id))


async def _gone(stack: Stack, *ids: object) -> bool:
    return not await workflows_about(stack, *ids)  # type: ignore[arg-type]


async def _nothing_owed(stack: Stack, session_id: object) -> bool:
    return not await stack.rows("SELECT 1 FROM outbox WHERE subject_id = :id", id=session_id)
