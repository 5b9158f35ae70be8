"""PostgreSQL is killed under load: what was accepted is there afterwards, and is reminded."""

import asyncio
import os
import signal
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from db.migrate import migrate
from demo.parts import start_postgres
from simulator import Simulator
from tests.events.feed import whole_feed
from tests.servers import start_postgres_again
from tests.stack import Phone, Stack, StackPlace, eventually, iphone, open_stack

pytestmark = pytest.mark.long


@pytest.mark.timeout(90)
async def test_every_write_that_was_answered_survives_a_killed_database(temporal: str, simulator: Simulator) -> None:
    with tempfile.TemporaryDirectory(prefix="fastbell-") as directory:
        postgres = start_postgres(Path(directory) / "data")
        await migrate(postgres.get_uri())
        async with open_stack(StackPlace(postgres.get_uri(), temporal, "postgres", simulator)) as stack:
            accepted: dict[UUID, Phone] = {}
            statuses: set[int] = set()
            writers = [asyncio.create_task(_write(stack, accepted, statuses)) for _ in range(4)]
            while len(accepted) < 20:
                await asyncio.sleep(0.01)

            pid = postgres.get_pid()
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            while 503 not in statuses:
                await asyncio.sleep(0.01)
            await start_postgres_again(postgres)
            before = len(accepted)
            while len(accepted) < before + 10:
                await asyncio.sleep(0.01)
            for writer in writers:
                writer.cancel()
            await asyncio.gather(*writers, return_exceptions=True)

            outcomes = await asyncio.gather(*(stack.finished(session_id, within=60) for session_id in accepted))
            assert set(outcomes) == {"accepted"}
            for phone in accepted.values():
                assert len(simulator.phone(phone.token).screen) == 1
            assert statuses == {200, 201, 503}
            await _check_events(stack)
        postgres.cleanup()


async def _check_events(stack: Stack) -> None:
    """Check that the feed has one event for each change that was stored, and none for another."""
    await eventually(lambda: _events_agree(stack))  # what a writer left behind may still be sent
    events = await whole_feed(stack)
    assert [each["id"] for each in events] == list(range(1, len(events) + 1))


async def _events_agree(stack: Stack) -> bool:
    registered = "SELECT installation_id FROM device_token_events e JOIN device_tokens d ON d.id = e.device_id"
    accepted = "SELECT task_id FROM push_tasks WHERE state = 'accepted'"
    stored = [sorted(str(row[0]) for row in await stack.rows(query)) for query in (registered, accepted)]
    events = await whole_feed(stack)
    kinds = (("device_token.registered", "installation_id"), ("push.accepted", "task_id"))
    return stored == [sorted(each["data"][name] for each in events if each["type"] == kind) for kind, name in kinds]


async def _write(stack: Stack, accepted: dict[UUID, Phone], statuses: set[int]) -> None:
    while True:
        user, phone, session_id = stack.user(), iphone(), uuid4()
        body = {"provider": "apns", "token": phone.token}
        registered = await user.call("PUT", f"/v1/device-tokens/{phone.installation_id}", body)
        statuses.add(registered.status_code)
        if registered.status_code == 200:
            ends_at = datetime.now(UTC) + timedelta(seconds=66)
            fast = {"ends_at": ends_at.isoformat(), "reminder_minutes": [1]}
            answer = await user.call("PUT", f"/v1/fasting-sessions/{session_id}", fast)
            statuses.add(answer.status_code)
            if answer.status_code == 201:
                accepted[session_id] = phone
        await asyncio.sleep(0.02)
