"""Everything that a run needs, each in a process of its own: PostgreSQL, Temporal, simulator, worker, API."""

import asyncio
import itertools
import os
import re
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
from sqlalchemy import text
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client

from bench.progress import Progress
from bench.receiver import Receiver
from db.engine import make_engine
from db.migrate import migrate
from demo.parts import (
    PATIENCE,
    STOP_PATIENCE,
    PostgresPart,
    ProcessPart,
    Terminal,
    answering,
    temporal_command,
    temporal_environment,
)
from dispatch.client import data_converter
from domain.naming import WORKFLOW_QUEUE, push_queue
from domain.push import Provider
from settings.environment import AuthSettings, auth_settings
from simulator.settings import provider_environment

T = TypeVar("T")

SECRET = "what the benchmark signs its bearer tokens with"
_SETTINGS = re.compile(
    "(API|APNS|ARM|AUTH|DATABASE|FCM|LOG|METRICS|OTEL|RATE|SIMULATOR|TEMPORAL)_|MOST_REQUESTS|REQUEST_TIMEOUT|RUN_DIR"
)


@dataclass(frozen=True, slots=True)
class Launch:
    """How workers and API are started: with further settings, by a command, how many workers; and who receives."""

    settings: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    workers: int = 1
    receiver: Receiver = Receiver.SIMULATOR


PLAIN = Launch()


@dataclass(frozen=True, slots=True)
class Stack:
    """What a run talks to."""

    directory: Path
    database_url: str
    api_url: str
    simulator_url: str  # of whoever receives
    auth: AuthSettings
    temporal: Client
    pids: Mapping[str, int]  # by part
    start_again: Callable[[str], Awaitable[None]]  # a part that was killed, by name

    def kill(self, part: str, number: signal.Signals) -> None:
        """Send a part's process a signal."""
        os.kill(self.pids[part], number)

    async def ask_database(self, query: str) -> Any:  # noqa: ANN401 -- whatever was asked for
        """Ask for one value."""
        engine = make_engine(self.database_url, pool_size=2)
        async with engine.connect() as connection:
            value = (await connection.execute(text(query))).scalar_one()
        await engine.dispose()
        return value


