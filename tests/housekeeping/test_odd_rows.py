"""Rows that this release cannot read hold up neither dispatch nor sweeps: everybody else is found, and served."""

import asyncio
from datetime import timedelta
from uuid import uuid4

from db import fasting_sessions
from db.engine import present_instant
from domain.sessions import FastingSession, SessionStatus
from tests.house import House, User, iphone
from tests.housekeeping.sweeps import change, stray, sweep, without_workflow
from tests.support.dead import task

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
    house: House, alice: User
) -> None:
    odd_fasts = await asyncio.gather(*(without_workflow(house.user()) for _ in ODD_FASTS))
    for session_id, values in zip(odd_fasts, ODD_FASTS, strict=True):
        await change(house, f"UPDATE fasting_sessions SET {values} WHERE id = :id", id=session_id)
    for values in ODD_PREFERENCES:
        user = house.user()
        await user.call("PUT", "/v1/notification-preferences", {"quiet_hours": QUIET})
        await without_workflow(user)
        await change(house, f"UPDATE preferences SET {values} WHERE user_id = :id", id=user.user_id)
    strays = await asyncio.gather(*(stray(each, iphone()) for each in (alice, *(house.user() for _ in ODD_PUSHES))))
    [orphan, *odd_pushes] = [task_id for [task_id] in strays]
    for task_id, values in zip(odd_pushes, ODD_PUSHES, strict=True):
        await change(house, f"UPDATE push_tasks SET {values} WHERE task_id = :id", id=task_id)
    lost = await without_workflow(alice)

    await sweep(house)

    await house.started(lost)
    assert (await task(house, orphan)).state == "dead"
    await change(house, "DELETE FROM push_attempts WHERE task_id = ANY(:ids)", ids=odd_pushes)
    await change(house, "DELETE FROM push_tasks WHERE task_id = ANY(:ids)", ids=odd_pushes)
    await change(house, "DELETE FROM fasting_sessions WHERE id = ANY(:ids)", ids=odd_fasts)


async def test_a_fast_is_dispatched_though_what_cannot_be_read_is_owed_before_it(house: House, alice: User) -> None:
    odd_fasts = [await house.user().start_fast(due_in=600) for _ in ODD_FASTS]
    for session_id, values in zip(odd_fasts, ODD_FASTS, strict=True):
        await house.started(session_id)
        await change(house, f"UPDATE fasting_sessions SET {values} WHERE id = :id", id=session_id)
    owed = [(kind, uuid4()) for kind in ("haiku", "message", "push_task", "test_push", "fasting_session")]
    owed += [("fasting_session", session_id) for session_id in odd_fasts]
    for number, (kind, subject_id) in enumerate(owed):
        await change(
            house,
            "INSERT INTO outbox (subject_kind, subject_id, needed_at, next_attempt_at, attempts, traceparent)"
            " VALUES (:kind, :id, CAST(CAST(:needed_at AS text) AS timestamptz), '-infinity', :attempts, :traceparent)",
            kind=kind,
            id=subject_id,
            needed_at=("-infinity", "4000-01-01 BC", "now")[number % 3],
            attempts=(0, -1, 2**31 - 1)[number % 3],
            traceparent=(None, "", "00-zz-\u20ac")[number % 3],
        )

    session_id = uuid4()
    async with house.sessions.begin() as db:
        began_at = await present_instant(db)
        ends_at = began_at + timedelta(minutes=10)
        session = FastingSession(
            session_id, alice.user_id, began_at, ends_at, SessionStatus.ACTIVE, None, (1,), began_at, rev=1
        )
        assert await fasting_sessions.start(db, session, {})  # as by an API process that dies at once

    await house.started(session_id)
    await change(house, "DELETE FROM outbox WHERE subject_id = ANY(:ids)", ids=[each for _, each in owed])
    await change(house, "DELETE FROM fasting_sessions WHERE id = ANY(:ids)", ids=odd_fasts)
