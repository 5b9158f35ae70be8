"""What support reads of a push that is held up: why, whose move it is, when it is tried next; before, during, after."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from temporalio.exceptions import ApplicationError

from db import token_error_cutoffs
from db.support_actions import Actor
from domain.fasts import message_id
from domain.push import PlannedSend, TaskState
from fleet.heartbeat import Heartbeat, HeartbeatTimings
from push.limiter.breaker import Cause, Rest
from push.limiter.settings import Timings
from simulator import Simulator
from tests.console.visits import visit, words
from tests.routes.worker_harness import (
    WorkerHarness,
    due_now,
    engaged_cutoff,
    refused_until_cut_off,
    worker_harness,
)
from tests.stack import Phone, Stack, android, eventually, iphone
from tests.support.cli import run
from tests.support.timelines import of

SOON = HeartbeatTimings(every=0.1)
LONG = Timings(rests=dict.fromkeys(Cause, Rest(first=60.0, longest=60.0)))
BLAME = "the app was removed"


async def test_without_a_worker_every_place_says_so(without_worker: Stack) -> None:
    [due] = await due_now(without_worker, [iphone()])
    user_id = await _user_id(without_worker, due)

    told = await _timeline(without_worker, due)
    _, printed, _ = await run(without_worker, "timeline", "--user", user_id)
    page = words(await (await visit(without_worker)).get(f"/console/person?user={user_id}"))

    [now] = told["present"]
    assert (now["event"], now["task_id"], now["detail"]["waits_for"]) == ("waits", str(due.task_id), "worker")
    assert "No worker has reported for 10 s, so nothing is sent." in now["text"]
    assert printed.splitlines()[0].startswith("Now (")
    assert printed.splitlines()[1].strip() == now["text"]
    assert page.index(now["text"]) < page.index("Planned the reminder")


async def test_in_an_outage_the_resting_route_is_named_and_afterwards_how_late_it_was(
    without_worker: Stack, simulator: Simulator
) -> None:
    simulator.faults.add(provider="apns", fault="answer", status=503, reason="ServiceUnavailable")
    all_due = [(await due_now(without_worker, [iphone()]))[0] for _ in range(8)]

    async with worker_harness(without_worker, timings=LONG, heartbeat_timings=SOON) as worker:
        await asyncio.gather(*(_fail(worker, due) for due in all_due))
        await eventually(lambda: _fail_until_open(worker, without_worker, all_due[0]))
        during = await _timeline(without_worker, all_due[0])
    simulator.faults.clear()
    await _make_late(without_worker, all_due[1], timedelta(seconds=130))
    async with worker_harness(without_worker, heartbeat_timings=SOON) as mended:
        assert (await mended.send(all_due[1])).state is TaskState.ACCEPTED
        after = await _timeline(without_worker, all_due[1])

    [now] = during["present"]
    assert (now["detail"]["waits_for"], now["reason"]) == ("route", "ServiceUnavailable")
    assert f"is paused until {_clock(now, 'route_until')}: Apple answered that it is unavailable." in now["text"]
    assert now["text"].endswith(f" It expires at {_clock(now, 'expires_at')}.")
    assert during["items"]
    assert not [item for item in during["items"] if "unclear" in item["text"]]
    assert after["present"] == []
    accepted = after["items"][0]
    assert accepted["event"] == "accepted"
    assert 130 <= accepted["detail"]["late_seconds"] < 190
    assert ", 2 min " in accepted["text"]
    assert "What held it up last: Apple answered that it is unavailable." in accepted["text"]
    assert not [item for item in after["items"] if "next try" in item["text"]]


async def test_in_an_outage_support_does_not_read_what_one_users_probe_met_but_what_three_met(
    without_worker: Stack, simulator: Simulator
) -> None:
    phone, others = iphone(), [iphone() for _ in range(6)]
    odd = {"provider": "apns", "fault": "answer", "status": 403, "reason": "InvalidProviderToken"}
    simulator.faults.add(token=phone.token, **odd)
    simulator.faults.add(provider="apns", fault="answer", status=503, reason="ServiceUnavailable", count=3)
    simulator.faults.add(**odd)
    waiting = (await due_now(without_worker, [iphone()]))[0]

    async with worker_harness(without_worker, heartbeat_timings=SOON) as worker:
        for each in others[:3]:
            await _call(worker, simulator, each)
        await _call(worker, simulator, phone)
        during = await _present_anew(without_worker, waiting)
        for each in others[3:]:
            await _call(worker, simulator, each)
        found = await _present_anew(without_worker, waiting)

    assert (during["detail"]["waits_for"], during["reason"]) == ("route", "ServiceUnavailable")
    assert "Apple answered that it is unavailable." in during["text"]
    assert (found["detail"]["waits_for"], found["reason"]) == ("route", "InvalidProviderToken")


async def test_under_the_cutoff_no_phone_is_blamed_and_nothing_is_promised_that_is_refused(
    without_worker: Stack, simulator: Simulator
) -> None:
    simulator.faults.add(provider="apns", fault="answer", status=400, reason="BadDeviceToken")
    all_due = [(await due_now(without_worker, [iphone()]))[0] for _ in range(25)]
    late = (await due_now(without_worker, [iphone()]))[0]
    both = without_worker.user()
    await both.register(phone := iphone(), android())
    await both.start_fast(due_in=70)

    async with worker_harness(without_worker, heartbeat_timings=SOON) as worker:
        await refused_until_cut_off(without_worker, worker, all_due)
        await _fail(worker, late)
        dead = await eventually(lambda: _dead(without_worker, all_due))
        during, waiting = await _timeline(without_worker, dead), await _timeline(without_worker, late)
        ahead = (await without_worker.user(None, "support").call("GET", of(both.user_id))).json()["present"]
        _, listed, _ = await run(without_worker, "dead", "list", "--user", await _user_id(without_worker, dead))
        brake_id = await engaged_cutoff(without_worker, "apns")
        async with without_worker.sessions.begin() as db:
            assert await token_error_cutoffs.release(db, brake_id, Actor("ann"))
            await db.execute(_NEXT_LOOK, {"id": late.task_id})
        after, resumed = await _timeline(without_worker, dead), await _timeline(without_worker, late)

    assert "brake_engaged" in listed
    for told in (during, waiting):
        [now] = told["present"]
        assert (now["detail"]["waits_for"], now["detail"]["brake_id"]) == ("resume", str(brake_id))
        assert "An operator has to find the cause and resume the route" in now["text"]
    held = {now["detail"]["waits_for"]: (now["provider"], now["installation_id"]) for now in ahead}
    assert held.keys() == {"resume", "due"}, "phone by phone, since one is held up and the other is not"
    assert held["resume"] == ("apns", str(phone.installation_id))
    assert held["due"][0] == "fcm"
    died, answered = during["items"][:2]
    assert died["event"] == "dead"
    assert died["text"].startswith("Sending to iPhones was stopped at ")
    assert "First an operator has to find the cause and resume the route." in died["text"]
    assert "(BadDeviceToken)" in answered["text"]
    assert BLAME not in str(during)
    assert "A person can redrive it until" not in died["text"]
    [now] = after["present"]
    assert (now["detail"]["waits_for"], now["reason"]) == ("redrive", "BadDeviceToken")
    assert after["items"][0]["text"].startswith("Sending to iPhones was stopped at ")
    assert f"A person can redrive it until {_clock(now, 'expires_at')}." in after["items"][0]["text"]
    assert BLAME not in str(after["items"])
    assert BLAME not in now["text"]
    [goes_on] = resumed["present"]
    assert (goes_on["detail"]["waits_for"], goes_on["reason"]) == ("retry", "brake_engaged")
    assert "The route was resumed, and the push is tried again. The next try is at " in goes_on["text"]
    assert "has to" not in goes_on["text"]


async def test_a_phone_that_was_sent_too_much_waits_by_itself(without_worker: Stack, simulator: Simulator) -> None:
    phone = android()
    words_ = {"status": 429, "error_code": "QUOTA_EXCEEDED"}
    simulator.faults.add(provider="fcm", token=phone.token, fault="answer", **words_)
    [due] = await due_now(without_worker, [phone])

    async with worker_harness(without_worker, heartbeat_timings=SOON) as worker:
        await _fail(worker, due)
        [now] = (await _timeline(without_worker, due))["present"]

    assert (now["detail"]["waits_for"], now["reason"]) == ("retry", "QUOTA_EXCEEDED")
    assert "Google says that this phone was sent too many pushes." in now["text"]
    assert f" The next try is at {_clock(now, 'next_attempt_at')}." in now["text"]


async def test_a_provider_that_asks_for_more_patience_than_is_left_is_named(
    without_worker: Stack, simulator: Simulator
) -> None:
    phone = android()
    asked = {"error_code": "UNAVAILABLE", "retry_after": 86_400}
    simulator.faults.add(provider="fcm", token=phone.token, fault="answer", **asked)
    [due] = await due_now(without_worker, [phone])

    async with worker_harness(without_worker, heartbeat_timings=SOON) as worker:
        assert (await worker.send_once(due)).state is TaskState.DEAD
        dead, answered = (await _timeline(without_worker, due))["items"][:2]

    assert (dead["event"], answered["event"]) == ("dead", "answered")
    asked_until = datetime.fromisoformat(answered["detail"]["retry_at"])
    assert asked_until - datetime.fromisoformat(answered["at"]) > timedelta(hours=23)
    assert f"asked not to be called before {_clock(answered, 'retry_at')}." in answered["text"]


async def test_a_late_worker_is_called_late_and_nothing_else_is_blamed(without_worker: Stack) -> None:
    [due] = await due_now(without_worker, [iphone()])
    await _make_late(without_worker, due, timedelta(seconds=30))

    async with worker_harness(without_worker, heartbeat_timings=SOON) as worker:
        await eventually(lambda: without_worker.rows("SELECT 1 FROM workers"))
        [now] = (await _timeline(without_worker, due))["present"]
        await worker.send(due)
        accepted = (await _timeline(without_worker, due))["items"][0]

    assert now["detail"]["waits_for"] == "turn"
    assert "No obstacle is known: the workers are busy or late." in now["text"]
    assert now["detail"]["next_attempt_at"] is None
    assert ", 3" in accepted["text"]
    assert "the workers or the database were busy, stopped or late" in accepted["text"]


@pytest.mark.parametrize("sign", ["owed", "silent"])
async def test_temporal_that_is_away_is_named(without_worker: Stack, sign: str) -> None:
    [due] = await due_now(without_worker, [iphone()])
    if sign == "owed":
        async with without_worker.sessions.begin() as db:
            await db.execute(_OWE, {"id": due.task_id})

    async with worker_harness(without_worker, heartbeat_timings=SOON) as worker:
        if sign == "silent":
            await _replace_heartbeat(worker)
        found = await eventually(lambda: _waits_for(without_worker, due, "temporal"))

    said = "It has been waiting for Temporal since" if sign == "owed" else "which does not answer the workers"
    assert said in found["text"]
    assert "An operator has to check Temporal." in found["text"]


_OWE = text("""
    INSERT INTO outbox (subject_kind, subject_id, created_at, next_attempt_at)
    VALUES ('push_task', :id, now() - interval '1 minute', now() + interval '1 minute')
