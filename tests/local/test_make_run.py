"""`make run`: the demonstration, the end of everything, and the next run."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from commands.context import read_settings
from tests.busy import ANSWERED_WITHIN, crowding, in_time
from tests.local.run import ROOT, LocalRun, environment, lives, local_run, wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(150)]  # all parts may take a minute to start

PARTS = {"postgres", "temporal", "simulator", "worker", "worker2", "api"}
SHOWN = "Alice's {} shows “Your fast is almost over: 1 minute to go.”, received once."
LATENESS = re.compile(r"received alice's reminder (-?\d+) ms after it was due")


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Where runs keep their state, one after the other.

    Not below pytest's own directory: each session that starts closes it to other users, such as root's PostgreSQL.
    """
    with tempfile.TemporaryDirectory(prefix="fastbell-") as directory:
        yield Path(directory)


@pytest.fixture(scope="module")
def first_run(place: Path) -> Iterator[LocalRun]:
    """A run whose demonstration is over."""
    with local_run(environment(place), place / "first") as run:
        run.wait_for("Ctrl-C stops everything.")
        yield run


def _sessions(run: LocalRun) -> list[str]:
    bearer = run.cli("token", "--user", "alice").stdout.strip()
    answer = httpx.get(
        f"{run.api_url}/v1/fasting-sessions", headers={"Authorization": f"Bearer {bearer}"}, timeout=ANSWERED_WITHIN
    )
    return [item["id"] for item in answer.raise_for_status().json()["items"]]


def test_the_demonstration_shows_the_reminder_once_on_both_phones_and_nothing_on_the_third(first_run: LocalRun) -> None:
    told = first_run.text

    assert SHOWN.format("iPhone") in told
    assert SHOWN.format("Pixel") in told
    assert "Bob's iPhone shows nothing: his fast ended before its reminder was due." in told
    assert "The demonstration failed" not in told
    lateness = [int(found) for found in LATENESS.findall(told)]
    assert len(lateness) == 2
    assert min(lateness) >= -5
    assert in_time(max(lateness) / 1000, 3.0)  # usually 0.1; a task that Temporal has to give again comes after 10


def test_the_demonstration_hands_a_message_to_a_phone_that_is_connected_and_to_one_that_sleeps(
    first_run: LocalRun,
) -> None:
    told = first_run.text

    assert re.search(r"alice writes to bob\. The API accepts the message after \d+ ms\.", told)
    assert re.search(r"Bob's iPhone gets the message through its stream \d+ ms later\.", told)
    assert "Bob's Pixel shows “New message: Open the app to read it.”, received once." in told
    assert "Bob's iPhone shows no notification: it already had the message." in told
    assert "Bob's Pixel wakes, syncs, and gets “Shall we break our fast together?”." in told


def test_the_walk_throughs_of_the_documents_hold_as_they_are_written(first_run: LocalRun) -> None:
    blocks = {
        "README.md": r"(?s)With `make run` running:\n\n(    KEY=.*?)\n\n\*\*",
        "docs/messages.md": r"(?s)```sh\n(.*?)```",
    }
    walking = {path: _walk(first_run, path, pattern) for path, pattern in blocks.items()}
    told = {path: process.communicate(timeout=60 * crowding())[0] for path, process in walking.items()}

    assert {path: process.returncode for path, process in walking.items()} == dict.fromkeys(blocks, 0), told
    assert '"state":"sent"' in told["README.md"]
    assert '"status":"broken"' in told["README.md"]
    assert '"type":"push.accepted"' in told["README.md"]
    assert "New message" in told["docs/messages.md"]
    assert '"body":"Shall we break our fast at 8?"' in told["docs/messages.md"]
    assert re.search(r'data: .*"body": ?"Or at 9\?"', told["docs/messages.md"])
    assert re.search(r'"synced_at": ?"2', told["docs/messages.md"])


