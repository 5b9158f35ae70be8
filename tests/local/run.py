"""A local run in a process of its own, on free ports, with its state in a directory of the test."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.busy import crowding

ROOT = Path(__file__).parent.parent.parent
_OURS = ("APNS_", "FCM_", "AUTH_", "TEMPORAL_", "SIMULATOR_", "DATABASE_", "API_", "METRICS_", "RUN_DIR", "LOG_")
_PART = re.compile(r"^  (\w+) +ready at .*, process (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class LocalRun:
    """A running `python local.py`."""

    process: subprocess.Popen[bytes]
    output: Path
    environment: dict[str, str]

    @property
    def text(self) -> str:
        """What it has told so far."""
        return self.output.read_text()

    @property
    def parts(self) -> dict[str, int]:
        """The parts that are ready, with their process ids."""
        return {name: int(pid) for name, pid in _PART.findall(self.text)}

    @property
    def api_url(self) -> str:
        """Where its API is."""
        return f"http://127.0.0.1:{self.environment['API_PORT']}"

    def wait_for(self, told: str, within: float = 90.0) -> str:
        """Wait until it tells something; gives all that it told."""
        deadline = time.monotonic() + within * crowding()
        while told not in self.text:
            assert self.process.poll() is None, self.text
            assert time.monotonic() < deadline, f"not told: {told}\n{self.text}"
            time.sleep(0.05)
        return self.text

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """Signal the supervisor alone; gives its exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout=40 * crowding())

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run an operators' command for this run."""
        command = [sys.executable, "cli.py", *arguments]
        return subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=20 * crowding(),
            check=False,
        )


def environment(run_dir: Path) -> dict[str, str]:
    """Compose settings that disturb nobody: consecutive free ports, an own directory."""
    first = _free_ports(8)
    names = ("API_PORT", "TEMPORAL_PORT", "TEMPORAL_UI_PORT", "METRICS_PORT", "SIMULATOR_PORT")
    ports = {name: str(first + place) for place, name in enumerate(names)}  # the simulator's three more come last
    return {**_clean(), **ports, "RUN_DIR": str(run_dir), "WORKERS": "2"}


@contextmanager
def local_run(settings: dict[str, str], output: Path) -> Iterator[LocalRun]:
    """Start a run; what is left of it afterwards is killed."""
    with output.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "local.py"], cwd=ROOT, env=settings, stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        yield LocalRun(process, output, settings)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=40 * crowding())


def wait_until(check: Callable[[], bool], within: float = 10.0) -> None:
    """Wait until a check holds."""
    deadline = time.monotonic() + within * crowding()
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def lives(pid: int) -> bool:
    """Tell whether a process still runs; one that only waits to be reaped does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def _clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}


def _free_ports(count: int) -> int:
    """Find so many consecutive ports that nobody uses; gives the first."""
    for first in range(20_000 + os.getpid() % 1000 * 10, 32_000, count):
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise AssertionError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
