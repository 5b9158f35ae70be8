"""Connects to a provider: to all addresses of its host (RFC 8305), or through an HTTP proxy (CONNECT)."""

import asyncio
import re
import socket
import ssl
from base64 import b64encode
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from itertools import chain, zip_longest
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

from telemetry.certificates import note_shown

NEXT_AFTER = 0.25  # seconds until the next address is tried, too (RFC 8305, section 5)
SILENT_AFTER = 0.25  # seconds more, where it has connected: the port may be open with nothing behind it
MAX_ADDRESSES = 16
T = TypeVar("T")
P = TypeVar("P", bound=asyncio.Protocol)
MAX_HEAD = 16384  # bytes of a proxy's answer


class HostAddress(NamedTuple):
    """One address of a host."""

    family: socket.AddressFamily
    sockaddr: tuple[Any, ...]  # as its family has it

    @property
    def host(self) -> str:
        """The IP address as text."""
        return str(self.sockaddr[0])


async def resolved(host: str, port: int) -> list[HostAddress]:
    """Resolve a host to its addresses, families in alternation; raises OSError, UnicodeError."""
    resolved = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(HostAddress(family, sockaddr) for family, _, _, _, sockaddr in resolved))
    like_first = [address for address in addresses if address.family == addresses[0].family]
    others = [address for address in addresses if address.family != addresses[0].family]
    in_turn = chain.from_iterable(zip_longest(like_first, others))
    return [address for address in in_turn if address is not None][:MAX_ADDRESSES]


async def first(
    addresses: Sequence[HostAddress],
    attempt: Callable[[HostAddress, Callable[[], None]], Coroutine[Any, Any, T]],
    *,
    discard: Callable[[T], None] = lambda _: None,
) -> T:
    """Return the result of the first attempt that succeeds, and cancel the others; raises what the last one raised.

    An attempt calls back when its address has connected. `discard` gets the result of a second success.
    """
    trouble: BaseException = OSError("no address")
    running: set[asyncio.Task[T]] = set()
    waiting = deque(addresses)
    try:
        while waiting or running:
            connected = asyncio.Event()
            if waiting:
                running.add(asyncio.create_task(attempt(waiting.popleft(), connected.set)))
            done, running = await _wait(running, NEXT_AFTER if waiting else None)
            if not done and connected.is_set():
                done, running = await _wait(running, SILENT_AFTER)
            while done:
                ended = done.pop()
                trouble = ended.exception() or trouble
                if ended.exception() is None:
                    running |= done  # a second success at the same moment
                    return ended.result()
        raise trouble
    finally:
        await _give_up(running, discard)


async def _wait(
    running: set[asyncio.Task[T]], within: float | None
) -> tuple[set[asyncio.Task[T]], set[asyncio.Task[T]]]:
    return await asyncio.wait(running, timeout=within, return_when=asyncio.FIRST_COMPLETED)


async def _give_up(running: set[asyncio.Task[T]], discard: Callable[[T], None]) -> None:
    for task in running:
        task.cancel()
    for outcome in await asyncio.gather(*running, return_exceptions=True):
        if not isinstance(outcome, BaseException):
            discard(outcome)


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy. Its password is never printed."""

    url: str = field(repr=False)  # http://[user:password@]host[:port]

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or 80

    @property
    def authorization(self) -> str | None:
        """The value of Proxy-Authorization, if the URL names a user."""
        parts = urlsplit(self.url)
        if parts.username is None:
            return None
        words = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        return f"Basic {b64encode(words.encode()).decode()}"


@dataclass(frozen=True, slots=True)
class Proxies:
    """Which addresses are reached through a proxy."""

    https: Proxy | None = None
    bypassed: tuple[str, ...] = ()  # lower case: a host with all below it, host:port, an address, a network, or *

    def towards(self, url: str) -> Proxy | None:
        """Find the proxy for an https:// address; None: a direct connection."""
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 443
        if parts.scheme != "https" or any(_covers(entry, host, port) for entry in self.bypassed):
            return None
        return self.https


DIRECT = Proxies()


class ProxyTrouble(OSError):
    """The proxy gives no connection. `reason` is a short stable code."""

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
    """Connect a protocol with a fresh DNS answer (through a proxy: the proxy's address), and wait until it is ready.

    The first address that gets so far is taken. Raises OSError, and what `ready` raises.
    """
    loop = asyncio.get_running_loop()
    host, port = address

    async def attempt(to: HostAddress, connected: Callable[[], None]) -> tuple[asyncio.Transport, P]:
        connection = await _connection(to, proxy)
        connected()
        if proxy is not None:
            try:
                await _tunnel(connection, f"[{host}]:{port}" if ":" in host else f"{host}:{port}", proxy.authorization)
            except BaseException:
                connection.close()
                raise
        transport, protocol = await loop.create_connection(
            make,
            sock=connection,
            ssl=tls,
            server_hostname=host if tls else None,
            ssl_shutdown_timeout=1.0 if tls else None,
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


async def _addresses(host: str, port: int, proxy: Proxy | None) -> list[HostAddress]:
    if proxy is None:
        return await resolved(host, port)
    try:
        return await resolved(*proxy.address)
    except OSError as error:
        raise ProxyTrouble("proxy_unreachable") from error


async def _connection(to: HostAddress, proxy: Proxy | None) -> socket.socket:
    connection = socket.socket(to.family, socket.SOCK_STREAM)
    connection.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(connection, to.sockaddr)
    except BaseException as error:
        connection.close()
        if proxy is not None and isinstance(error, OSError):
            raise ProxyTrouble("proxy_unreachable") from error
        raise
    return connection


async def _tunnel(connection: socket.socket, authority: str, authorization: str | None) -> None:
    """Ask for a tunnel. The peer behind it sends nothing first, so nothing follows the proxy's answer."""
    loop = asyncio.get_running_loop()
    more = f"Proxy-Authorization: {authorization}\r\n" if authorization else ""
    await loop.sock_sendall(connection, f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{more}\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        piece = await loop.sock_recv(connection, 4096)
        head += piece
        if not piece or len(head) > MAX_HEAD:
            raise ProxyTrouble("proxy_broken")
    answer = re.match(rb"HTTP/1\.[01] (\d{3})\b", head)
    if answer is None:
        raise ProxyTrouble("proxy_broken")
    if not answer[1].startswith(b"2"):
        raise ProxyTrouble(f"proxy_refused_{answer[1].decode()}")


def _covers(entry: str, host: str, port: int) -> bool:
    """Whether an entry of NO_PROXY matches this host."""
    if entry == "*":
        return True
    if "/" in entry:
        return _in_network(host, entry)
    name, colon, of_port = entry.rpartition(":")
    if colon and of_port.isdecimal() and ("]" in name or ":" not in name):
        if int(of_port) != port:
            return False
        entry = name
    entry = entry.strip("[]").removeprefix("*").removeprefix(".")
    return host == entry or host.endswith(f".{entry}")


def _in_network(host: str, network: str) -> bool:
    try:
        return ip_address(host) in ip_network(network, strict=False)
    except ValueError:  # a name is in no network
        return False
