"""Traces of processes that come and go, and what nobody asked for."""

import signal

import pytest

from tests.busy import lead
from tests.servers import part
from tests.stack import iphone
from tests.telemetry.conftest import Traced


@pytest.mark.long
async def test_a_reminder_that_another_worker_takes_up_stays_below_its_workflow(traced: Traced) -> None:
    stack, user = traced.stack, traced.stack.user()
    await user.register(iphone())
    unhurried = {"OTEL_BSP_SCHEDULE_DELAY": "600000"}  # so that a worker tells nothing before its end
    async with part(traced.environment() | unhurried, "worker.py") as first:
        await first.says("worker ready")
        session_id = await user.start_fast(due_in=lead(5.0))
        await stack.started(session_id)
        told_before = traced.collector.about(session_id)
        await first.end(signal.SIGTERM)
    told = [span.name for span in traced.collector.about(session_id)]
    async with part(traced.environment() | unhurried, "worker.py") as second:
        assert await stack.finished(session_id) == "accepted"
        await second.end(signal.SIGTERM)

    assert (told_before, told) == ([], ["FastingReminder"])
    [task] = await stack.tasks(session_id)
    assert await traced.collector.tree(session_id, task.task_id, spans=6) == [
        "api: PUT /v1/fasting-sessions/{session_id}",
        "  api: dispatch fasting_session",
        "    worker: FastingReminder",
        "      worker: open_reminder attempt=1",
        "      worker: send_push attempt=1",
        "        worker: call apns attempt=1 outcome=accepted",
    ]
