"""What Temporal's Web UI shows of a workflow, and by what it is found there."""

from typing import Any
from uuid import uuid4

from temporalio.client import WorkflowHandle

from domain.push import Environment, PlannedSend, Provider, SentPush, TaskState
from simulator import Simulator
from tests.stack import Stack, android, eventually, iphone
from tests.support.dead import dead_task, redrive, redriven
from tests.talk import conversation_of, give_phones, handed_off, handoff, posted
from workflows.status import MAX_ROWS, Pushes

SERVERS = {"BuildIds", "TemporalChangeVersion"}


async def details(handle: WorkflowHandle[Any, Any]) -> list[str]:
    """Read what a workflow shows of itself, line by line."""
    return str((await handle.query("__temporal_workflow_metadata")).current_details).splitlines()


async def found_by(handle: WorkflowHandle[Any, Any]) -> dict[str, object]:
    """Read a workflow's search attributes, but for the server's own."""
    described = await handle.describe()
    return {pair.key.name: pair.value for pair in described.typed_search_attributes if pair.key.name not in SERVERS}


async def test_a_fast_that_sleeps_shows_when_each_reminder_is_due(stack: Stack) -> None:
    session_id = await stack.user().start_fast(due_in=7200, minutes=(30, 60))
    await stack.started(session_id)
    [ends_at, *_] = [
        row.ends_at for row in await stack.rows("SELECT * FROM fasting_sessions WHERE id = :id", id=session_id)
    ]

    head, _, *table = await details(stack.workflow(session_id))

    assert head.startswith("Waits for **the next reminder, to be armed at ")
    assert head.endswith(f". The fast is *active* (revision 1), its end {ends_at:%Y-%m-%d %H:%M:%S} UTC.")
    assert table[:2] == ["| Reminder | Due | Push | State |", "| --- | --- | --- | --- |"]
    assert sorted(line.partition(" min")[0] for line in table[2:]) == ["| 30", "| 60"]
    assert all(line.endswith("|  | asleep |") for line in table[2:])
    assert await found_by(stack.workflow(session_id)) == {"SessionId": str(session_id), "ReminderState": "scheduled"}
    await stack.workflow(session_id).terminate()


async def test_what_each_push_of_a_reminder_came_to_is_shown_as_soon_as_it_is_known(
    stack: Stack, simulator: Simulator
) -> None:
    user, apple, pixel = stack.user(), iphone(), android()
    await user.register(apple, pixel)
    refusal = {"status": 503, "reason": "ServiceUnavailable"}
    fault = simulator.faults.add(provider="apns", token=apple.token, fault="answer", **refusal)
    session_id = await user.start_fast(due_in=0.5)

    async def stands() -> list[str]:
        lines = (await details(stack.workflow(session_id)))[4:]
        return [line.split(" | ", 2)[2] for line in lines if "apns" in line or "fcm" in line]

    async def half_done() -> bool:
        return "accepted" in str(await stands())

    await stack.started(session_id)
    await eventually(half_done)
    apns_task, fcm_task = [task.task_id for task in await stack.tasks(session_id)]
    assert sorted(await stands()) == [f"apns `{apns_task}` | on its way |", f"fcm `{fcm_task}` | **accepted** |"]
    simulator.faults.clear()
    assert fault
    await user.end(session_id)
    await stack.finished(session_id)
    assert sorted(await stands()) == [
        f"apns `{apns_task}` | **withdrawn**: session_ended |",
        f"fcm `{fcm_task}` | **accepted** |",
    ]
    assert (await details(stack.workflow(session_id)))[0].startswith("Waits for **nothing: accepted**")
    by = {"SessionId": str(session_id), "ReminderState": "scheduled"}  # with the status Completed it means `accepted`
    assert await found_by(stack.workflow(session_id)) == by


async def test_a_redrive_is_found_by_what_it_is_about(stack: Stack) -> None:
    [task_id] = await dead_task(stack.user(), iphone())
    await redrive(stack.user(None, "support"), task_id)
    await redriven(stack, task_id)
    [task] = await stack.rows("SELECT * FROM push_tasks WHERE task_id = :id", id=task_id)

    handle = stack.temporal.get_workflow_handle(f"redrive/{task_id}")

    assert (await details(handle))[2:] == ["| Push | State |", "| --- | --- |", f"| apns `{task_id}` | **accepted** |"]
    assert await found_by(handle) == {"SessionId": str(task.conversation_id), "ReminderState": "accepted"}


async def test_each_page_of_a_large_message_is_found_by_the_message_and_counts_its_pushes(stack: Stack) -> None:
    alice, readers = stack.user(), [stack.user() for _ in range(51)]
    await give_phones(stack, readers)
    conversation_id = await conversation_of(alice, *readers)
    message_id = await posted(alice, conversation_id)
    await handed_off(stack, message_id)
    about = {"MessageId": str(message_id), "ConversationId": str(conversation_id)}

    assert await found_by(handoff(stack, message_id)) == {**about, "HandoffState": "accepted"}
    pages = [stack.temporal.get_workflow_handle(f"message-handoff/{message_id}/{page}") for page in (1, 2)]
    assert [await found_by(page) for page in pages] == [about, about]
    table = await details(pages[0])
    assert table[:2] == ["| Push | State |", "| --- | --- |"]
    assert sum(int(line.split(" | ")[0].split(": ")[1]) for line in table[2:]) == 100


def test_more_pushes_than_a_page_shows_are_counted() -> None:
    pushes = Pushes()
    sends = [PlannedSend(uuid4(), Provider.APNS, Environment.PRODUCTION) for _ in range(MAX_ROWS + 1)]
    pushes.begin(sends)
    pushes.end(SentPush(sends[0].task_id, TaskState.DEAD, "time_ran_out"))

    assert pushes.rows() == [("apns: 1", "**dead**: time_ran_out"), ("apns: 10", "on its way")]
