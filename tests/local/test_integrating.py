"""Integrate in an evening: the commands of docs/integrating.md, as they stand there, from the texts to the erasure."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from tests.local.run import ROOT, environment, local_run, wait_until
from tests.servers import free_port

pytestmark = [pytest.mark.long, pytest.mark.timeout(150)]
PAGE = (ROOT / "docs" / "integrating.md").read_text()
# What the page waits for by the clock; a busy machine takes longer.
_CONDITIONS = {
    "sleep 13": (
        "until curl -sS $PHONES/phones/$IPHONE | grep Harbour > /dev/null"
        " && curl -sS $PHONES/phones/$PIXEL | grep Harbour > /dev/null"
    ),
    "sleep 8": 'until [ "$(grep -c "test\\|accepted" received.txt)" -ge 3 ]',
}


def test_an_app_is_integrated_by_the_commands_of_the_page() -> None:
    texts, *steps = re.findall(r"(?s)```sh\n(.*?)```", PAGE)
    [start] = re.findall(r"^    (.*) make run$", PAGE, re.MULTILINE)
    [look] = re.findall(r"^    (\S+ cli\.py presentation .*)$", PAGE, re.MULTILINE)
    script = "\n".join((look, *steps))
    for waits, until in _CONDITIONS.items():
        assert script.count(f"{waits}\n") == 1
        script = script.replace(f"{waits}\n", f"{until}; do sleep 0.2; done\n")

    with tempfile.TemporaryDirectory(prefix="fastbell-") as directory:  # PostgreSQL's user has to reach it
        place = Path(directory)
        (place / ".venv").symlink_to(sys.prefix)
        (place / "cli.py").symlink_to(ROOT / "cli.py")
        _bash(texts, place, {})
        given = dict(each.split("=", 1) for each in start.replace("$PWD", directory).split())
        settings = environment(place / "run") | given
        with local_run(settings, place / "output") as run:
            wait_until(lambda: "api" in run.parts, within=90)
            phones = f"http://127.0.0.1:{settings['SIMULATOR_PORT']}"
            addresses = {"FASTBELL": run.api_url, "PHONES": phones, "RECEIVER": str(free_port())}
            said = _bash(script, place, settings | addresses)

    for shown in (
        "Harbour: dein Parkschein läuft ab",  # in the preview's words, too
        "Harbour: your ticket ends",
        "parking://fasting-sessions/",
        "honk.caf",
        "webhook.test None genuine",
        '"done"',
        '"items":[]',
    ):
        assert shown in said, said
    assert said.count("push.accepted dana genuine\n") == 2  # in any order with the test
    assert "forged" not in said


def _bash(script: str, place: Path, environ: dict[str, str]) -> str:
    said = place / "said"  # a file: what a script leaves running would keep a pipe open
    with said.open("wb") as out:
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=place,
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        status: int | str = process.wait(timeout=90)
    except subprocess.TimeoutExpired:
        status = "not over within 90 s"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    told = "\n".join(each.read_text() for each in (said, *place.glob("received.txt"), *place.glob("output")))
    assert status == 0, f"{status}\n{told}"
    return said.read_text()
