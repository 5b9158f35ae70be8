"""The benchmark of the provider clients, small: it has to run, and no send of ours may fail."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent.parent
SENDERS = {"APNs: ours", "APNs: aioapns", "FCM: ours", "FCM: firebase-admin send_each_async"}


@pytest.mark.timeout(90)  # a process for the server and one for each sender, one after the other
async def test_the_senders_asked_for_are_measured_and_ours_fail_nothing(tmp_path: Path) -> None:
    only = [word for name in sorted(SENDERS) for word in ("--only", name)]
    words = ["-m", "bench.providers", "--quick", *only, "--json", str(tmp_path / "figures.json")]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    printed, progress = await process.communicate()

    assert process.returncode == 0, progress.decode() + printed.decode()
    [figures] = json.loads((tmp_path / "figures.json").read_text())
    assert figures["levels"].keys() == SENDERS
    for name, levels in figures["levels"].items():
        assert [level["in_flight"] for level in levels if not level["resident"]] == [1, 32], name
        assert all(level["sends"] > 0 and level["cpu"] > 0 for level in levels), name
        assert all(0 < level["p50"] <= level["p99"] for level in levels), name
    for name in ("APNs: ours", "FCM: ours"):
        *_, memory = figures["levels"][name]
        assert memory["failures"] == {}
        assert len(memory["resident"]) == 11
        assert f"{name}, resident MB over {memory['sends']} sends" in printed.decode()
    assert "APNs ours / aioapns" in printed.decode()
    assert "FCM ours / firebase-admin's best (send_each_async)" in printed.decode()
