"""How processes reach Temporal: by the SDK's own environment settings, with the converter that all of them share."""

import asyncio
import os

import structlog
from temporalio.client import Client
from temporalio.contrib.pydantic import PydanticPayloadConverter
from temporalio.converter import CompositePayloadConverter, DataConverter
from temporalio.envconfig import ClientConfig, ClientConnectConfig
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig

from telemetry import tracing
from telemetry.temporal_tracing import Tracing

_PYDANTIC = PydanticPayloadConverter()

log = structlog.get_logger()


class OneConverter(CompositePayloadConverter):
    """pydantic's converter, its validators built once and shared.

    The SDK makes a converter for each workflow that it keeps in memory. Each of pydantic's would build validators of
    its own, which costs CPU and memory.
    """

    def __init__(self) -> None:
        super().__init__(*_PYDANTIC.converters.values())


data_converter = DataConverter(payload_converter_class=OneConverter)


async def connect(*, lazy: bool = False, runtime: Runtime | None = None) -> Client:
    """Connect to the configured server; a lazy client connects when it is first used, so a process may start before."""
    interceptors = [Tracing()] if tracing.is_on() else []
    return await Client.connect(
        **connection(), lazy=lazy, runtime=runtime, data_converter=data_converter, interceptors=interceptors
    )


def connection() -> ClientConnectConfig:
    """Read address, namespace and credentials from the environment; a variable that is empty counts as not set."""
    settings = {name: value for name, value in os.environ.items() if value}
    config = ClientConfig.load_client_connect_config(override_env_vars=settings)
    config.setdefault("target_host", "127.0.0.1:7233")
    return config


async def connect_when_up(runtime: Runtime) -> Client:
    """Connect, however long the server takes to appear."""
    wait = 0.5
    while True:
        try:
            return await connect(runtime=runtime)
        except RuntimeError as error:  # what the SDK raises when nobody answers
            log.warning("temporal is not reachable yet", error=type(error).__name__)
            await asyncio.sleep(wait)
            wait = min(wait * 2, 10.0)


def runtime_with_metrics(host: str, port: int) -> Runtime:
    """Serve the SDK's own metrics for Prometheus."""
    metrics = PrometheusConfig(bind_address=f"{host}:{port}", durations_as_seconds=True, counters_total_suffix=True)
    return Runtime(telemetry=TelemetryConfig(metrics=metrics))
