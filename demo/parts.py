"""The parts of a run: started in order, stopped in reverse. None outlives another."""

import asyncio
import ctypes
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TextIO

import httpx

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
