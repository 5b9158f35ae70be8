"""The sample app in `examples/tea`, run as its page says."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.busy import crowding
from tests.local.run import ROOT, environment, local_run, wait_until
from tests.servers import free_port

pytestmark = [pytest.mark.long, pytest.mark.timeout(150)]
TEA = ROOT / "examples" / "tea"


def test_tea_is_ready_on_both_phones_in_the_apps_own_words() -> None:
    [walk] = re.findall(r"(?s)```sh\n(.*?)```", (TEA / "README.md").read_text())
    with tempfile.TemporaryDirectory(prefix="fastbell-") as directory:  # PostgreSQL's user has to reach it
        settings = environment(Path(directory)) | {"PRESENTATION_FILE": str(TEA / "presentation.toml")}
        with local_run(settings, Path(directory) / "output") as run:
            run.wait_for("Ctrl-C stops everything.")
            key = run.cli("api-keys", "create", "--name", "teatime", "--scope", "service").stdout.strip()
            port = str(free_port())
            given = {"FASTBELL_URL": run.api_url, "FASTBELL_KEY": key, "TEATIME_PORT": port}
            backend = subprocess.Popen([sys.executable, TEA / "backend.py"], env={**os.environ, **given})
            try:
                said = _walk(walk, {"TEATIME": f"http://127.0.0.1:{port}", "PHONES": _phones(settings)})
            finally:
                backend.terminate()
                backend.wait(timeout=10 * crowding())

    for shown in (
        '"title":"Sencha","body":"Ready. Take the leaves out."',
        '"title":"Sencha","body":"Fertig. Nimm die Blätter heraus."',
        '"url":"teatime://fasting-sessions/',
    ):
        assert shown in re.sub(r'": "', '":"', said).replace('", "', '","'), said


def _phones(settings: dict[str, str]) -> str:
    return f"http://127.0.0.1:{settings['SIMULATOR_PORT']}"


def _walk(script: str, addresses: dict[str, str]) -> str:
    done: list[str] = []

    def try_once() -> bool:  # again, until the backend listens
        command = ["bash", "-euc", script]
        out = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **addresses}, capture_output=True, text=True, timeout=60, check=False
        )
        done.append(out.stdout + out.stderr)
        return out.returncode == 0

    wait_until(try_once, within=90)
    return done[-1]
