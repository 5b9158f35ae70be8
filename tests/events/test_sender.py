"""One request to a webhook, whatever the receiver does, and to no private address, whatever its name resolves to."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_address
from uuid import uuid4

import httpx
import pytest
import trustme

from domain.events import Attempted, Outgoing, Webhook, new_secret
from tests.busy import soon
from tests.events.receiver import Answering, Receiver, never, receiving, says
from webhooks.sender import JudgingBackend, RefusedAddress, UnknownHost, WebhookSender, check_url, is_public

_NOW = datetime(2026, 1, 31, 18, 0, 0, 5, tzinfo=UTC)
_OUTGOING = Outgoing(uuid4(), 7, "push.accepted", _NOW, {"user_id": "alice"})


def webhook(url: str) -> Webhook:
    return Webhook(uuid4(), url, None, new_secret(), None, _NOW, _NOW, 0, 0, 0)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver."""
    async with receiving() as receiver:
        yield receiver


async def send(url: str, *, within: float = 5.0, verify: ssl.SSLContext | None = None) -> Attempted:
    async with WebhookSender(allow_private=True, within=within, verify=verify or httpx.create_ssl_context()) as sender:
        return await sender.send(webhook(url), _OUTGOING)


async def test_a_request_is_signed_with_each_secret_as_the_specification_says(receiver: Receiver) -> None:
    former, which = new_secret(), webhook(receiver.url)
    async with WebhookSender(allow_private=True, within=5, verify=httpx.create_ssl_context()) as sender:
        came_to = await sender.send(replace(which, former_secret=former), _OUTGOING)

    [request] = receiver.requests
    assert (came_to.status, came_to.reason) == (204, None)
    assert request.id == "evt_7"
    assert request.body == (
        b'{"type":"push.accepted","timestamp":"2026-01-31T18:00:00.000005Z","data":{"user_id":"alice"}}'
    )
    assert abs(int(request.headers["webhook-timestamp"]) - datetime.now(UTC).timestamp()) < 60
    assert request.is_signed_with(which.secret)
    assert request.is_signed_with(former)
    assert not request.is_signed_with(new_secret())
    assert request.headers["content-type"] == "application/json"


def _status(line: str, *headers: str) -> Answering:
    return says("\r\n".join((f"HTTP/1.1 {line}", *headers, "Content-Length: 0", "", "")))


async def drips(writer: asyncio.StreamWriter) -> None:
    for each in "HTTP/1.1 200 OK\r\nX-Slow: " + "y" * 10_000:
        writer.write(each.encode())
        await writer.drain()
        await asyncio.sleep(0.05)


