"""The files that the simulator makes, and the simulator as a process of its own."""

import asyncio
import json
import os
import signal
import stat
import sys
from pathlib import Path

import httpx
import pytest

from simulator import Ports, Simulator
from simulator.settings import ProcessSettings, provider_environment
from tests.busy import ANSWERED_WITHIN


def test_the_environment_is_known_before_anything_runs(tmp_path: Path) -> None:
    environment = provider_environment(tmp_path, Ports.following(8900))

    files = tmp_path / "simulator"
    assert environment == {
        "APNS_KEY_FILE": str(files / "AuthKey_FBSIMKEY01.p8"),
        "APNS_KEY_ID": "FBSIMKEY01",
        "APNS_TEAM_ID": "FBSIMTEAM1",
        "APNS_TOPIC": "app.fastbell.demo",
        "APNS_URL": "https://127.0.0.1:8901",
        "APNS_SANDBOX_URL": "https://127.0.0.1:8902",
        "APNS_CA_FILE": str(files / "ca.pem"),
        "FCM_SERVICE_ACCOUNT_FILE": str(files / "fcm-service-account.json"),
        "FCM_URL": "https://127.0.0.1:8903",
        "FCM_CA_FILE": str(files / "ca.pem"),
    }


def test_a_second_start_reuses_every_file_and_follows_the_port(tmp_path: Path) -> None:
    provider_environment(tmp_path, Ports.following(8900))
    before = {path.name: path.read_bytes() for path in (tmp_path / "simulator").iterdir()}
    provider_environment(tmp_path, Ports.following(8900))
    same = {path.name: path.read_bytes() for path in (tmp_path / "simulator").iterdir()}
    provider_environment(tmp_path, Ports.following(9900))
    moved = {path.name: path.read_bytes() for path in (tmp_path / "simulator").iterdir()}

    assert before == same
    assert {name for name in moved if moved[name] != before[name]} == {"fcm-service-account.json"}
    account = json.loads(before["fcm-service-account.json"])
    assert json.loads(moved["fcm-service-account.json"]) == account | {"token_uri": "https://127.0.0.1:9903/token"}


def test_secrets_are_for_their_owner_alone(tmp_path: Path) -> None:
    provider_environment(tmp_path, Ports.following(8900))

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "simulator").iterdir()}
    assert {name for name, mode in modes.items() if mode == 0o600} == {
        "AuthKey_FBSIMKEY01.p8",
        "ca.key",
        "fcm-service-account.json",
        "server.key",
    }


@pytest.mark.parametrize("port", ["x", "-1", "65536"])
def test_a_wrong_port_refuses_to_start(port: str) -> None:
    with pytest.raises(SystemExit, match="SIMULATOR_PORT must be a port number"):
        ProcessSettings.read({"SIMULATOR_PORT": port})


def test_each_listener_can_be_placed_elsewhere() -> None:
    settings = ProcessSettings.read({"SIMULATOR_PORT": "7000", "SIMULATOR_FCM_PORT": "7100", "RUN_DIR": "x"})

    assert settings == ProcessSettings(Path("x"), Ports(admin=7000, apns=7001, apns_sandbox=7002, fcm=7100))


async def test_two_simulators_run_side_by_side(sim: Simulator, tmp_path: Path) -> None:
    async with Simulator.start(run_dir=tmp_path) as other:
        assert {sim.ports.apns, sim.ports.fcm}.isdisjoint({other.ports.apns, other.ports.fcm})


async def test_it_runs_as_a_process_until_it_is_told_to_stop(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "simulator",
        env=os.environ | {"RUN_DIR": str(tmp_path), "SIMULATOR_PORT": "0"},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().split()[-1]
    async with httpx.AsyncClient(timeout=ANSWERED_WITHIN) as client:
        health = await client.get(f"{url}/healthz")
    process.send_signal(signal.SIGTERM)

    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    assert await process.wait() == 0
