"""The way to a provider: straight, or through an HTTP proxy (CONNECT, RFC 9110 section 9.3.6)."""

import asyncio
import re
import socket
import ssl
from base64 import b64encode
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from urllib.parse import unquote, urlsplit

from telemetry.certificates import note_shown

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
    protocol: asyncio.Protocol, address: tuple[str, int], *, tls: ssl.SSLContext | None, proxy: Proxy | None
) -> None:
    """Connect a protocol with a fresh DNS answer (through a proxy: the proxy's own); raises OSError."""
    loop = asyncio.get_running_loop()
    host, port = address
    shutdown = 1.0 if tls else None
    if proxy is None:
        transport, _ = await loop.create_connection(
            lambda: protocol, host, port, ssl=tls, ssl_shutdown_timeout=shutdown
        )
    else:
        tunnel = await _tunnel(proxy, host, port)
        name = host if tls else None
        transport, _ = await loop.create_connection(
            lambda: protocol, sock=tunnel, ssl=tls, server_hostname=name, ssl_shutdown_timeout=shutdown
        )
    note_shown(f"{host}:{port}", transport.get_extra_info("ssl_object"))


async def _tunnel(proxy: Proxy, host: str, port: int) -> socket.socket:
    try:
        tunnel = await _connected(*proxy.address)
    except OSError as error:
        raise ProxyTrouble("proxy_unreachable") from error
    try:
        await _opened(tunnel, f"[{host}]:{port}" if ":" in host else f"{host}:{port}", proxy.authorization)
    except BaseException:
        tunnel.close()
        raise
    return tunnel


async def _connected(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    trouble: OSError = OSError("no address")
    for family, kind, number, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        connection = socket.socket(family, kind, number)
        connection.setblocking(False)
        try:
            await loop.sock_connect(connection, address)
        except BaseException as error:
            connection.close()
            if not isinstance(error, OSError):
                raise
            trouble = error
        else:
            return connection
    raise trouble


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