""")

_EARLIER = text("""
    WITH fast AS (
        UPDATE fasting_sessions SET ends_at = ends_at - CAST(:time AS interval),
                                    scheduled_at = scheduled_at - CAST(:time AS interval)
         WHERE id = :session_id
    )
    UPDATE push_tasks SET due_at = due_at - CAST(:time AS interval), created_at = created_at - CAST(:time AS interval),
                          next_attempt_at = now() - interval '10 s', message_id = :message_id
     WHERE task_id = :id
""")


_NEXT_LOOK = text("UPDATE push_tasks SET next_attempt_at = now() + interval '25 s' WHERE task_id = :id")


async def _make_late(stack: Stack, due: PlannedSend, time: timedelta) -> None:
    """Let a push have been due for so long."""
    [row] = await stack.rows("SELECT * FROM push_tasks WHERE task_id = :id", id=due.task_id)
    message = message_id(row.conversation_id, row.reminder_minutes, row.due_at - time)
    values = {"time": time, "id": due.task_id, "session_id": row.conversation_id, "message_id": message}
    async with stack.sessions.begin() as db:
        await db.execute(_EARLIER, values)


async def _replace_heartbeat(worker: WorkerHarness) -> None:
    """Let the worker say that Temporal does not answer."""
    worker.beating.cancel()
    await asyncio.wait([worker.beating])
    silent = Heartbeat(
        worker.stack.sessions,
        worker.dependencies.limiters,
        worker.dependencies.cutoff,
        SOON,
        reaches_temporal=lambda: False,
    )
    beating = asyncio.create_task(silent.beat_forever())
    await eventually(lambda: worker.stack.rows("SELECT 1 FROM workers WHERE gates ->> 'temporal_answers' = 'false'"))
    beating.cancel()
    async with worker.stack.sessions.begin() as db:
        await db.execute(text("DELETE FROM workers WHERE gates ->> 'temporal_answers' = 'true'"))


async def _fail(worker: WorkerHarness, due: PlannedSend) -> None:
    with pytest.raises(ApplicationError):
        await worker.send_once(due)


async def _call(worker: WorkerHarness, simulator: Simulator, phone: Phone) -> None:
    """Try a push to this phone, which fails, until it makes the call."""
    [due] = await due_now(worker.stack, [phone])
    while not simulator.requests.for_token(phone.token):
        await _fail(worker, due)


async def _reported(stack: Stack) -> None:
    [last] = await stack.rows("SELECT max(seen_at) AS seen_at FROM workers")
    await eventually(lambda: stack.rows("SELECT 1 FROM workers WHERE seen_at > :at", at=last.seen_at))


async def _present_anew(stack: Stack, due: PlannedSend) -> dict[str, Any]:
    """Read what waits, once the worker has told how its limiters stand now."""
    await _reported(stack)
    await _reported(stack)  # the first may have been made before
    [now] = (await _timeline(stack, due))["present"]
    found: dict[str, Any] = now
    return found


async def _fail_until_open(worker: WorkerHarness, stack: Stack, due: PlannedSend) -> bool:
    """Call until the breaker is open, and its worker has told so."""
    await _fail(worker, due)
    return bool(await _waits_for(stack, due, "route"))


async def _waits_for(stack: Stack, due: PlannedSend, obstacle: str) -> Any:
    [now] = (await _timeline(stack, due))["present"]
    return now if now["detail"]["waits_for"] == obstacle else None


async def _dead(stack: Stack, all_due: list[PlannedSend]) -> PlannedSend | None:
    rows = await stack.rows("SELECT task_id FROM push_tasks WHERE state = 'dead'")
    dead = {row.task_id for row in rows}
    return next((due for due in all_due if due.task_id in dead), None)


async def _user_id(stack: Stack, due: PlannedSend) -> str:
    [row] = await stack.rows("SELECT user_id FROM push_tasks WHERE task_id = :id", id=due.task_id)
    return str(row.user_id)


async def _timeline(stack: Stack, due: PlannedSend) -> dict[str, Any]:
    carol = stack.user(None, "support")
    answer = await carol.call("GET", of(await _user_id(stack, due)))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def _clock(item: dict[str, Any], name: str) -> str:
    instant = str(item["detail"][name])
    return instant[:19].replace("T", " ") + " UTC"