def test_the_addresses_that_it_tells_answer(first_run: LocalRun) -> None:
    addresses = re.findall(r"http://127\.0\.0\.1:\S+", first_run.text)

    assert len(addresses) == 5
    assert {
        httpx.get(address, follow_redirects=True, timeout=ANSWERED_WITHIN).status_code for address in addresses
    } == {200}
    [session_id] = _sessions(first_run)
    assert any(address.endswith(f"/workflows/fasting-reminder%2F{session_id}") for address in addresses)
    [listed] = [address for address in addresses if "/workflows?query=" in address]
    shown = httpx.get(listed.replace("/namespaces/", "/api/v1/namespaces/"), timeout=ANSWERED_WITHIN).json()[
        "executions"
    ]
    assert {each["type"]["name"] for each in shown} == {"FastingReminder", "MessageHandoff"}  # no housekeeping


def test_each_worker_serves_metrics_on_a_port_that_it_tells(first_run: LocalRun) -> None:
    told = re.search(r"^  metrics +2 workers, on port (\d+), (\d+)$", first_run.text, re.MULTILINE)

    assert told is not None
    assert told[1] == first_run.environment["METRICS_PORT"]
    assert {
        httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=ANSWERED_WITHIN).status_code for port in told.groups()
    } == {200}


def test_the_console_opens_with_the_code_that_it_tells_and_shows_the_demonstration(first_run: LocalRun) -> None:
    told = re.search(r"^  console +(http://\S+/console)  sign-in code (\S+)$", first_run.text, re.MULTILINE)
    assert told is not None

    with httpx.Client(base_url=first_run.api_url, follow_redirects=True, timeout=ANSWERED_WITHIN) as browser:
        overview = browser.post("/console/sign-in", data={"code": told[2]})
        person = browser.get("/console/person", params={"user": "alice"})
        again = browser.post("/console/sign-in", data={"code": told[2]})

    assert (overview.status_code, person.status_code, again.status_code) == (200, 200, 401)
    assert overview.url.path == "/console/"
    assert "All is well." in overview.text
    assert "Apple accepted the reminder 1 minute before the end" in person.text
    [session_id] = _sessions(first_run)
    assert f"/workflows/fasting-reminder%2F{session_id}" in person.text
    another = first_run.cli("console", "--user", "maria").stdout
    assert re.fullmatch(rf"console  {re.escape(told[1])}\ncode     (\w{{4}}-){{3}}\w{{4}}\n", another)


def test_a_token_is_all_that_cli_token_prints_and_the_api_accepts_it(first_run: LocalRun) -> None:
    printed = first_run.cli("token", "--user", "zoë ∞", "--scope", "support", "--scope", "service", "--hours", "0.5")

    assert (printed.returncode, printed.stderr) == (0, "")
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", printed.stdout)
    answer = httpx.get(
        f"{first_run.api_url}/v1/users/zo%C3%AB%20%E2%88%9E/device-tokens",
        headers={"Authorization": f"Bearer {printed.stdout.strip()}"},
        timeout=ANSWERED_WITHIN,
    )
    assert (answer.status_code, answer.json()) == (200, {"items": [], "next_cursor": None})


def test_the_settings_of_the_run_are_private_and_hold_for_a_part_run_by_hand(first_run: LocalRun, place: Path) -> None:
    assert (place / "run.env").stat().st_mode & 0o777 == 0o600
    settings = read_settings(place)
    assert settings["API_PORT"] == first_run.environment["API_PORT"]

    by_hand = f"set -a; . {place}/run.env; {sys.executable} cli.py migrate"
    migrated = subprocess.run(
        ["sh", "-c", by_hand], cwd=ROOT, capture_output=True, text=True, timeout=20 * crowding(), check=False
    )

    assert (migrated.returncode, migrated.stdout, migrated.stderr) == (0, "", "")