@asynccontextmanager
async def running(arm_window: float, launch: Launch = PLAIN) -> AsyncIterator[Stack]:
    """Start everything in a temporary directory on free ports; stop it at the end of the block, or at SIGTERM."""
    starting = Progress("start all parts", 1)
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    async with AsyncExitStack() as leaving:
        directory = Path(leaving.enter_context(tempfile.TemporaryDirectory(prefix="fastbell-bench-")))
        admin, apns, sandbox, fcm, temporal_port, api_port, *metrics_ports = free_ports(6 + launch.workers)
        ports = launch.receiver.ports(admin, apns, sandbox, fcm)
        postgres = await PostgresPart.start(directory / "postgres", directory)
        leaving.push_async_callback(postgres.stop, STOP_PATIENCE)
        await migrate(postgres.database_url)
        own = {
            **provider_environment(directory, ports),
            "RUN_DIR": str(directory),
            "SIMULATOR_PORT": str(admin),
            "SIMULATOR_APNS_PORT": str(apns),
            "SIMULATOR_APNS_SANDBOX_PORT": str(sandbox),
            "SIMULATOR_FCM_PORT": str(fcm),
            "DATABASE_URL": postgres.database_url,
            "TEMPORAL_ADDRESS": f"127.0.0.1:{temporal_port}",
            "TEMPORAL_CONFIG_FILE": os.devnull,
            "AUTH_JWT_SECRET": SECRET,
            "API_PORT": str(api_port),
            "ARM_WINDOW": str(arm_window),
            "LOG_FORMAT": "json",
            "LOG_LEVEL": "WARNING",
            "MESSAGE_RATE": "0",  # here few people post what many would
            **launch.settings,
        }
        environment = {name: value for name, value in os.environ.items() if not _SETTINGS.match(name)} | own
        terminal = Terminal(sys.stderr)

        pids: dict[str, int] = {}
        started: dict[str, tuple[tuple[str, ...], Mapping[str, str]]] = {}

        async def start(name: str, *command: str, more: Mapping[str, str] = environment) -> ProcessPart:
            part = await ProcessPart.start(name, command, more, logs=directory, terminal=terminal)
            leaving.push_async_callback(part.stop, STOP_PATIENCE)
            started[name], pids[name] = (command, more), part.pid
            return part

        async def start_again(name: str) -> None:
            command, more = started[name]
            await start(name, *command, more=more)

        server = temporal_command(temporal_port, None, directory / "temporal.db")
        temporal = await start("temporal", *server, more=temporal_environment())
        simulator = await start("simulator", *launch.receiver.command(directory, ports))
        client = await _ready(temporal, connected(own["TEMPORAL_ADDRESS"]))
        workers = [
            await start(
                "worker" if number == 1 else f"worker{number}",
                *(sys.executable, *launch.command, "worker.py"),
                more={**environment, "METRICS_PORT": str(port)},
            )
            for number, port in enumerate(metrics_ports, start=1)
        ]
        api = await start("api", sys.executable, *launch.command, "-m", "api")
        pids["postgres"] = postgres.pid or 0
        api_url, simulator_url = f"http://127.0.0.1:{api_port}", f"http://127.0.0.1:{admin}"
        async with httpx.AsyncClient(timeout=2, trust_env=False) as http:
            await _ready(simulator, answering(http, f"{simulator_url}/healthz"))
            await _ready(workers[0], _polled(client, len(workers)))
            await _ready(api, answering(http, f"{api_url}/readyz"))
        starting.finish()
        leaving.callback(setattr, terminal, "hides_parts", True)  # while stopping: parts log each other's end as errors
        yield Stack(
            directory=directory,
            database_url=postgres.database_url,
            api_url=api_url,
            simulator_url=simulator_url,
            auth=auth_settings(own),
            temporal=client,
            pids=pids,
            start_again=start_again,
        )


def free_ports(count: int) -> list[int]:
    """Find unused ports, never the same twice: below those of outgoing connections, which would take them meanwhile."""
    return [next(_unused) for _ in range(count)]


def _unused_ports() -> Iterator[int]:
    """Give the ports of a range of the benchmarks' own that can be bound, from a place of this process's own on."""
    for step in itertools.count():
        port = _FIRST_PORT + (os.getpid() * 16 + step) % _PORTS
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            yield port


_FIRST_PORT, _PORTS = 19_000, 1_000  # beside those of tests
_unused = _unused_ports()


async def _ready(part: ProcessPart, ready: Awaitable[T]) -> T:
    waiting = asyncio.ensure_future(ready)
    await asyncio.wait({waiting, part.ended}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
    if waiting.done():
        return waiting.result()
    waiting.cancel()
    raise SystemExit("\n".join([*part.last_lines, f"{part.name} does not get ready."]))


async def connected(address: str) -> Client:
    """Wait for a Temporal server."""
    while True:
        try:
            return await Client.connect(address, data_converter=data_converter)
        except RuntimeError:  # what the SDK raises without an answer
            await asyncio.sleep(0.1)


async def _polled(client: Client, workers: int) -> None:
    """Wait until so many workers ask for work on every queue."""
    queues = [(WORKFLOW_QUEUE, TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW)]
    queues += [(push_queue(provider), TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY) for provider in Provider]
    for name, kind in queues:
        request = DescribeTaskQueueRequest(
            namespace=client.namespace, task_queue=TaskQueue(name=name), task_queue_type=kind
        )
        asking: set[str] = set()
        while len(asking) < workers:
            answer = await client.workflow_service.describe_task_queue(request)
            asking = {poller.identity for poller in answer.pollers}
            await asyncio.sleep(0.1)
