"""Temporal behind TLS and mTLS, by settings alone: each handshake is real, with a proxy that ends TLS."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest

from dispatch.client import check_settings, connect, why
from settings.environment import ConfigError
from tests.servers import free_port, pass_on

AUTHORITY = "TEMPORAL_TLS_SERVER_CA_CERT_PATH"
CERTIFICATE, KEY = "TEMPORAL_TLS_CLIENT_CERT_PATH", "TEMPORAL_TLS_CLIENT_KEY_PATH"
NAME = "temporal.internal"  # in the server's certificate; its address is another


@pytest.fixture(scope="module")
def authorities() -> tuple[trustme.CA, trustme.CA]:
    """The authority that server and client belong to, and another."""
    return trustme.CA(), trustme.CA()


@pytest.fixture
def files(authorities: tuple[trustme.CA, trustme.CA], tmp_path: Path) -> Callable[[trustme.CA], Mapping[str, str]]:
    """Write what a client needs whose certificate is of the given authority; gives its settings."""
    server_authority, _ = authorities

    def write(client_authority: trustme.CA) -> Mapping[str, str]:
        shown = client_authority.issue_cert("worker.internal")
        server_authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        (tmp_path / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in shown.cert_chain_pems))
        shown.private_key_pem.write_to_path(tmp_path / "key.pem")
        return {
            "TEMPORAL_TLS_SERVER_NAME": NAME,
            "TEMPORAL_TLS_SERVER_CA_CERT_PATH": str(tmp_path / "ca.pem"),
            "TEMPORAL_TLS_CLIENT_CERT_PATH": str(tmp_path / "cert.pem"),
            "TEMPORAL_TLS_CLIENT_KEY_PATH": str(tmp_path / "key.pem"),
        }

    return write


@pytest.fixture
async def encrypted(authorities: tuple[trustme.CA, trustme.CA], temporal: str) -> AsyncIterator[str]:
    """The address of a proxy that ends TLS in front of Temporal, and asks for a client's certificate."""
    authority, _ = authorities
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(NAME).configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    async with _proxy(temporal, context) as address:
        yield address


async def test_a_client_with_its_certificate_is_served(
    authorities: tuple[trustme.CA, trustme.CA], files: Callable[[trustme.CA], Mapping[str, str]], encrypted: str
) -> None:
    assert await _namespace(encrypted, files(authorities[0])) == "main"


async def test_tls_alone_is_served_where_no_certificate_is_asked_for(
    authorities: tuple[trustme.CA, trustme.CA], temporal: str, tmp_path: Path
) -> None:
    authority, _ = authorities
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(NAME).configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    settings = {
        "TEMPORAL_TLS": "true",
        "TEMPORAL_TLS_SERVER_NAME": NAME,
        "TEMPORAL_TLS_SERVER_CA_CERT_PATH": str(tmp_path / "ca.pem"),
    }

    async with _proxy(temporal, context) as address:
        assert await _namespace(address, settings) == "main"
        with pytest.raises(RuntimeError):  # what the server answers to plain text is no HTTP/2
            await _namespace(address, {})


@pytest.mark.parametrize(
    ("left_out", "reason"),
    [
        (
            {"TEMPORAL_TLS_CLIENT_CERT_PATH", "TEMPORAL_TLS_CLIENT_KEY_PATH"},
            "it asks for TLS, or for another certificate",
        ),
        ({"TEMPORAL_TLS_SERVER_CA_CERT_PATH"}, "of an authority that is not trusted; TEMPORAL_TLS_SERVER_CA_CERT_PATH"),
        ({"TEMPORAL_TLS_SERVER_NAME"}, "for another name; TEMPORAL_TLS_SERVER_NAME says which"),
    ],
    ids=["no certificate", "an authority of nobody we know", "another name"],
)
async def test_each_setting_is_needed_and_named_where_it_is_missing(
    authorities: tuple[trustme.CA, trustme.CA],
    files: Callable[[trustme.CA], Mapping[str, str]],
    encrypted: str,
    left_out: set[str],
    reason: str,
) -> None:
    settings = {name: value for name, value in files(authorities[0]).items() if name not in left_out}

    with pytest.raises(RuntimeError) as raised:
        await _namespace(encrypted, {**settings, "TEMPORAL_TLS": "true"})
    assert reason in why(raised.value)