def test_a_second_run_in_the_same_directory_is_refused_while_the_first_lives(first_run: LocalRun, place: Path) -> None:
    with local_run(environment(place), place / "refused") as second:
        assert second.process.wait(timeout=40 * crowding()) == 1

    assert second.text == (
        f"RUN_DIR {place} is in use by another run (process {first_run.process.pid}); "
        "stop that one, or name another directory.\n"
    )


def test_a_busy_port_is_reported_by_name_and_number_before_anything_starts(first_run: LocalRun, tmp_path: Path) -> None:
    settings = environment(tmp_path)
    with socket.create_server(("127.0.0.1", int(settings["SIMULATOR_PORT"]) + 2)) as busy:
        with local_run(settings, tmp_path / "output") as run:
            assert run.process.wait(timeout=40 * crowding()) == 1

        port = busy.getsockname()[1]
    assert run.text == f"Port {port} (SIMULATOR_PORT + 2) is in use; set SIMULATOR_PORT to another port.\n"
    assert not (tmp_path / "postgres").exists()
    assert lives(first_run.process.pid)


def test_ctrl_c_ends_all_and_the_next_run_continues_until_a_part_dies(first_run: LocalRun, place: Path) -> None:
    before = _sessions(first_run)
    assert set(first_run.parts) == PARTS
    assert first_run.end(signal.SIGINT) == 0
    assert [name for name, pid in first_run.parts.items() if lives(pid)] == []
    afterwards = first_run.text.partition("Ctrl-C stops everything.\n")[2].splitlines()
    assert afterwards[-1] == "Stopping."
    assert [line for line in afterwards[:-1] if "sign-in refused" not in line] == []  # the code that was used twice
    _leave_traces_of_a_power_cut(place / "postgres")

    with local_run(environment(place), place / "second") as second:
        second.wait_for("alice starts a fast")
        assert set(before) < set(_sessions(second))
        os.kill(second.parts["simulator"], signal.SIGKILL)
        assert second.process.wait(timeout=40 * crowding()) == 1

    told = second.text.partition("simulator ended unexpectedly, so everything stops. Its last lines:\n")[2]
    assert f"simulator | Provider simulator: http://127.0.0.1:{second.environment['SIMULATOR_PORT']}" in told
    assert [name for name, pid in second.parts.items() if lives(pid)] == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends the children of a parent that was killed")
def test_a_killed_supervisor_leaves_only_a_database_that_the_next_run_adopts_and_stops(place: Path) -> None:
    settings = environment(place / "another")
    with local_run(settings, place / "killed") as killed:
        killed.wait_for("temporal   ready")
        assert killed.end(signal.SIGKILL) == -signal.SIGKILL
    wait_until(lambda: not lives(killed.parts["temporal"]))

    with local_run(settings, place / "next") as following:
        following.wait_for("postgres   ready")
        assert following.parts["postgres"] == killed.parts["postgres"]
        assert following.end(signal.SIGTERM) == 0

    assert [name for name, pid in following.parts.items() if lives(pid)] == []


def _leave_traces_of_a_power_cut(postgres: Path) -> None:
    """Name this living process as the server, and a dead one as its user."""
    lines = [str(os.getpid()), str(postgres), "1700000000", "5432", str(postgres), "", "0 0", "ready", ""]
    (postgres / "postmaster.pid").write_text("\n".join(lines))
    (postgres / ".handle_pids.json").write_text("[1]")


def _walk(run: LocalRun, path: str, pattern: str) -> "subprocess.Popen[str]":
    """Run what a document tells to type, at the ports of this run."""
    found = re.search(pattern, (ROOT / path).read_text())
    assert found is not None
    ports = {"8000": run.environment["API_PORT"], "8900": run.environment["SIMULATOR_PORT"]}
    script = re.sub(r"127\.0\.0\.1:(8000|8900)", lambda match: f"127.0.0.1:{ports[match[1]]}", found[1])
    return subprocess.Popen(
        ["bash", "-e", "-c", script],
        cwd=ROOT,
        env=run.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
