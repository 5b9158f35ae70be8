"""Makes one request to a webhook: signed, bounded in time and size, without redirects, cookies and proxies.

Which addresses it may reach is judged on the address that is connected to: a name is resolved here, each of its
addresses is judged, and the connection goes to a judged one. A second look-up, which could give another answer (DNS
rebinding), never happens.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpcore
import httpx

from domain.events import GONE, LONGEST_URL, Attempted, Outgoing, Webhook, signature

_CLOUD = IPv4Address("168.63.129.16")  # Azure's platform, in each of its networks: public by its number alone
_NAT64 = IPv6Network("64:ff9b::/96")  # an IPv4 address in its last 32 bits (RFC 6052)
_RESOLVES_WITHIN = 5.0  # seconds
_MAX_TRIED = 4  # addresses of one name
_LOOKUPS = 2  # at a time
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]  # host and port; raises OSError


class RefusedAddress(Exception):
    """The host has no address that may be connected to."""


class UnknownHost(Exception):
    """The host has no address at all."""


def check_url(url: str, *, allow_private: bool) -> None:
    """Raise ValueError, with what to send instead, for an address that no webhook may have."""
    if len(url) > LONGEST_URL:
        raise ValueError(f"must have at most {LONGEST_URL} characters")
    if not url.isascii() or not url.isprintable() or any(each in url for each in ' \\"<>^`{|}'):
        raise ValueError("must be a URL in ASCII: a host in Punycode, other characters percent-encoded")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("must be a URL with a valid host and port") from None
    if parts.scheme not in ({"https", "http"} if allow_private else {"https"}):
        raise ValueError("must be an https:// address")
    if not host or port == 0:
        raise ValueError("must be a URL with a valid host and port")
    if "@" in parts.netloc:
        raise ValueError("must not contain a user name or password; check the signature instead")
    if "#" in url:
        raise ValueError("must not contain a fragment")
    if not allow_private and not _may_be_public(host):
        raise ValueError("must not be a private address")


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Tell whether an address belongs to a host of the internet; a translated one counts as what it stands for."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
        if address.sixtofour is not None or address.teredo is not None or address.is_site_local:
            return False
    if address.is_multicast or address.is_reserved or address.is_unspecified or address == _CLOUD:
        return False
    return address.is_global


def _may_be_public(host: str) -> bool:
    """Refuse at once what is certainly private; a name is judged when it is connected to."""
    if host.rstrip(".") == "localhost" or host.rstrip(".").endswith(".localhost"):
        return False
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        try:
            address = IPv4Address(socket.inet_aton(host))  # 127.1, 0x7f000001 and 2130706433, as resolvers read them
        except (OSError, ValueError):
            return True
    return is_public(address)


class JudgingBackend(httpcore.AsyncNetworkBackend):
    """Opens connections to public addresses only, or to any where that is allowed."""

    def __init__(self, *, allow_private: bool, resolve: Resolve | None = None) -> None:
        self._allow_private = allow_private
        self._resolve = resolve or self._addresses_of
        # Of its own: a name server that does not answer keeps a thread, and providers' names are resolved in the
        # event loop's.
        self._threads = ThreadPoolExecutor(_LOOKUPS, "webhook-names")
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 -- httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first judged address that answers; raises RefusedAddress, UnknownHost, and httpcore's."""
        error: Exception | None = None
        for address in await self._judged(host, port):
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as trouble:
                error = trouble
        assert error is not None
        raise error

    def close(self) -> None:
        """Let go of the threads; one that hangs ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    async def _judged(self, host: str, port: int) -> list[str]:
        try:
            async with asyncio.timeout(_RESOLVES_WITHIN):
                addresses = list(dict.fromkeys(await self._resolve(host, port)))
        except (OSError, UnicodeError, TimeoutError) as error:
            raise UnknownHost from error
        if not addresses:
            raise UnknownHost
        if not self._allow_private:
            addresses = [each for each in addresses if is_public(ip_address(each.partition("%")[0]))]
        if not addresses:
            raise RefusedAddress
        return addresses[:_MAX_TRIED]

    async def _addresses_of(self, host: str, port: int) -> Sequence[str]:
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        return [str(each[4][0]) for each in found if each[0] in {socket.AF_INET, socket.AF_INET6}]


AT_ONCE = 10  # requests to one webhook
_LONGEST_DRAINED = 16 * 1024  # bytes of an answer that are read, so that the connection can be used again
_DRAINS_FOR = 1.0  # seconds


class WebhookSender:
    """Sends to one webhook, over connections of its own, so that a slow receiver takes nobody else's."""

    def __init__(self, *, allow_private: bool, within: float, verify: ssl.SSLContext) -> None:
        self._allow_private = allow_private
        self._within = within  # seconds, for the whole request
        self._backend = JudgingBackend(allow_private=allow_private)
        transport = httpx.AsyncHTTPTransport(
            verify=verify, trust_env=False, limits=httpx.Limits(max_connections=AT_ONCE, keepalive_expiry=30)
        )
        # httpx has no parameter for the backend; the pool is made anew with the same settings
        transport._pool = httpcore.AsyncConnectionPool(  # noqa: SLF001 -- see above
            ssl_context=verify,
            max_connections=AT_ONCE,
            max_keepalive_connections=AT_ONCE,
            keepalive_expiry=30,
            network_backend=self._backend,
        )
        self._http = httpx.AsyncClient(
            transport=transport,
            timeout=httpx.Timeout(within, connect=min(5.0, within)),
            follow_redirects=False,
            trust_env=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # they would pile up
            headers={"User-Agent": "Fastbell", "Accept-Encoding": "identity"},
        )

    async def __aenter__(self) -> Self:
        """Keep connections until the block is left."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close them."""
        await self._http.aclose()
        self._backend.close()

    async def send(self, webhook: Webhook, outgoing: Outgoing) -> Attempted:
        """Make one attempt. Whatever the receiver does, this ends in time and raises nothing."""
        began = time.monotonic()
        status, reason, retry_after = await self._attempt(webhook, outgoing)
        return Attempted(status, reason, round((time.monotonic() - began) * 1000), retry_after)

    async def _attempt(self, webhook: Webhook, outgoing: Outgoing) -> tuple[int | None, str | None, timedelta | None]:
        try:
            check_url(webhook.url, allow_private=self._allow_private)
        except ValueError:
            return None, "url_not_allowed", None
        body, timestamp = outgoing.body, int(time.time())
        message_id = outgoing.webhook_message_id
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(webhook.secrets, message_id, timestamp, body),
        }
        came_to: tuple[int | None, str | None, timedelta | None] | None = None
        try:
            async with (
                asyncio.timeout(self._within),
                self._http.stream("POST", webhook.url, content=body, headers=headers) as answer,
            ):
                came_to = answer.status_code, _verdict(answer.status_code), _retry_after(answer)
                await _drain(answer)
        except Exception as error:  # noqa: BLE001 -- a receiver can cause anything
            if came_to is None:
                return None, _reason(error), None
        assert came_to is not None
        return came_to


