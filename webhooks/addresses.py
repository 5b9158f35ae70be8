"""Which addresses a webhook may reach, judged on the address that is connected to.

A name is resolved here, each of its addresses is judged, and the connection goes to a judged one. A second look-up,
which could give another answer (DNS rebinding), never happens.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any
from urllib.parse import urlsplit

import httpcore

from domain.webhooks import LONGEST_URL

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
