"""The way to a provider: straight, or through an HTTP proxy (CONNECT, RFC 9110 section 9.3.6)."""

import asyncio
import re
import socket
import ssl
from base64 import b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from push.addresses import Address, first, resolved
from telemetry.certificates import note_shown

P = TypeVar("P", bound=asyncio.Protocol)
HEAD_AT_MOST = 16384  # bytes of a proxy's answer


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy. Its password never shows."""

    url: str = field(repr=False)  # http://[user:password@]host[:port]

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or 80

    @property
    def authorization(self) -> str | None:
        """The value of Proxy-Authorization, where the address holds a user."""
        parts = urlsplit(self.url)
        if parts.username is None:
            return None
        words = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        return f"Basic {b64encode(words.encode()).decode()}"


@dataclass(frozen=True, slots=True)
class Proxies:
    """Which proxy leads where."""

    https: Proxy | None = None
    spared: tuple[str, ...] = ()  # lower case: a host with all below it, host:port, an address, a network, or *

    def towards(self, url: str) -> Proxy | None:
        """Give the proxy for an https:// address; None: straight."""
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 443
        if parts.scheme != "https" or any(_covers(spared, host, port) for spared in self.spared):
            return None
        return self.https


STRAIGHT = Proxies()


class ProxyTrouble(OSError):
    """The proxy does not lead there. `reason` is a short stable code."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


async def connect(
    make: Callable[[], P],
    address: tuple[str, int],
    *,
    tls: ssl.SSLContext | None,
    proxy: Proxy | None,
    ready: Callable[[P], Awaitable[None]],
) -> P:
    """Connect a protocol with a fresh DNS answer (through a proxy: the proxy's own), and wait until it is ready.

    Of the addresses the first that gets so far is taken. Raises OSError, and what `ready` raises.
    """
    loop = asyncio.get_running_loop()
    host, port = address

    async def attempt(to: Address, connected: Callable[[], None]) -> tuple[asyncio.Transport, P]:
        line = await _line(to, proxy)
        connected()
        if proxy is not None:
            await _tunnel(line, f"[{host}]:{port}" if ":" in host else f"{host}:{port}", proxy.authorization)
        transport, protocol = await loop.create_connection(
            make, sock=line, ssl=tls, server_hostname=host if tls else None, ssl_shutdown_timeout=1.0 if tls else None
        )
        try:
            note_shown(f"{host}:{port}", transport.get_extra_info("ssl_object"))
            await ready(protocol)
        except BaseException:
            transport.abort()
            raise
        return transport, protocol

    _, protocol = await first(await _addresses(host, port, proxy), attempt, discard=lambda second: second[0].abort())
    return protocol


async def _addresses(host: str, port: int, proxy: Proxy | None) -> list[Address]:
    if proxy is None:
        return await resolved(host, port)
    try:
        return await resolved(*proxy.address)
    except OSError as error:
        raise ProxyTrouble("proxy_unreachable") from error


async def _line(to: Address, proxy: Proxy | None) -> socket.socket:
    line = socket.socket(to.family, socket.SOCK_STREAM)
    line.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(line, to.sockaddr)
    except BaseException as error:
        line.close()
        if proxy is not None and isinstance(error, OSError):
            raise ProxyTrouble("proxy_unreachable") from error
        raise
    return line


async def _tunnel(line: socket.socket, authority: str, authorization: str | None) -> None:
    try:
        await _opened(line, authority, authorization)
    except BaseException:
        line.close()
        raise


async def _opened(tunnel: socket.socket, authority: str, authorization: str | None) -> None:
    """Ask for the tunnel. The peer behind it waits for us to speak, so nothing follows the proxy's answer."""
    loop = asyncio.get_running_loop()
    more = f"Proxy-Authorization: {authorization}\r\n" if authorization else ""
    await loop.sock_sendall(tunnel, f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{more}\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        piece = await loop.sock_recv(tunnel, 4096)
        head += piece
        if not piece or len(head) > HEAD_AT_MOST:
            raise ProxyTrouble("proxy_broken")
    answer = re.match(rb"HTTP/1\.[01] (\d{3})\b", head)
    if answer is None:
        raise ProxyTrouble("proxy_broken")
    if not answer[1].startswith(b"2"):
        raise ProxyTrouble(f"proxy_refused_{answer[1].decode()}")


def _covers(spared: str, host: str, port: int) -> bool:
    """Whether a word of NO_PROXY means this host."""
    if spared == "*":
        return True
    if "/" in spared:
        return _in_network(host, spared)
    name, colon, of_port = spared.rpartition(":")
    if colon and of_port.isdecimal() and ("]" in name or ":" not in name):
        if int(of_port) != port:
            return False
        spared = name
    spared = spared.strip("[]").removeprefix("*").removeprefix(".")
    return host == spared or host.endswith(f".{spared}")


def _in_network(host: str, network: str) -> bool:
    try:
        return ip_address(host) in ip_network(network, strict=False)
    except ValueError:  # a name is in no network
        return False
