"""A send gets its stream before it is due, and decides nothing before: what changes until then is seen."""

import asyncio
import time
from collections.abc import Sequence
from uuid import uuid4

from sqlalchemy import text
from temporalio.testing import ActivityEnvironment

from activities.sending import SendPush
from domain.presentation_file import presentation
from domain.push import Environment, Provider, SentPush
from simulator import Simulator
from tests.routes.worker_harness import Due, WorkerHarness, due_now, keep_from_takeover, worker_harness
from tests.stack import Phone, Stack, eventually, iphone

TEA = b'[texts.en.reminder]\ntitle = "Tea"\nbody = "Soon."\n'
PREFER = "INSERT INTO preferences (user_id, reminders, reminder_minutes, messages, reminder_preview, message_preview)"
CHANGES = {  # what happens to a person, and what becomes of their push
    "": ("accepted", None, ["Tea"]),
    "UPDATE fasting_sessions SET status = 'cancelled', ended_at = now() WHERE user_id = :user": (
        *("withdrawn", "session_cancelled", []),
    ),
    "UPDATE fasting_sessions SET ends_at = ends_at + interval '1 h' WHERE user_id = :user": (
        *("withdrawn", "goal_moved", []),
    ),
    f"{PREFER} VALUES (:user, false, '{{30}}', true, 'full', 'full')": ("withdrawn", "reminders_off", []),
    f"{PREFER} VALUES (:user, true, '{{30}}', true, 'generic', 'full')": ("accepted", None, ["Reminder"]),
    "UPDATE device_tokens SET token = :token WHERE user_id = :user": ("accepted", None, []),  # and the new one shows it
    "UPDATE device_tokens SET active = false, inactive_reason = 'signed_out' WHERE user_id = :user": (
        *("withdrawn", "no_active_token", []),
    ),
}


async def test_what_changes_while_a_send_has_its_stream_and_is_not_due_is_obeyed(
    stack: Stack, simulator: Simulator
) -> None:
    async with worker_harness(stack) as harness:
        hold = 1.0
        while (sent := await _changed_in_time(harness, hold)) is None:
            hold *= 2  # this machine was too slow to change anything before the due instant
        results, phones, rotated = sent

    assert [(each.state, each.reason) for each in results] == [expected[:2] for expected in CHANGES.values()]
    assert [_shown(simulator, phone) for phone in phones] == [expected[2] for expected in CHANGES.values()]
    assert _shown(simulator, rotated) == ["Tea"]


def _shown(simulator: Simulator, phone: Phone) -> list[str | None]:
    if not simulator.requests.for_token(phone.token):
        return []
    return [line.title for line in simulator.phone(phone.token).screen]


async def _changed_in_time(
    harness: WorkerHarness, hold: float
) -> tuple[Sequence[SentPush], Sequence[Phone], Phone] | None:
    """Change all when their sends have their streams; None where they were due by then."""
    stack, users = harness.stack, [f"user-{uuid4()}" for _ in CHANGES]
    phones, rotated = [iphone() for _ in users], iphone()
    sends = [(await due_now(stack, [phone], of_one=user))[0] for user, phone in zip(users, phones, strict=True)]
    await keep_from_takeover(stack, sends)
    due_at = time.monotonic() + hold
    sending = [asyncio.ensure_future(_send_in(harness, due, hold)) for due in sends]
    route = harness.dependencies.apps.route(Provider.APNS, None, Environment.PRODUCTION)

    async def have_streams() -> bool:
        in_flight = harness.dependencies.limiters.at(route).report().in_flight
        return in_flight == len(sends) or time.monotonic() >= due_at

    await eventually(have_streams)
    async with stack.sessions.begin() as db:
        for user, change in zip(users, CHANGES, strict=True):
            if change:
                await db.execute(
                    text(change), {"user": user} | ({"token": rotated.token} if ":token" in change else {})
                )
    harness.dependencies.presentations.replace(presentation(TEA), None)
    in_time = time.monotonic() < due_at
    results = await asyncio.gather(*sending)
    return (results, phones, rotated) if in_time else None


async def _send_in(harness: WorkerHarness, due: Due, hold: float) -> SentPush:
    environment = ActivityEnvironment()
    ask = SendPush(due.task_id, due.environment, hold, due.app_id, due.kind, due.user_digest)
    return await environment.run(harness.sendings[due.provider].send_push, ask)
