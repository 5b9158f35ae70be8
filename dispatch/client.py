"""How processes reach Temporal: by the SDK's environment settings, with one converter for all.

What is wrong with settings of TLS is said before the first connection, and why a connection fails, in words: the SDK
would report a wrong file like a server that is away, and try again for ever.
"""

import asyncio
import logging
import os
import re
import socket
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import NoReturn

import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, GetSystemInfoRequest
from temporalio.client import Client
from temporalio.contrib.pydantic import PydanticPayloadConverter
from temporalio.converter import CompositePayloadConverter, DataConverter
from temporalio.envconfig import ClientConfig, ClientConnectConfig
from temporalio.runtime import (
    LogForwardingConfig,
    LoggingConfig,
    PrometheusConfig,
    Runtime,
    TelemetryConfig,
    TelemetryFilter,
)
from temporalio.service import GrpcCompression, RPCError, RPCStatusCode

from dispatch.payload_encryption import PayloadEncryption, UnusableKeys, WithoutKeys
from settings.environment import ConfigError, temporal_settings
from telemetry import metrics, tracing
from telemetry.temporal_tracing import Tracing

_PORTS_TRIED = 5
_WATCH_EVERY = 5.0  # seconds
_ANSWERS_WITHIN = timedelta(seconds=5)
_reached = threading.Event()  # set while the server answers, and before the first question
_reached.set()
_PYDANTIC = PydanticPayloadConverter()

_FORWARDED = LoggingConfig(  # else the SDK's core writes lines of its own form to standard output
    TelemetryFilter(core_level="WARN", other_level="ERROR"),
    LogForwardingConfig(logging.getLogger("temporalio"), prepend_target_on_message=False),
)

log = structlog.get_logger()
_TLS = "TEMPORAL_TLS"
_AUTHORITY = "TEMPORAL_TLS_SERVER_CA_CERT_PATH"
_SERVER_NAME = "TEMPORAL_TLS_SERVER_NAME"
_CERTIFICATE = "TEMPORAL_TLS_CLIENT_CERT_PATH"
_KEY = "TEMPORAL_TLS_CLIENT_KEY_PATH"
_API_KEY = "TEMPORAL_API_KEY"
_BOOLEANS = {"true", "false", "1", "0"}
_WHY = {  # a part of what the SDK's core says, which also holds addresses -> what it means
    "InvalidContentType": f"the server does not speak TLS; {_TLS} and {_AUTHORITY} ask for it",
    "UnknownIssuer": f"the server's certificate is of an authority that is not trusted; {_AUTHORITY} names it",
    "NotValidForName": f"the server's certificate is for another name; {_SERVER_NAME} says which",
    "InvalidCertificate(Expired": "the server's certificate has expired",
    "InvalidCertificate": "the server's certificate is not valid",
    "AlertReceived": f"the server refuses the certificate of this client ({_CERTIFICATE})",
    "after connection": f"the server hangs up: it asks for TLS, or for another certificate in {_CERTIFICATE}",
    "ConnectionRefused": "nobody listens at TEMPORAL_ADDRESS",
    "dns error": "the host of TEMPORAL_ADDRESS is not known",
}


@dataclass(frozen=True, slots=True)
class Metered:
    """A runtime of the SDK (None: the common one), and the port of this machine that serves its metrics."""

    runtime: Runtime | None
    port: int | None


UNMETERED = Metered(None, None)


class OneConverter(CompositePayloadConverter):
    """pydantic's converter, its validators built once and shared.

    The SDK makes a converter for each workflow that it keeps in memory. Each of pydantic's would build validators of
    its own, which costs CPU and memory.
    """

    def __init__(self) -> None:
        super().__init__(*_PYDANTIC.converters.values(), WithoutKeys())


data_converter = DataConverter(payload_converter_class=OneConverter)


async def connect(
    *, lazy: bool = False, runtime: Runtime | None = None, environ: Mapping[str, str] = os.environ
) -> Client:
    """Connect to the configured server; a lazy client connects at its first use, so a process may start earlier.

    Raises ConfigError for settings that cannot be used, and RuntimeError where there is no connection. Calls are small
    and many: to compress one costs both sides more than to send it.
    """
    check_settings(environ)
    return await Client.connect(
        **connection(environ),
        lazy=lazy,
        runtime=runtime,
        data_converter=converter(environ),
        interceptors=[Tracing()] if tracing.is_on() else [],
        grpc_compression=GrpcCompression.NONE,
    )


def check_settings(environ: Mapping[str, str] = os.environ) -> None:
    """Raise ConfigError for settings of Temporal, or files that they name, that cannot be used."""
    check_encryption({name: value for name, value in environ.items() if value})
    connection(environ)
    converter(environ)


def converter(environ: Mapping[str, str] = os.environ) -> DataConverter:
    """Give the converter, which encrypts if PAYLOAD_KEYS_FILE is set; raises ConfigError."""
    path = temporal_settings(environ).payload_keys_file
    if path is None:
        return data_converter
    try:
        return replace(data_converter, payload_codec=PayloadEncryption(path))
    except UnusableKeys as error:
        raise ConfigError(f"PAYLOAD_KEYS_FILE cannot be used: {error}.") from None


def connection(environ: Mapping[str, str] = os.environ) -> ClientConnectConfig:
    """Read address, namespace and credentials from the environment; raises ConfigError.

    A variable that is empty counts as not set.
    """
    settings = {name: value for name, value in environ.items() if value}
    try:
        config = ClientConfig.load_client_connect_config(override_env_vars=settings)
    except (OSError, RuntimeError) as error:
        why, _, _ = str(error).partition("\n")  # below it are lines of a file that may hold the API key
        raise ConfigError(f"TEMPORAL_* cannot be used: {why}.") from None
    if not re.fullmatch(r"[^\s/@]+:[0-9]{1,5}", config.setdefault("target_host", "127.0.0.1:7233")):
        raise ConfigError("TEMPORAL_ADDRESS must be host:port, for example 127.0.0.1:7233.")
    return config


