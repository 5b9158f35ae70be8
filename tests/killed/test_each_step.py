"""The worker is killed between the steps of a send: in the check, before an outcome is stored, or Temporal hears."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import UUID

import pytest

from simulator import Simulator
from tests.house import House, Phone, android, eventually, iphone, uncommitted
from tests.servers import Part, part

_STORING = """
    SELECT 1 FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND query ILIKE '%UPDATE push_tasks%'
"""


@pytest.mark.timeout(120)
async def test_a_worker_killed_at_each_step_of_a_send_loses_nothing_and_shows_nothing_twice(
    workerless: House, simulator: Simulator, worker_settings: Callable[[], dict[str, str]]
) -> None:
    checked, answered, recorded = iphone(), android(), android()  # Apple takes one push at a time at first
    for phone, delay in ((answered, 2.0), (recorded, 1.0)):
        simulator.faults.add(provider="fcm", token=phone.token, fault="slow", delay=delay, count=1)
    async with _wire(workerless.place.temporal_address) as wire, _worker(worker_settings(), wire) as worker:
        await worker.says("worker ready")
        fasts = {phone: await _armed(workerless, phone) for phone in (checked, answered, recorded)}
        async with uncommitted(
            workerless, "SELECT 1 FROM fasting_sessions WHERE id = :id FOR UPDATE", id=fasts[checked]
        ):
            await simulator.received(answered.token, timeout=10)
            await simulator.received(recorded.token, timeout=10)
            wire.cut()
            async with uncommitted(
                workerless, "SELECT 1 FROM push_tasks WHERE conversation_id = :id FOR UPDATE", id=fasts[answered]
            ):
                await eventually(lambda: _has_state(workerless, fasts[recorded], "accepted"))
                await eventually(lambda: workerless.rows(_STORING))
                await worker.end(signal.SIGKILL)
    async with part(worker_settings(), "worker.py"):
        outcomes = await asyncio.gather(*(workerless.finished(fast, within=60) for fast in fasts.values()))

    assert outcomes == ["accepted"] * 3
    attempts = {phone: await _attempts(workerless, fast) for phone, fast in fasts.items()}
    assert attempts[checked] == attempts[recorded] == [("accepted", None)]
    assert attempts[answered] == [("unknown", "worker_lost"), ("accepted", None)]
    for phone in fasts:
        calls = len(simulator.requests.for_token(phone.token))
        assert calls == len(attempts[phone])
        assert [line.times_received for line in simulator.phone(phone.token).screen] == [calls]


@asynccontextmanager
async def _worker(settings: dict[str, str], wire: "_Wire") -> AsyncIterator[Part]:
    async with part(settings | {"TEMPORAL_ADDRESS": wire.address}, "worker.py") as worker:
        yield worker


async def _armed(house: House, phone: Phone) -> UUID:
    user = house.user()
    await user.register(phone)
    session_id = await user.start_fast(due_in=4.0)
    await eventually(lambda: house.holds_sends(session_id, 1), within=10)
    return session_id


async def _has_state(house: House, session_id: UUID, state: str) -> bool:
    return [task.state for task in await house.tasks(session_id)] == [state]


async def _attempts(house: House, session_id: UUID) -> list[tuple[str, str | None]]:
    rows = await house.rows(
        "SELECT a.outcome, a.reason FROM push_attempts a JOIN push_tasks USING (task_id)"
        " WHERE conversation_id = :id ORDER BY number",
        id=session_id,
    )
    return [(row.outcome, row.reason) for row in rows]


class _Wire:
    """The way to Temporal; once cut, nothing passes, and nobody is told."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._whole = asyncio.Event()
        self._whole.set()
        self._pumps: set[asyncio.Task[None]] = set()
        self.address = ""

    def cut(self) -> None:
        """Let nothing pass from here on."""
        self._whole.clear()

    async def join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Connect one more."""
        there, back = await asyncio.open_connection(*self._target)
        for source, sink in ((reader, back), (there, writer)):
            pump = asyncio.create_task(self._carry(source, sink))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def close(self) -> None:
        """End every connection."""
        for pump in (pumps := list(self._pumps)):
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while content := await source.read(65_536):
                await self._whole.wait()
                sink.write(content)
                await sink.drain()
        except ConnectionError:
            return
        finally:
            sink.close()


@asynccontextmanager
async def _wire(address: str) -> AsyncIterator[_Wire]:
    host, _, port = address.partition(":")
    wire = _Wire(host, int(port))
    server = await asyncio.start_server(wire.join, "127.0.0.1", 0)
    wire.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield wire
    finally:
        server.close()
        await wire.close()
