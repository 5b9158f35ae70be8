"""The benchmark, small: it has to run, and what it reports has to be sound."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent.parent


async def test_the_benchmark_reports_a_sound_run(tmp_path: Path) -> None:
    words = ["--sessions", "20", "--arm-window", "2", "--json", str(tmp_path / "figures.json")]

    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.reminders",
        *words,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, progress = await process.communicate()

    assert process.returncode == 0, progress.decode() + printed.decode()
    [run] = json.loads((tmp_path / "figures.json").read_text())
    assert (run["lost"], run["doubled"], run["early"], run["refused"]) == (0, 0, 0, 0)
    assert 0 <= run["lateness"]["all"]["p50"] <= run["lateness"]["all"]["p99"] <= run["lateness"]["all"]["max"] < 10
    assert set(run["lateness"]) == {"all", "apns", "fcm"}
    assert set(run["cpu"]) == set(run["last_moment_cpu"]) == set(run["memory"])
    assert set(run["memory"]) == {"temporal", "simulator", "worker", "api", "postgres"}
    assert all(seconds > 0 for seconds in run["cpu"].values())
    assert run["events"] > 10
    assert run["actions"] >= 4
    assert "ARM_WINDOW=2" in printed.decode()
    assert "all p99" in printed.decode()