async def connect_when_up(runtime: Runtime | None) -> Client:
    """Connect, however long the server takes to start; raises ConfigError where it has no such namespace."""
    wait = 0.5
    while True:
        try:
            client = await connect(runtime=runtime)
            await _find_namespace(client)
        except RuntimeError as error:  # what the SDK raises when there is no answer
            log.warning("temporal unreachable, will retry", error=why(error))
            await asyncio.sleep(wait)
            wait = min(wait * 2, 10.0)
        else:
            return client


def metered_runtime() -> Metered:
    """Make a runtime that serves the SDK's metrics on a local port; without them where no port is free."""
    for _ in range(_PORTS_TRIED):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        exporter = PrometheusConfig(f"127.0.0.1:{port}", durations_as_seconds=True, counters_total_suffix=True)
        try:
            return Metered(Runtime(telemetry=TelemetryConfig(_FORWARDED, exporter)), port)
        except (RuntimeError, ValueError):  # another process took the port
            continue
    log.warning("temporal metrics unavailable")
    return Metered(Runtime(telemetry=TelemetryConfig(_FORWARDED)), None)


@cache
def silent_runtime() -> Runtime:
    """Give a runtime without logs for commands, which say themselves what is wrong."""
    return Runtime(telemetry=TelemetryConfig(logging=None))


def leave(status: int) -> NoReturn:
    """End this process at once: the SDK's threads may crash an interpreter that shuts down (sdk-python #300)."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def certificate_files() -> dict[str, Path]:
    """Name the certificates that this client shows and trusts."""
    settings = ("TEMPORAL_TLS_CLIENT_CERT_PATH", "TEMPORAL_TLS_SERVER_CA_CERT_PATH")
    return {name: Path(os.environ[name]) for name in settings if os.environ.get(name)}


async def _find_namespace(client: Client) -> None:
    request = DescribeNamespaceRequest(namespace=client.namespace)
    try:
        await client.workflow_service.describe_namespace(request, timeout=_ANSWERS_WITHIN)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            wanted = f"the server has no namespace {client.namespace}; create it (docs/deployment.md)"
            raise ConfigError(f"TEMPORAL_NAMESPACE: {wanted}.") from None


def reaches_temporal() -> bool:
    """Tell whether the server answered the last question of this process; true before the first."""
    return _reached.is_set()


async def watch(client: Client) -> None:
    """Keep the metric of whether the server answers, until cancelled."""
    while True:
        try:
            async with asyncio.timeout(_ANSWERS_WITHIN.total_seconds()):
                await client.workflow_service.get_system_info(GetSystemInfoRequest(), timeout=_ANSWERS_WITHIN)
        except Exception as error:  # noqa: BLE001 -- a watch that ends would never see it come back
            metrics.temporal_reachable.set(0)
            if _reached.is_set():
                log.warning("temporal unreachable", error=why(error))
            _reached.clear()
        else:
            metrics.temporal_reachable.set(1)
            _reached.set()
        await asyncio.sleep(_WATCH_EVERY)


def check_encryption(settings: Mapping[str, str]) -> None:
    """Raise ConfigError for settings of TLS, or files that they name, that cannot be used."""
    if settings.get(_TLS, "true").lower() not in _BOOLEANS:
        raise ConfigError(f"{_TLS} must be true or false.")
    if not re.fullmatch(r"[\w.:-]+", settings.get(_SERVER_NAME, "name"), re.ASCII):
        raise ConfigError(f"{_SERVER_NAME} must be the name of a host.")
    if not re.fullmatch(r"[!-~]+", settings.get(_API_KEY, "key")):
        raise ConfigError(f"{_API_KEY} must be one word of ASCII characters, without blanks and line breaks.")
    if _AUTHORITY in settings:
        _certificate(settings, _AUTHORITY)
    if (_CERTIFICATE in settings) is not (_KEY in settings):
        raise ConfigError(f"{_CERTIFICATE} and {_KEY} belong together: set both, or neither.")
    if _CERTIFICATE in settings and _certificate(settings, _CERTIFICATE) != _public_key(settings):
        raise ConfigError(f"{_KEY} names the key of another certificate than {_CERTIFICATE}.")


def why(error: Exception) -> str:
    """Say why a connection failed, without what the error may repeat of settings."""
    text = str(error)
    return next((meaning for part, meaning in _WHY.items() if part in text), type(error).__name__)


def _certificate(settings: Mapping[str, str], name: str) -> bytes:
    """Read the first certificate of a file; gives its public key."""
    content = _content(settings, name)
    try:
        [first, *_] = x509.load_pem_x509_certificates(content)
    except ValueError:
        raise ConfigError(f"{name} names a file without certificates in PEM form: {settings[name]}.") from None
    return first.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _public_key(settings: Mapping[str, str]) -> bytes:
    content = _content(settings, _KEY)
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it has a password
        what = "a private key in PEM form that needs no password"
        raise ConfigError(f"{_KEY} names a file without {what}: {settings[_KEY]}.") from None
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _content(settings: Mapping[str, str], name: str) -> bytes:
    try:
        return Path(settings[name]).read_bytes()
    except OSError as error:
        raise ConfigError(f"{name} names a file that cannot be read: {error.strerror}: {settings[name]}.") from None
