"""A part that is a child process: its log file, its last lines, its end."""

import asyncio
import ctypes
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from local_parts.log_lines import read_line
from local_parts.terminal import Terminal

_LAST_LINES = 20
_LONGEST_LINE = 1024 * 1024  # bytes
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


class ProcessPart:
    """A running child in a session of its own, so that Ctrl-C reaches only us."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path, terminal: Terminal) -> None:
        self.name = name
        self.pid = process.pid
        self.last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._process = process
        self._terminal = terminal
        self._events: dict[str, asyncio.Event] = {}
        self.ended = asyncio.create_task(self._follow(log))  # its exit status, once all it said is read

    @classmethod
    async def start(
        cls, name: str, command: Sequence[str], environment: Mapping[str, str], *, logs: Path, terminal: Terminal
    ) -> "ProcessPart":
        """Start a child; the log of the run before is kept beside the new one."""
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
        """Ask it to end; after so many seconds, make it."""
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
