"""`cli.py doctor`, as a person and as a pipeline sees it."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from commands.doctor.providers import PROBE_TOKENS
from commands.doctor.report import Level
from tests.busy import soon
from tests.doctor.conftest import Examine
from tests.servers import free_port
from tests.stack import ROOT, SECRET, Stack


async def _doctor(stack: Stack, *words: str, **settings: str) -> tuple[int | None, str, str]:
    """Run it; gives exit status, output and complaints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "cli.py",
        "doctor",
        *words,
        cwd=ROOT,
        env={**os.environ, **stack.place.environment(**settings)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with soon(50):
        out, complaints = await process.communicate()
    return process.returncode, out.decode(), complaints.decode()


async def test_of_what_is_well_all_is_ok_and_nothing_is_sent_but_a_push_to_nobody(healthy: Stack) -> None:
    simulator = healthy.place.simulator
    simulator.requests.clear()

    status, out, complaints = await _doctor(healthy, "--json")

    report = json.loads(out)
    assert (status, complaints) == (0, "")
    assert {line["level"] for line in report["items"]} == {"ok", "reminder"}
    assert (report["healthy"], report["warnings"], report["failures"]) == (True, 0, 0)
    assert report["ok"] == sum(line["level"] == "ok" for line in report["items"])
    assert {line["area"] for line in report["items"]} == {
        "settings", "apns", "fcm", "database", "temporal", "phones",
    }  # fmt: skip
    pushed = [each for each in simulator.requests if each.token in PROBE_TOKENS.values()]  # others send there, too
    assert sorted((each.provider, each.environment, each.reason) for each in pushed) == [
        ("apns", "production", "BadDeviceToken"),
        ("apns", "sandbox", "BadDeviceToken"),
        ("fcm", "production", "INVALID_ARGUMENT"),
    ]
    assert await healthy.rows("SELECT 1 FROM push_tasks") == []


async def test_a_failure_is_reported_with_what_to_do_and_fails_a_pipeline(healthy: Stack, tmp_path: Path) -> None:
    settings = healthy.place.environment(APNS_TOPIC="app.fastbell.other", DATABASE_URL="")
    lines = [f"{name}='{value}'\n" for name, value in settings.items() if value]
    (tmp_path / "run.env").write_text(f"{''.join(lines)}DATABASE_URL='{healthy.place.database_url}'\n")

    status, out, complaints = await _doctor(healthy, **dict.fromkeys(settings, ""), RUN_DIR=str(tmp_path))

    assert (status, complaints) == (1, "")
    told = out.splitlines()
    at = told.index(
        "FAILURE   apns: default app, production: DeviceTokenNotForTopic: the topic does not belong to this team"
    )
    assert told[at + 1] == "          Set APNS_TOPIC to the bundle id of the app, as its App ID has it (case counts)."
    assert told[-1].endswith(" ok, 1 warning, 1 failure.")
    _tells_no_secret(healthy, out)


async def test_what_is_broken_everywhere_tells_no_secret(
    healthy: Stack, examine: Examine, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "AuthKey_ABCDE12345.p8"
    key.write_text("-----BEGIN PRIVATE KEY-----\nhush-hush\n-----END PRIVATE KEY-----\n")

    lines = await examine(
        APNS_KEY_FILE=str(key),
        DATABASE_URL="postgresql://app:hush-hush@127.0.0.1:9/none",
        HTTPS_PROXY="ftp://user:hush-hush@proxy.example",
        AUTH_JWT_SECRET="hush-hush",
        TEMPORAL_ADDRESS="127.0.0.1:9",
        TEMPORAL_API_KEY="hush-hush",
    )

    told = str([lines, *capfd.readouterr()])
    assert sum(line.level is Level.FAILURE for line in lines) == 5
    assert "hush-hush" not in told
    _tells_no_secret(healthy, told)


async def test_offline_nothing_is_reached_and_each_process_has_its_own_needs(healthy: Stack, examine: Examine) -> None:
    simulator = healthy.place.simulator
    simulator.requests.clear()

    api = await examine("api", offline=True, **dict.fromkeys(simulator.environment, ""))
    worker = await examine("worker", offline=True, AUTH_JWT_SECRET="", TEMPORAL_ADDRESS="127.0.0.1:9")

    assert (api, worker) == ([], [])
    assert not [each for each in simulator.requests if each.token in PROBE_TOKENS.values()]


async def test_a_reader_that_has_read_enough_ends_it_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "cli.py",
        "doctor",
        "--offline",
        "--json",
        cwd=ROOT,
        stdout=writing,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(writing)
    async with soon(50):
        _, complaints = await process.communicate()

    assert (process.returncode, complaints) == (141, b"")


async def test_it_ends_at_once_for_the_temporal_sdk_may_crash_an_interpreter_that_shuts_down() -> None:
    shut_down = "import atexit, runpy, sys; atexit.register(print, 'interpreter shut down'); "
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        f"{shut_down}sys.argv = ['cli.py', 'doctor']; runpy.run_path('cli.py', run_name='__main__')",
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "TEMPORAL_ADDRESS": f"127.0.0.1:{free_port()}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with soon(50):
        out, complaints = await process.communicate()

    assert (process.returncode, complaints) == (1, b"")
    assert b"temporal: cannot be reached" in out
    assert out.endswith(b" failures.\n")


def _tells_no_secret(stack: Stack, out: str) -> None:
    account = json.loads(Path(stack.place.simulator.environment["FCM_SERVICE_ACCOUNT_FILE"]).read_text())
    assert SECRET not in out
    assert account["private_key"].splitlines()[1] not in out
    assert "ya29." not in out
    assert "eyJ" not in out
