"""The processes of the provider benchmark: the server, one sender at a time, and h2load."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from bench.percentiles import percentile
from bench.providers_load import LoadLevel
from bench.providers_target import Target, fcm_pushes
from bench.receiver import SCRIPT, node
from push.fcm import sender as fcm
from simulator.settings import Ports, certificate_files, provider_environment

_PATH = "/v1/projects/fastbell-demo/messages:send"
_HEADERS = {"authorization": f"Bearer ya29.{'x' * 200}", "content-type": "application/json"}
_PER_CONNECTION = 100  # h2load's streams; ours has as many


@dataclass(frozen=True, slots=True)
class Orders:
    """What each sender is asked for."""

    levels: tuple[int, ...]  # sends in flight
    seconds: float  # of measuring, per level
    memory: int  # sends over which memory is watched


@dataclass(frozen=True, slots=True)
class TargetServer:
    """The running server."""

    target: Target
    process: psutil.Process

    def cpu(self) -> float:
        """Seconds that it used so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


@contextmanager
def running_server(directory: Path) -> Iterator[TargetServer]:
    """Start the server with keys and certificates of its own."""
    files = certificate_files(directory)
    with subprocess.Popen(
        [node(), SCRIPT, files.certificate, files.key], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        made = provider_environment(directory, Ports(admin=port, apns=port, apns_sandbox=port, fcm=port))
        target = Target(
            port=port,
            ca_file=files.authority,
            apns_key_file=Path(made["APNS_KEY_FILE"]),
            apns_key_id=made["APNS_KEY_ID"],
            apns_team_id=made["APNS_TEAM_ID"],
            apns_topic=made["APNS_TOPIC"],
            service_account_file=Path(made["FCM_SERVICE_ACCOUNT_FILE"]),
        )
        try:
            yield TargetServer(target, psutil.Process(process.pid))
        finally:
            process.terminate()


def worked(name: str, target: Target, orders: Orders, on_level: Callable[[], None]) -> list[LoadLevel]:
    """Have one sender work through its orders."""
    files = {"REQUESTS_CA_BUNDLE": str(target.ca_file), "SSL_CERT_FILE": str(target.ca_file)}
    levels = []
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "bench.providers_load", name],
        env=os.environ | files,
        cwd=Path(__file__).parent.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        json.dump(asdict(orders) | {"target": asdict(target)}, process.stdin, default=str)
        process.stdin.close()
        for line in process.stdout:
            levels.append(LoadLevel(**json.loads(line)))
            on_level()
    if process.returncode:
        raise SystemExit(f"{name} ended with status {process.returncode}.")
    return levels


def wire_limit(target: Target, directory: Path, orders: Orders, on_level: Callable[[], None]) -> list[LoadLevel]:
    """Have h2load, a client in C, post what our FCM posts; [] where it is not installed."""
    program = shutil.which("h2load")
    if program is None:
        return []
    body, log = directory / "body.json", directory / "h2load.log"
    body.write_bytes(fcm.request(next(fcm_pushes())))
    headers = [word for name, value in _HEADERS.items() for word in ("-H", f"{name}: {value}")]
    levels = []
    for in_flight in orders.levels:
        streams = min(in_flight, _PER_CONNECTION)
        log.unlink(missing_ok=True)
        words = ["-D", str(max(round(orders.seconds), 1)), "-c", str(in_flight // streams), "-m", str(streams)]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        ended = subprocess.run(
            [program, *words, "-d", body, f"--log-file={log}", *headers, target.url + _PATH],
            check=True,
            capture_output=True,
            text=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        levels.append(_level(in_flight, ended.stdout, log, cpu))
        on_level()
    return levels


def _level(in_flight: int, printed: str, log: Path, cpu: float) -> LoadLevel:
    done = re.search(r"(\d+) succeeded, (\d+) failed", printed)
    wall = re.search(r"finished in ([\d.]+)(m?s)", printed)
    if done is None or wall is None:
        raise SystemExit(f"h2load said something else:\n{printed}")
    rows = (line.split("\t") for line in log.read_text().splitlines())
    took = sorted(int(micros) / 1e6 for _, status, micros in rows if status == "200")
    return LoadLevel(
        in_flight=in_flight,
        sends=int(done[1]),
        failures={"failed": int(done[2])},
        cpu=cpu,
        wall=float(wall[1]) / (1000 if wall[2] == "ms" else 1),
        p50=percentile(took, 0.5),
        p99=percentile(took, 0.99),
        resident=[],
    )