async def drips_its_body(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        writer.write(b"z")
        await writer.drain()
        await asyncio.sleep(0.05)


async def floods(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
    for _ in range(1000):
        writer.write(b"z" * 1_000_000)
        await writer.drain()


async def floods_its_head(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for _ in range(100_000):
        writer.write(b"X-More: and more\r\n" * 100)
        await writer.drain()


async def goes_on_and_on(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


async def hangs_up(writer: asyncio.StreamWriter) -> None:
    writer.close()


@pytest.mark.parametrize(
    ("answering", "status", "reason"),
    [
        (_status("200 OK"), 200, None),
        (_status("202 Accepted", "Set-Cookie: a=b; Domain=.example.com"), 202, None),
        (_status("301 Moved", "Location: http://127.0.0.1:1/"), 301, "redirected"),
        (_status("307 Moved", "Location: /hook"), 307, "redirected"),
        (_status("304 Not Modified"), 304, "redirected"),
        (_status("400 Bad"), 400, "http_400"),
        (_status("410 Gone"), 410, "gone"),
        (_status("503 Later", "Retry-After: 120"), 503, "http_503"),
        (drips, None, "timeout"),
        (drips_its_body, 200, None),
        (floods, 200, None),
        (floods_its_head, None, "malformed_answer"),
        (goes_on_and_on, None, "timeout"),
        (never, None, "timeout"),
        (hangs_up, None, "malformed_answer"),
        (says("SSH-2.0-OpenSSH\r\n\r\n"), None, "malformed_answer"),
        (says("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"), None, "malformed_answer"),
        (says("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"), 200, None),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_whatever_a_receiver_does_ends_in_time_and_is_named(
    receiver: Receiver, answering: Answering, status: int | None, reason: str | None
) -> None:
    receiver.answer(answering)

    async with soon(8):
        came_to = await send(receiver.url, within=0.5 if reason == "timeout" else 5.0)

    assert (came_to.status, came_to.reason) == (status, reason)
    assert len(receiver.requests) == 1  # no redirect is followed, and nothing is sent again


async def test_the_wait_that_a_receiver_asks_for_is_read(receiver: Receiver) -> None:
    for words, seconds in (("120", 120), ("soon", None), ("-1", None), ("9" * 400, None)):
        receiver.answer(_status("503 Later", f"Retry-After: {words}"))
        retry_after = (await send(receiver.url)).retry_after
        assert (retry_after and retry_after.total_seconds()) == seconds


async def test_a_certificate_that_is_not_trusted_or_of_another_host_is_refused() -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    for issuer, name, reason in (
        (authority, "127.0.0.1", None),
        (stranger, "127.0.0.1", "tls_failed"),
        (authority, "other.example", "tls_failed"),
    ):
        tls, trusted = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
        issuer.issue_cert(name).configure_cert(tls)
        authority.configure_trust(trusted)
        async with receiving(tls) as receiver:
            assert (await send(receiver.url, verify=trusted)).reason == reason


async def test_a_host_that_does_not_exist_or_listen_is_named() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen, nor does anybody else there meanwhile
        assert (await send(f"http://127.0.0.1:{closed.getsockname()[1]}/")).reason == "connect_failed"
    assert (await send("http://no-such-host.invalid/")).reason == "unknown_host"


async def test_a_proxy_of_the_environment_is_not_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    assert (await send(receiver.url)).status == 204


PRIVATE = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",  # where clouds keep their secrets
    "100.64.0.1",
    "192.0.0.1",
    "198.18.0.1",
    "192.0.2.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
    "::ffff:168.63.129.16",
    "::",
    "::1",
    "fe80::1",
    "fc00::1",
    "fd00:ec2::254",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::7f00:1",
    "2002:7f00:1::",
    "2001:0:7f00:1::",
]


@pytest.mark.parametrize("address", PRIVATE)
async def test_a_private_address_is_not_connected_to_however_it_is_written(address: str) -> None:
    assert not is_public(ip_address(address))
    with pytest.raises(RefusedAddress):
        await JudgingBackend(allow_private=False).connect_tcp(address, 1)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_a_public_address_is_public(address: str) -> None:
    assert is_public(ip_address(address))


async def test_a_name_is_judged_by_what_it_resolves_to_and_resolved_once(receiver: Receiver) -> None:
    answers = [["127.0.0.1"], ["::ffff:127.0.0.1", "10.0.0.1"], [], ["10.0.0.1", "93.184.216.34"], ["127.0.0.1"]]

    async def resolve(_: str, __: int) -> list[str]:
        return answers.pop(0)

    backend = JudgingBackend(allow_private=False, resolve=resolve)
    port = int(receiver.url.split(":")[2].partition("/")[0])

    for error in (RefusedAddress, RefusedAddress, UnknownHost):
        with pytest.raises(error):
            await backend.connect_tcp("rebinding.example", port)
    assert await backend._judged("rebinding.example", port) == ["93.184.216.34"]
    assert answers == [["127.0.0.1"]]
    assert not receiver.requests


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "ftp://example.com/",
        "javascript:alert(1)",
        "https://",
        "https:///path",
        "//example.com",
        "example.com",
        "https://user:password@example.com/",
        "https://user@example.com/",
        "https://@example.com/",
        "https://example.com:0/",
        "https://example.com:65536/",
        "https://example.com:port/",
        "https://example.com/#fragment",
        "https://exam ple.com/",
        "https://example.com/\r\nHost: other",
        "https://example.com\\@127.0.0.1/",
        "https://[::1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[fe80::1%25eth0]/",
        "https://127.0.0.1/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0177.0.0.1/",
        "https://localhost/",
        "https://localhost./",
        "https://me.localhost:8000/",
        "https://169.254.169.254/latest/meta-data/",
        "https://bücher.example/",
        "https://example.com/" + "a" * 2000,
        "",
    ],
)
def test_an_address_that_no_webhook_may_have_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must"):
        check_url(url, allow_private=False)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://example.com:8443/hook?key=1&b=%20",
        "HTTPS://xn--bcher-kva.example/",
        "https://8.8.8.8/",
    ],
)
def test_an_ordinary_address_is_taken(url: str) -> None:
    check_url(url, allow_private=False)


def test_private_addresses_and_http_may_be_allowed_but_nothing_else() -> None:
    for url in ("http://127.0.0.1:3000/", "http://backend.internal/hook", "https://[::1]/"):
        check_url(url, allow_private=True)
    for url in ("ftp://127.0.0.1/", "http://user@127.0.0.1/", "http://127.0.0.1:0/"):
        with pytest.raises(ValueError, match="must"):
            check_url(url, allow_private=True)