def _verdict(status: int) -> str | None:
    if 200 <= status < 300:
        return None
    if status == 410:
        return GONE
    return "redirected" if 300 <= status < 400 else f"http_{status}"


async def _drain(answer: httpx.Response) -> None:
    """Read a little of the answer, and nothing of a large or slow one: its connection is closed instead."""
    size = 0
    with suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(_DRAINS_FOR):
            async for chunk in answer.aiter_raw():
                size += len(chunk)
                if size > _LONGEST_DRAINED:
                    return


def _retry_after(answer: httpx.Response) -> timedelta | None:
    words = answer.headers.get("retry-after", "")
    return timedelta(seconds=int(words)) if words.isascii() and words.isdecimal() and len(words) < 8 else None


def _reason(error: Exception) -> str:
    """Name what went wrong, the most telling cause first."""
    causes = list(_causes(error))
    for kind, reason in _REASONS.items():
        if any(isinstance(each, kind) for each in causes):
            return reason
    return "request_failed"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


_REASONS: dict[type[BaseException], str] = {
    RefusedAddress: "private_address",
    UnknownHost: "unknown_host",
    ssl.SSLError: "tls_failed",
    httpx.ConnectTimeout: "timeout",
    httpx.TimeoutException: "timeout",
    TimeoutError: "timeout",
    httpx.ConnectError: "connect_failed",
    httpx.ProtocolError: "malformed_answer",
    httpx.NetworkError: "connection_lost",
}
