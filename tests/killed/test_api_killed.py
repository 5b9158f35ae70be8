"""The API process dies between its commit and its dispatch, and within a batch."""

import asyncio
import signal
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx
import pytest

from simulator import Simulator
from tests.busy import ANSWERED_WITHIN
from tests.servers import free_port, part
from tests.stack import Stack, eventually, iphone

pytestmark = pytest.mark.long


async def test_a_fast_accepted_by_an_api_process_that_died_before_dispatch_is_reminded_all_the_same(
    without_worker: Stack, simulator: Simulator, worker_settings: Callable[[], dict[str, str]]
) -> None:
    user, phone, session_id, port = without_worker.user(), iphone(), uuid4(), free_port()
    await user.register(phone)
    silent = socket.create_server(("127.0.0.1", 0))  # the kernel takes connections, and that is all
    silent_address = f"127.0.0.1:{silent.getsockname()[1]}"
    settings = without_worker.place.environment(API_PORT=str(port), TEMPORAL_ADDRESS=silent_address)
    async with (
        part(settings, "-m", "api") as api,
        httpx.AsyncClient(headers=user.headers, timeout=ANSWERED_WITHIN) as http,
    ):
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


async def test_a_batch_whose_api_process_dies_is_whole_item_by_item_and_a_repeat_finishes_it(
    without_worker: Stack,
) -> None:
    ends_at = (datetime.now(UTC) + timedelta(hours=5)).isoformat()
    ids = [uuid4() for _ in range(500)]
    items = [
        {"user_id": f"user-{each}", "session_id": str(each), "op": "start", "ends_at": ends_at, "reminder_minutes": [1]}
        for each in ids
    ]
    settings = without_worker.place.environment(API_PORT=str(free_port()))
    address, headers = f"http://127.0.0.1:{settings['API_PORT']}", without_worker.user("backend", "service").headers

    async def stored() -> tuple[int, int]:
        [row] = await without_worker.rows(
            "SELECT (SELECT count(*) FROM fasting_sessions WHERE id = ANY(:ids)) AS fasts,"
            " (SELECT count(*) FROM outbox WHERE subject_id = ANY(:ids)) AS owed",
            ids=ids,
        )
        return row.fasts, row.owed

    async def has_begun() -> bool:
        return await stored() > (0, 0)

    async with httpx.AsyncClient(base_url=address, headers=headers, timeout=ANSWERED_WITHIN) as http:
        async with part(settings, "-m", "api") as api:
            await api.answers(f"{address}/readyz")
            sent = asyncio.create_task(http.post("/v1/fasting-sessions/batch", json={"items": items}))
            await eventually(has_begun)
            await api.end(signal.SIGKILL)
            with suppress(httpx.TransportError):  # unless it was faster
                await sent
        before, owed = await stored()
        async with part(settings, "-m", "api") as api:
            await api.answers(f"{address}/readyz")
            again = (await http.post("/v1/fasting-sessions/batch", json={"items": items})).json()["items"]

    assert before == owed
    assert Counter(each["status"] for each in again) == Counter({200: before, 201: 500 - before})
    assert await stored() == (500, 500)
