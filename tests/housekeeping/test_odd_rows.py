"""Rows that this release cannot read hold up neither dispatch nor sweeps: everybody else is found, and served."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from db import retention, workers
from db.engine import present_instant
from domain.fasts import FastingSession, SessionStatus
from domain.housekeeping import DEFAULT_KEEP, RetentionTarget
from tests import fasts
from tests.busy import in_time
from tests.housekeeping.sweeps import AGO, change, stray, sweep, without_workflow
from tests.stack import Stack, User, iphone
from tests.support.dead import task
from tests.talk import conversation_of, posted

ODD_FASTS = (
    "ends_at = 'infinity'",
    "ends_at = '20000-01-01'",
    "ends_at = '294276-12-31 23:59:59'",
    "status = 'dreaming', ended_at = now()",
    "reminder_minutes = '{NULL,-5,99999}'",
    "reminder_minutes = '{{1,2},{3,4}}'",
    "scheduled_at = '-infinity'",
    "scheduled_at = 'infinity'",
    "started_at = '-infinity'",
)
ODD_PREFERENCES = (
    "quiet_starts = '24:00', quiet_ends = '24:00'",
    "quiet_time_zone = 'Mars/Olympus'",
    "reminder_minutes = '{NULL}'",
)
ODD_PUSHES = (
    "kind = 'haiku'",
    "provider = 'webpush'",
    "environment = 'staging'",
    "due_at = '-infinity'",
    "due_at = '4713-11-24 BC'",
    "next_attempt_at = '4713-11-24 BC', again_at = 'infinity'",
    "expires_at = 'infinity'",
    "next_attempt_at = '-infinity'",
    "created_at = 'infinity'",
)
QUIET = {"starts": "03:00", "ends": "03:01", "time_zone": "UTC"}


async def test_a_sweep_finds_the_lost_fast_and_buries_the_orphan_though_others_rows_are_odd(
    stack: Stack, alice: User
) -> None:
    odd_fasts = await asyncio.gather(*(without_workflow(stack.user()) for _ in ODD_FASTS))
    for session_id, values in zip(odd_fasts, ODD_FASTS, strict=True):
        await change(stack, f"UPDATE fasting_sessions SET {values} WHERE id = :id", id=session_id)
    for values in ODD_PREFERENCES:
        user = stack.user()
        await user.call("PUT", "/v1/notification-preferences", {"quiet_hours": QUIET})
        await without_workflow(user)
        await change(stack, f"UPDATE preferences SET {values} WHERE user_id = :id", id=user.user_id)
    strays = await asyncio.gather(*(stray(each, iphone()) for each in (alice, *(stack.user() for _ in ODD_PUSHES))))
    [orphan, *odd_pushes] = [task_id for [task_id] in strays]
    for task_id, values in zip(odd_pushes, ODD_PUSHES, strict=True):
        await change(stack, f"UPDATE push_tasks SET {values} WHERE task_id = :id", id=task_id)
    lost = await without_workflow(alice)

    await sweep(stack)

    await stack.started(lost)
    assert (await task(stack, orphan)).state == "dead"
    await change(stack, "DELETE FROM push_attempts WHERE task_id = ANY(:ids)", ids=odd_pushes)
    await change(stack, "DELETE FROM push_tasks WHERE task_id = ANY(:ids)", ids=odd_pushes)
    await change(stack, "DELETE FROM fasting_sessions WHERE id = ANY(:ids)", ids=odd_fasts)


async def test_a_fast_is_dispatched_though_what_cannot_be_read_is_owed_before_it(stack: Stack, alice: User) -> None:
    odd_fasts = [await stack.user().start_fast(due_in=600) for _ in ODD_FASTS]
    for session_id, values in zip(odd_fasts, ODD_FASTS, strict=True):
        await stack.started(session_id)
        await change(stack, f"UPDATE fasting_sessions SET {values} WHERE id = :id", id=session_id)
    owed = [(kind, uuid4()) for kind in ("haiku", "message", "push_task", "test_push", "fasting_session")]
    owed += [("fasting_session", session_id) for session_id in odd_fasts]
    for number, (kind, subject_id) in enumerate(owed):
        await change(
            stack,
            "INSERT INTO outbox (subject_kind, subject_id, needed_at, next_attempt_at, attempts, traceparent)"
            " VALUES (:kind, :id, CAST(CAST(:needed_at AS text) AS timestamptz), '-infinity', :attempts, :traceparent)",
            kind=kind,
            id=subject_id,
            needed_at=("-infinity", "4000-01-01 BC", "now")[number % 3],
            attempts=(0, -1, 2**31 - 1)[number % 3],
            traceparent=(None, "", "00-zz-\u20ac")[number % 3],
        )

    session_id = uuid4()
    async with stack.sessions.begin() as db:
        began_at = await present_instant(db)
        ends_at = began_at + timedelta(minutes=10)
        session = FastingSession(
            session_id, alice.user_id, began_at, ends_at, SessionStatus.ACTIVE, None, (1,), began_at, rev=1
        )
        await fasts.start(db, session)

    await stack.started(session_id)
    await change(stack, "DELETE FROM outbox WHERE subject_id = ANY(:ids)", ids=[each for _, each in owed])
    await change(stack, "DELETE FROM fasting_sessions WHERE id = ANY(:ids)", ids=odd_fasts)


@pytest.mark.parametrize("at", ["infinity", "2126-01-01", "294276-12-31 23:59:59"])
async def test_a_fast_that_is_owed_at_an_instant_that_never_comes_is_reminded_on_time(
    stack: Stack, alice: User, at: str
) -> None:
    await alice.register(iphone())
    session_id = uuid4()
    async with stack.sessions.begin() as db:
        began_at = await present_instant(db)
        ends_at = began_at + timedelta(seconds=5)
        session = FastingSession(
            session_id, alice.user_id, began_at, ends_at, SessionStatus.ACTIVE, None, (0,), began_at, rev=1
        )
        await fasts.start(db, session)
        await db.execute(
            text(
                "UPDATE outbox SET next_attempt_at = CAST(CAST(:at AS text) AS timestamptz),"
                " needed_at = CAST(CAST(:at AS text) AS timestamptz) WHERE subject_id = :id"
            ),
            {"at": at, "id": session_id},
        )

    await stack.started(session_id)
    assert await stack.finished(session_id) == "accepted"
    [sent] = await stack.tasks(session_id)
    assert in_time((sent.accepted_at - sent.due_at).total_seconds(), 2.0)


@pytest.mark.parametrize("expires_at", ["infinity", "2126-01-01"])
async def test_a_lease_that_never_ends_is_nobodys(stack: Stack, expires_at: str) -> None:
    first, second, lasts = uuid4(), uuid4(), timedelta(seconds=15)
    async with stack.sessions() as db:
        assert await workers.take(db, "odd", first, lasts)
        odd = "UPDATE leases SET expires_at = CAST(CAST(:at AS text) AS timestamptz), found = :found WHERE name = 'odd'"
        await db.execute(text(odd).bindparams(bindparam("found", type_=JSONB)), {"at": expires_at, "found": [7]})

        assert await workers.take(db, "odd", second, lasts)
        assert await workers.take(db, "odd", first, lasts) is None
        assert await workers.reported(db, "odd") == {}


@pytest.mark.parametrize("seen_at", ["infinity", "2126-01-01", "-infinity"])
async def test_a_worker_that_was_seen_at_an_odd_instant_takes_no_share_of_the_rate_and_goes(
    stack: Stack, seen_at: str
) -> None:
    odd = "INSERT INTO workers (worker_id, seen_at, gates) VALUES (:id, CAST(CAST(:at AS text) AS timestamptz), '{}')"
    worker_id = uuid4()
    async with stack.sessions() as db:
        others = (await workers.beat(db, uuid4(), {}, lives=10)).others
        await db.execute(text(odd), {"id": worker_id, "at": seen_at})

        assert (await workers.beat(db, uuid4(), {}, lives=10)).others == others + 1  # the one before
        assert worker_id not in {row.worker_id for row in await workers.live(db)}
        assert (await retention.purge(db, RetentionTarget.WORKERS, DEFAULT_KEEP)).count == 1


@pytest.mark.parametrize(
    "values",
    ["next_attempt_at = 'infinity'", "next_attempt_at = '2126-01-01'", "next_attempt_at = NULL, attempt_count = 1"],
)
async def test_a_push_whose_time_is_over_is_an_orphan_whatever_its_next_try_or_its_call_says(
    stack: Stack, alice: User, values: str
) -> None:
    [task_id] = await stray(alice, iphone())
    await change(stack, f"UPDATE push_tasks SET {values}, expires_at = {AGO} WHERE task_id = :id", id=task_id)
    if "attempt_count" in values:
        call = "INSERT INTO push_attempts (attempt_id, task_id, number, started_at)"
        await change(stack, f"{call} VALUES (gen_random_uuid(), :id, 1, 'infinity')", id=task_id)

    await sweep(stack)

    assert (await task(stack, task_id)).state == "dead"


async def test_retention_goes_on_behind_rows_that_are_odd(stack: Stack, alice: User, bob: User) -> None:
    await alice.register(iphone())
    await posted(bob, await conversation_of(bob, alice))
    [device] = await stack.rows("SELECT id FROM device_tokens WHERE user_id = :id", id=alice.user_id)
    async with stack.sessions() as db:
        for table, columns in (
            ("device_token_events", "device_id, event, at) SELECT :id, 'registered', "),
            (
                "withheld_pushes",
                (
                    "user_id, kind, conversation_id, message_id, reason, at)"
                    " SELECT 'odd', 'message', :id, gen_random_uuid(), 'synced', "
                ),
            ),
        ):
            await db.execute(text(f"DELETE FROM {table}"))
            for at, count in (("'infinity'", 400), ("'2126-01-01'", 400), ("now() - interval '31 days'", 900)):
                rows = f"INSERT INTO {table} ({columns}{at} FROM generate_series(1, {count})"
                await db.execute(text(rows), {"id": device.id})
        mine = {"user": alice.user_id}
        await db.execute(text("UPDATE log_heads SET oldest_at = '-infinity' WHERE user_id = :user"), mine)
        never = "UPDATE messages SET created_at = 'infinity' WHERE id IN (SELECT message_id FROM log_items"
        await db.execute(text(f"{never} WHERE user_id = :user)"), mine)

        gone = {
            what: [await retention.purge(db, what, DEFAULT_KEEP) for _ in range(4)]
            for what in (RetentionTarget.TOKEN_EVENTS, RetentionTarget.WITHHELD_PUSHES, RetentionTarget.LOG_ITEMS)
        }
        oldest = "SELECT oldest_at <= clock_timestamp() FROM log_heads WHERE user_id = :user"
        looked_at_again = (await db.execute(text(oldest), mine)).scalar_one()

    assert [each.count for each in gone[RetentionTarget.TOKEN_EVENTS]] == [500, 500, 500, 200]
    assert [each.count for each in gone[RetentionTarget.WITHHELD_PUSHES]] == [500, 500, 500, 200]
    assert looked_at_again
