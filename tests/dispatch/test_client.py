"""Temporal's settings: what cannot be is refused with one sentence."""

import socket
import sys
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import pytest
from temporalio.service import GrpcCompression

from dispatch.client import connect, connection
from settings.environment import ConfigError
from simulator import Simulator
from tests.servers import free_port, part
from tests.stack import ROOT, SECRET

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
    assert told.decode() == "METRICS_HOST and METRICS_PORT: listening there failed: Address already in use.\n"


async def test_a_worker_whose_namespace_is_not_there_says_so_in_one_sentence(
    temporal: str, postgres: str, simulator: Simulator
) -> None:
    settings = {"DATABASE_URL": postgres, "TEMPORAL_ADDRESS": temporal, "TEMPORAL_NAMESPACE": "nowhere"}
    settings |= {"METRICS_PORT": str(free_port()), "LOG_LEVEL": "ERROR"}
    async with part(simulator.environment | settings, "worker.py") as worker:
        assert await worker.process.wait() == 1
        await worker._reading

    assert worker.lines[-1] == (
        "TEMPORAL_NAMESPACE: the server has no namespace nowhere; create it (docs/deployment.md).\n"
    )
    assert not any("Traceback" in line for line in worker.lines)


async def test_an_api_process_whose_port_is_taken_says_so_in_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        settings = {"DATABASE_URL": "postgresql://127.0.0.1:1/none", "AUTH_JWT_SECRET": SECRET, "API_PORT": str(port)}
        async with part(settings, "-m", "api") as api:
            assert await api.process.wait() == 1
            await api._reading

    assert api.lines[-1] == f"API_HOST and API_PORT: cannot listen at 127.0.0.1:{port}.\n"


async def test_calls_to_temporal_are_not_compressed() -> None:
    client = await connect(lazy=True)

    assert client.service_client.config.grpc_compression is GrpcCompression.NONE
