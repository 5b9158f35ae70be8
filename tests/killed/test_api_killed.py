"""The API process dies between its commit and its dispatch."""

import signal
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx
import pytest

from simulator import Simulator
from tests.servers import free_port, part
from tests.stack import Stack, iphone

pytestmark = pytest.mark.long


async def test_a_fast_accepted_by_an_api_process_that_died_before_dispatch_is_reminded_all_the_same(
    without_worker: Stack, simulator: Simulator, worker_settings: Callable[[], dict[str, str]]
) -> None:
    user, phone, session_id, port = without_worker.user(), iphone(), uuid4(), free_port()
    await user.register(phone)
    silent = socket.create_server(("127.0.0.1", 0))  # the kernel takes connections, and that is all
    silent_address = f"127.0.0.1:{silent.getsockname()[1]}"
    settings = without_worker.place.environment(API_PORT=str(port), TEMPORAL_ADDRESS=silent_address)
    async with part(settings, "-m", "api") as api, httpx.AsyncClient(headers=user.headers) as http:
        await api.answers(f"http://127.0.0.1:{port}/readyz")

        ends_at = datetime.now(UTC) + timedelta(seconds=65)
        body = {"ends_at": ends_at.isoformat(), "reminder_minutes": [1]}
        answer = await http.put(f"http://127.0.0.1:{port}/v1/fasting-sessions/{session_id}", json=body)
        await api.end(signal.SIGKILL)
    silent.close()

    assert answer.status_code == 201
    assert await without_worker.rows("SELECT 1 FROM outbox WHERE subject_id = :id", id=session_id)
    async with part(worker_settings(), "worker.py"):
        assert await without_worker.finished(session_id) == "accepted"
    assert len(simulator.requests.for_token(phone.token)) == 1
