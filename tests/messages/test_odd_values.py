"""Values of PostgreSQL that Python lacks, in one person's rows: no answer about them fails.

That nobody else pays for such a row: `test_odd_rows.py` here and in `tests/housekeeping/`.
"""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, time
from math import isfinite
from uuid import uuid4

import pytest

from db import push_tasks
from db.push_tasks import Update
from db.unreadable import EARLIEST, LATEST, read_json
from db.views import analytics
from db.views.analytics import SPANS
from domain.push import TaskState
from sending.attempts import check_pushes
from sending.precheck import Claim, Proceed
from tests.messages.test_odd_rows import ODD, asks, change, member, refused
from tests.stack import Stack, User, iphone, make_app, make_stack
from tests.support.dead import dead_task, redrive, redriven, task
from tests.talk import conversation_of, handed_off, post, posted, sync

INSTANTS = {
    ("device_tokens", "id"): "registered_at last_seen_at",
    ("device_token_events", "id"): "at",
    ("fasting_sessions", "id"): "scheduled_at",
    ("messages", "id"): "created_at handed_off_at",
    ("push_tasks", "task_id"): "due_at expires_at created_at accepted_at settled_at next_attempt_at again_at synced_at",
    ("push_attempts", "attempt_id"): "started_at retry_at",
    ("support_actions", "id"): "at",
    ("sync_positions", "installation_id"): "synced_at",
    ("withheld_pushes", "id"): "at",
}
DOCUMENTS = {("fasting_sessions", "id"): "started_with", ("support_actions", "id"): "detail"}
DEEP = "[" * 3000 + "]" * 3000
ODD_DOCUMENTS = [
    "7",
    "[]",
    "null",
    '"x"',
    '{"ends_at": 7, "reminder_minutes": "x", "dead_at": 7}',
    '{"ends_at": "2026-02-31T00:00:00Z", "reminder_minutes": {"a": [1]}, "dead_at": "2026-02-31T00:00:00Z"}',
    '{"ends_at": "infinity", "reminder_minutes": [null, "x"], "dead_at": "infinity"}',
    f'{{"ends_at": {"9" * 5000}, "attempts": {"9" * 400}.5}}',
    f'{{"ends_at": {DEEP}, "reminder_minutes": {DEEP}}}',
]
HERS = {
    "device_token_events": "device_id IN (SELECT id FROM device_tokens WHERE user_id = :user)",
    "messages": "id IN (SELECT message_id FROM log_items WHERE user_id = :user)",
    "push_attempts": "task_id IN (SELECT task_id FROM push_tasks WHERE user_id = :user)",
    "support_actions": "subject_id IN (SELECT task_id FROM push_tasks WHERE user_id = :user)",
}


@pytest.mark.parametrize(
    ("columns", "kind", "values"),
    [
        (
            INSTANTS,
            "timestamptz",
            ["infinity", "-infinity", "20000-01-01", "4000-01-01 BC", "294276-12-31 23:59:59", "4713-11-24 BC"],
        ),
        (DOCUMENTS, "jsonb", ODD_DOCUMENTS),
    ],
    ids=["instants", "documents"],
)
async def test_no_value_keeps_its_owner_or_support_from_an_answer(
    stack: Stack, columns: dict[tuple[str, str], str], kind: str, values: list[str]
) -> None:
    odd = await member(stack, ODD["a locale"])
    user, carol = odd.user, stack.user("carol", "support")
    [task_id, _] = await dead_task(user, odd.first, odd.second)
    assert (await redrive(carol, task_id)).status_code == 202
    assert await redriven(stack, task_id) == ("accepted", None)  # so that nothing changes any more
    writer = stack.user()
    message_id = await posted(writer, await conversation_of(writer, user))
    assert await handed_off(stack, message_id) == "accepted"
    await sync(user, odd.first.installation_id, after=1)
    await change(
        stack,
        "INSERT INTO withheld_pushes (user_id, kind, conversation_id, message_id, reason)"
        " VALUES (:user, 'reminder', :id, :id, 'reminders_off')",
        user=user.user_id,
        id=uuid4(),
    )
    of_person, of_all = await asks(odd, task_id)
    trouble = []

    for value in values:
        async with AsyncExitStack() as exits:
            for (table, key), names in columns.items():
                hers = HERS.get(table, "user_id = :user")
                await exits.enter_async_context(
                    odd_rows(user, f"{table} WHERE {hers}", key, names.split(), value, kind)
                )
            trouble += [(value[:40], *each) for each in await refused(of_person + of_all)]

    assert trouble == []


