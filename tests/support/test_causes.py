"""A timeline blames what held a push up, tells cause before effect, and says what became of a suspect token."""

from uuid import UUID

from sqlalchemy import text

from simulator import Simulator
from tests.console.test_lines import lines_of
from tests.console.visits import visit
from tests.stack import Stack, User, iphone
from tests.support.dead import dead_task
from tests.support.timelines import events_of, timeline


async def test_a_provider_that_answers_slowly_is_blamed_and_no_worker(stack: Stack, alice: User, carol: User) -> None:
    await alice.register(iphone())
    session_id = await alice.start_fast(due_in=0.3)
    await stack.finished(session_id)
    [task] = await stack.tasks(session_id)
    async with stack.sessions.begin() as db:
        for statement in (
            "UPDATE push_tasks SET created_at = due_at, accepted_at = due_at + interval '6 s' WHERE task_id = :id",
            "UPDATE push_attempts SET latency_ms = 6000 WHERE task_id = :id",
        ):
            await db.execute(text(statement), {"id": task.task_id})

    [said] = [each["text"] for each in await timeline(carol, alice.user_id) if each["event"] == "accepted"]

    assert ", 6 s late. Apple was called at " in said
    assert " UTC, and took 6 s to answer. From here" in said


async def test_a_suspect_token_is_said_to_be_kept(stack: Stack, simulator: Simulator, alice: User, carol: User) -> None:
    phone = iphone()
    simulator.faults.add(
        provider="apns", token=phone.token, fault="answer", status=400, reason="BadDeviceToken", count=1
    )
    await alice.register(phone)
    session_id = await alice.start_fast(due_in=0.3)
    assert await stack.finished(session_id) == "unregistered"

    [said] = [each["text"] for each in await timeline(carol, alice.user_id) if each["event"] == "unregistered"]
    [line] = await lines_of(await visit(stack), alice, session_id=session_id)
    async with stack.sessions.begin() as db:  # other tests look for such words in the analytics of all
        of_session = "task_id IN (SELECT task_id FROM push_tasks WHERE conversation_id = :id)"
        for table in ("push_attempts", "push_tasks"):
            await db.execute(text(f"DELETE FROM {table} WHERE {of_session}"), {"id": session_id})

    assert said.endswith("so the token is kept, and the next push is tried with it.")
    assert line.endswith("It is active now: the settings of the service may be to blame as well, so it was kept.")


async def test_what_has_one_instant_is_told_cause_before_effect(stack: Stack, alice: User, carol: User) -> None:
    fasts = [await alice.start_fast(due_in=3600) for _ in range(6)]
    for session_id in fasts:
        await alice.end(session_id)
    async with stack.sessions.begin() as db:  # as one batch stores them
        at_once = "UPDATE fasting_sessions SET ended_at = started_at WHERE user_id = :user_id"
        await db.execute(text(at_once), {"user_id": alice.user_id})

    for session_id in fasts:
        told = await events_of(carol, alice.user_id, session_id=str(session_id))
        assert told == [("fast_started", None), ("fast_broken", None)]


async def test_an_acceptance_that_was_stored_from_its_call_alone_is_told_after_the_call(
    stack: Stack, alice: User, carol: User
) -> None:
    await alice.register(iphone())
    session_id = await alice.start_fast(due_in=0.3)
    await stack.finished(session_id)
    [task] = await stack.tasks(session_id)
    async with stack.sessions.begin() as db:
        at_once = (
            "UPDATE push_tasks t SET accepted_at = a.started_at + a.latency_ms * interval '1 ms'"
            " FROM push_attempts a WHERE a.task_id = t.task_id AND t.task_id = :id"
        )
        await db.execute(text(at_once), {"id": task.task_id})

    told = await _events_of_push(carol, alice, task.task_id)

    assert told == ["planned", "attempted", "answered", "accepted"]


async def test_a_push_that_was_superseded_as_it_was_planned_is_told_in_order(
    stack: Stack, alice: User, carol: User
) -> None:
    [task_id] = await dead_task(alice, iphone())
    async with stack.sessions.begin() as db:
        superseded = (
            "UPDATE push_tasks SET state = 'withdrawn', last_reason = 'superseded',"
            " settled_at = created_at - interval '3 us' WHERE task_id = :id"
        )
        await db.execute(text(superseded), {"id": task_id})

    told = await _events_of_push(carol, alice, task_id)

    assert told == ["planned", "withdrawn"]


async def _events_of_push(carol: User, user: User, task_id: UUID) -> list[str]:
    return [each["event"] for each in await timeline(carol, user.user_id) if each["task_id"] == str(task_id)]