async def test_a_certificate_of_another_authority_is_refused(
    authorities: tuple[trustme.CA, trustme.CA], files: Callable[[trustme.CA], Mapping[str, str]], encrypted: str
) -> None:
    with pytest.raises(RuntimeError) as raised:
        await _namespace(encrypted, files(authorities[1]))
    assert "TEMPORAL_TLS_CLIENT_CERT_PATH" in why(raised.value)


async def test_why_there_is_no_connection_is_told(temporal: str, files: Callable[..., Mapping[str, str]]) -> None:
    settings = files(trustme.CA())
    for address, reason in ((temporal, "does not speak TLS"), (f"127.0.0.1:{free_port()}", "nobody listens")):
        with pytest.raises(RuntimeError) as raised:
            await _namespace(address, settings)
        assert reason in why(raised.value)
    assert why(RuntimeError("what nobody knows: secret")) == "RuntimeError"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"TEMPORAL_TLS": "ture"}, "TEMPORAL_TLS must be true or false"),
        ({"TEMPORAL_TLS_SERVER_NAME": "two words"}, "TEMPORAL_TLS_SERVER_NAME must be the name of a host"),
        ({"TEMPORAL_API_KEY": "hush\nhush"}, "TEMPORAL_API_KEY must be one word of ASCII characters"),
        ({KEY: ""}, f"{CERTIFICATE} and {KEY} belong together"),
        ({CERTIFICATE: ""}, f"{CERTIFICATE} and {KEY} belong together"),
        ({AUTHORITY: "README.md"}, f"{AUTHORITY} names a file without certificates in PEM form: README.md"),
        ({CERTIFICATE: "README.md"}, f"{CERTIFICATE} names a file without certificates in PEM form: README.md"),
        ({KEY: "README.md"}, f"{KEY} names a file without a private key in PEM form"),
        ({KEY: "another"}, f"{KEY} names the key of another certificate than {CERTIFICATE}"),
        ({CERTIFICATE: "/no/such"}, f"{CERTIFICATE} names a file that cannot be read: No such file or directory"),
    ],
)
async def test_what_cannot_be_used_stops_the_start_with_one_sentence(
    files: Callable[[trustme.CA], Mapping[str, str]], tmp_path: Path, change: Mapping[str, str], sentence: str
) -> None:
    settings = {**files(trustme.CA()), **change}
    if settings[KEY] == "another":
        settings[KEY] = str(tmp_path / "another.pem")
        trustme.CA().issue_cert("other.internal").private_key_pem.write_to_path(tmp_path / "another.pem")

    environ = {"TEMPORAL_ADDRESS": "127.0.0.1:7233", **settings}
    with pytest.raises(ConfigError, match=rf"^{sentence}[^\n]*\.$") as raised:
        check_settings(environ)  # of the API, before it starts
    assert "hush" not in str(raised.value)
    with pytest.raises(ConfigError):
        await connect(environ=environ)


async def _namespace(address: str, settings: Mapping[str, str]) -> str:
    """Connect with these settings, and ask Temporal for the namespace."""
    client = await connect(environ={"TEMPORAL_ADDRESS": address, "TEMPORAL_NAMESPACE": "main", **settings})
    answer = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace="main"))
    return answer.namespace_info.name


@asynccontextmanager
async def _proxy(upstream: str, context: ssl.SSLContext) -> AsyncIterator[str]:
    context.set_alpn_protocols(["h2"])
    host, _, port = upstream.partition(":")
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        to, back = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pass_on(reader, back), pass_on(to, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