@asynccontextmanager
async def odd_rows(
    user: User, whose: str, key: str, columns: Sequence[str], value: str, kind: str
) -> AsyncIterator[None]:
    """Put a value into each of these columns that holds one, and what was there back afterwards."""
    stack, (table, _, hers) = user.stack, whose.partition(" WHERE ")
    before = await stack.rows(f"SELECT {key}, {', '.join(columns)} FROM {whose}", user=user.user_id)
    odd = ", ".join(
        f"{each} = CASE WHEN {each} IS NOT NULL THEN CAST(CAST(:value AS text) AS {kind}) END" for each in columns
    )
    await change(stack, f"UPDATE {table} SET {odd} WHERE {hers}", value=value, user=user.user_id)
    try:
        yield
    finally:
        back = ", ".join(f"{each} = CAST(:{each} AS {kind})" for each in columns)
        for row_id, *values in before:
            stored = [json.dumps(each) if kind == "jsonb" else each for each in values]
            await change(
                stack,
                f"UPDATE {table} SET {back} WHERE {key} = :id",
                id=row_id,
                **dict(zip(columns, stored, strict=True)),
            )


def test_json_without_bounds_is_null_where_it_has_none() -> None:
    assert read_json(f'[1, {"9" * 5000}, {"9" * 400}.5, "x"]') == [1, None, None, "x"]
    assert read_json(DEEP) is None


async def test_instants_and_times_of_day_come_out_as_the_nearest_that_python_has(stack: Stack) -> None:
    [found] = await stack.rows(
        "SELECT CAST('infinity' AS timestamptz), CAST('-infinity' AS timestamptz), CAST('20000-01-01' AS timestamptz),"
        " CAST('4000-01-01 BC' AS timestamptz), CAST('24:00' AS time), CAST('23:59:59.999999' AS time),"
        " CAST('2026-02-28 23:30:00.000001+05' AS timestamptz)"
    )

    there = datetime(2026, 2, 28, 18, 30, 0, 1, tzinfo=UTC)
    assert tuple(found) == (LATEST, EARLIEST, LATEST, EARLIEST, time(0), time.max, there)
    [(back, of_day)] = await stack.rows(
        "SELECT CAST(:at AS timestamptz), CAST(:of_day AS time)", at=there, of_day=time.max
    )
    assert (back, of_day) == (there, time.max)


@pytest.mark.parametrize("full_at", ["infinity", "-infinity", "294276-12-31 23:59:59", "4713-11-24 BC"])
async def test_somebody_whose_allowance_is_odd_posts_as_if_it_were_full(
    stack: Stack, alice: User, full_at: str
) -> None:
    async with make_stack(stack.place, make_app(stack.place, MESSAGE_BURST="2", MESSAGE_RATE="1/day")) as limited:
        writer = limited.user(alice.user_id)
        conversation_id = await conversation_of(writer)
        await posted(writer, conversation_id)
        await change(
            stack,
            "UPDATE message_allowances SET full_at = CAST(CAST(:at AS text) AS timestamptz) WHERE user_id = :user",
            at=full_at,
            user=alice.user_id,
        )

        answers = [await post(writer, conversation_id) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [201, 201, 429]


@pytest.mark.parametrize("again_at", ["infinity", "-infinity", "294276-12-31 23:59:59"])
async def test_outcomes_of_a_batch_are_stored_at_once_though_one_push_was_redriven_at_an_odd_instant(
    stack: Stack, alice: User, again_at: str
) -> None:
    task_ids = await dead_task(alice, *(iphone() for _ in range(3)))
    query = "UPDATE push_tasks SET state = 'pending', again_at = CAST(CAST(:at AS text) AS timestamptz)"
    await change(stack, f"{query} WHERE task_id = :id", at=again_at, id=task_ids[0])
    await change(stack, "UPDATE push_tasks SET state = 'pending' WHERE task_id = ANY(:ids)", ids=task_ids[1:])

    verdicts = await check_pushes(stack.sessions, [Claim(each) for each in task_ids])
    async with stack.sessions.begin() as db:
        await push_tasks.apply(db, [Update(each, TaskState.ACCEPTED, None) for each in task_ids])

    assert [type(verdict) for verdict in verdicts] == [Proceed] * 3
    assert {(await task(stack, each)).state for each in task_ids} == {"accepted"}
    [step, *_] = sorted(await analytics.lately(stack.sessions, SPANS[0]), key=lambda each: each.at, reverse=True)
    assert step.late_p99 is None or isfinite(step.late_p99)
    await change(stack, "UPDATE push_tasks SET again_at = NULL WHERE task_id = :id", id=task_ids[0])
