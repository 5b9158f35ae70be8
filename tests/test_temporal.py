"""Temporal's settings: what cannot be is refused with one sentence."""

import socket
import sys
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import pytest

from config import ConfigError
from simulator import Simulator
from temporal import connection
from tests.house import ROOT

NOT_THERE = "TEMPORAL_* cannot be used: [Errno 2] No such file or directory: '/none'."
HOST_AND_PORT = "TEMPORAL_ADDRESS must be host:port, for example 127.0.0.1:7233."


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"TEMPORAL_ADDRESS": "temporal"}, HOST_AND_PORT),
        ({"TEMPORAL_ADDRESS": "https://temporal:7233"}, HOST_AND_PORT),
        ({"TEMPORAL_ADDRESS": "no address:7233"}, HOST_AND_PORT),
        ({"TEMPORAL_TLS_SERVER_CA_CERT_PATH": "/none"}, NOT_THERE),
        ({"TEMPORAL_PROFILE": "none"}, "TEMPORAL_* cannot be used: Profile 'none' not found."),
    ],
)
def test_settings_that_cannot_be_are_refused(
    settings: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ConfigError) as raised:
        connection()

    assert str(raised.value) == sentence


def test_a_refusal_quotes_nothing_of_a_file_that_may_hold_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporal.toml").write_text('[profile.default]\napi_key = "hush hush\n')
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(tmp_path / "temporal.toml"))

    with pytest.raises(ConfigError, match="TOML parse error at line 2") as raised:
        connection()

    assert "hush" not in str(raised.value)


async def test_a_worker_that_cannot_serve_its_metrics_says_so_in_one_sentence(simulator: Simulator) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        settings = simulator.environment | {
            "DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none",
            "METRICS_PORT": str(busy.getsockname()[1]),
        }
        worker = await create_subprocess_exec(
            sys.executable, "worker.py", cwd=ROOT, env=settings, stdout=PIPE, stderr=STDOUT
        )
        told, _ = await worker.communicate()

    assert worker.returncode == 1
    assert told.decode() == "METRICS_HOST and METRICS_PORT: nobody can listen there: Address already in use.\n"
