"""How metrics are counted and served."""

import asyncio
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import text
from structlog import DropEvent
from structlog.testing import capture_logs
from structlog.typing import EventDict, Processor

from db.engine import make_engine, make_sessions, once_committed
from dispatch.client import metered_runtime
from simulator import Simulator
from telemetry.exposition import MetricsServer, expose
from telemetry.metrics import Capped
from tests.busy import ANSWERED_WITHIN
from tests.servers import free_port, part


class Slow(Collector):
    """Takes until it is told to go on, as a large process with a slow disk might."""

    def __init__(self) -> None:
        self.begun, self.goes_on = threading.Event(), threading.Event()

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Tell its name at once, when it is registered."""
        yield GaugeMetricFamily("slow", "")

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Wait, then tell whether that was in vain."""
        self.begun.set()
        yield GaugeMetricFamily("slow", "", value=self.goes_on.wait(20))


def of(threads: list[threading.Thread]) -> Processor:
    """Keep the lines of these threads only: servers of other tests write theirs meanwhile."""

    def of_these(_logger: object, _method: str, entry: EventDict) -> EventDict:
        if threading.current_thread() not in threads:
            raise DropEvent
        return entry

    return of_these


async def test_the_temporal_sdk_s_own_metrics_stand_beside_ours() -> None:
    metered = metered_runtime()
    assert metered.runtime is not None
    metered.runtime.metric_meter.create_counter("from_the_sdk", "", "").add(3)

    page = (await asyncio.to_thread(expose(CollectorRegistry(), [], metered.port).text)).decode()

    assert "from_the_sdk_total" in page
    assert "fastbell_pushes_planned_total" in page
    assert "process_resident_memory_bytes" in page


async def test_a_dead_exporter_of_the_sdk_takes_nothing_else_away() -> None:
    with socket.socket() as deaf:  # takes connections and says nothing
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        for port in (free_port(), int(deaf.getsockname()[1])):
            page = (await asyncio.to_thread(expose(CollectorRegistry(), [], port).text)).decode()
            assert "fastbell_pushes_planned_total" in page


async def test_a_scrape_does_not_hold_the_event_loop_up() -> None:
    slow = Slow()
    server = MetricsServer("127.0.0.1", 0, expose(CollectorRegistry(), [slow], None).text)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=ANSWERED_WITHIN) as http:
        scrape = asyncio.create_task(http.get("/metrics"))
        while not slow.begun.is_set():
            await asyncio.sleep(0.005)
        for _ in range(20):  # which the loop gets round to only where nothing holds it up
            await asyncio.sleep(0.005)
        slow.goes_on.set()
        assert "slow 1.0" in (await scrape).text
        assert (await http.get("/")).status_code == 404
    await asyncio.to_thread(server.close)


async def test_a_scraper_that_hangs_up_is_not_worth_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    asked, gone, threads = threading.Event(), threading.Event(), list[threading.Thread]()

    def text() -> bytes:
        threads.append(threading.current_thread())
        asked.set()
        gone.wait(20)
        return b"told to nobody"

    server = MetricsServer("127.0.0.1", 0, text)
    with (
        capture_logs(processors=[of(threads)]) as logged,
        socket.create_connection(("127.0.0.1", server.port)) as scraper,
    ):
        scraper.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert await asyncio.to_thread(asked.wait, 20)
        scraper.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closed by a reset
        scraper.close()
        gone.set()
        await asyncio.to_thread(threads[0].join, 20)
        await asyncio.to_thread(server.close)
        printed = capfd.readouterr()

    assert (logged, *printed) == ([], "", "")


async def test_a_scrape_that_fails_is_one_event(capfd: pytest.CaptureFixture[str]) -> None:
    threads: list[threading.Thread] = []
    failure = KeyError("lost")

    def text() -> bytes:
        threads.append(threading.current_thread())
        raise failure

    server = MetricsServer("127.0.0.1", 0, text)
    with capture_logs(processors=[of(threads)]) as logged:
        async with httpx.AsyncClient(timeout=ANSWERED_WITHIN) as http:
            with pytest.raises(httpx.RemoteProtocolError):
                await http.get(f"http://127.0.0.1:{server.port}/metrics")
        await asyncio.to_thread(threads[0].join, 20)
        await asyncio.to_thread(server.close)
        printed = capfd.readouterr()

    assert logged == [{"event": "scrape failed", "log_level": "error", "exc_info": failure}]
    assert printed == ("", "")


async def test_a_port_that_is_taken_is_reported_in_one_sentence(simulator: Simulator) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        environment = {"DATABASE_URL": "postgresql://127.0.0.1:1/none", "METRICS_PORT": str(taken.getsockname()[1])}
        async with part({**simulator.environment, **environment}, "worker.py") as worker:
            assert await worker.process.wait() == 1
            await worker._reading

    assert worker.lines == ["METRICS_HOST and METRICS_PORT: listening there failed: Address already in use.\n"]


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_what_is_rolled_back_is_not_counted(new_database: Callable[[str], Awaitable[str]], end: str) -> None:
    engine = make_engine(await new_database(f"counting_{end}"))
    counted: list[str] = []
    async with make_sessions(engine)() as db:
        await db.execute(text("SELECT 1"))
        once_committed(db, lambda: counted.append(end))
        assert counted == []
        await (db.commit() if end == "commit" else db.rollback())
        await db.execute(text("SELECT 1"))
        await db.commit()
    await engine.dispose()

    assert counted == (["commit"] if end == "commit" else [])


def test_words_from_outside_cannot_make_series_without_end() -> None:
    label = Capped(most=2)

    assert [label(word) for word in ("a", "b", "c", "a", None, "d")] == ["a", "b", "others", "a", "", "others"]
