"""One TLS port: it opens, refuses, stalls, comes back and closes."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import cast

from simulator.http.http1 import Http1Connection
from simulator.http.http2 import Http2Connection

HOST = "127.0.0.1"
_BACKLOG = 4096
_HANDSHAKE_TIMEOUT = 30.0
_CLOSE_TIMEOUT = 2.0

Connection = Http1Connection | Http2Connection


class Door(StrEnum):
    """What a new connection meets."""

    OPEN = "open"
    REFUSING = "refusing"  # the port is closed: connection refused
    HANGING = "hanging"  # TCP does not connect
    STALLING = "stalling"  # TCP connects, the TLS handshake is never answered
    MUTE = "mute"  # the TLS handshake succeeds, HTTP is never spoken


_ACCEPTING = frozenset({Door.OPEN, Door.MUTE})


def bound_socket(port: int) -> socket.socket:
    """Hold a port, so that it is known before anything runs on it."""
    listening = socket.create_server((HOST, port), backlog=_BACKLOG)
    listening.setblocking(False)
    return listening


def full_sockets(port: int) -> tuple[socket.socket, socket.socket]:
    """Hold a port whose queue is full, so that the system answers no SYN: the port, and who fills it."""
    listening = socket.create_server((HOST, port), backlog=0)
    listening.setblocking(False)
    return listening, socket.create_connection((HOST, port))


def bound_sockets(ports: list[int]) -> list[socket.socket]:
    """Hold all ports or none."""
    bound: list[socket.socket] = []
    try:
        bound.extend(bound_socket(port) for port in ports)
    except OSError:
        for listening in bound:
            listening.close()
        raise
    return bound


def tls_context(certificate: Path, key: Path, protocols: list[str]) -> ssl.SSLContext:
    """TLS 1.2 or newer, offering `protocols` by ALPN and content without it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(protocols)
    return context


class Listener:
    """Accepts connections and hands each to the protocol that the handshake settled on."""

    def __init__(
        self,
        listening: socket.socket,
        context: ssl.SSLContext,
        connect: Callable[[str | None, Callable[[Connection], None]], Connection],
    ) -> None:
        self.port: int = listening.getsockname()[1]
        self._socket = listening
        self._context = context
        self._connect = connect
        self._door = Door.REFUSING
        self._loop: asyncio.AbstractEventLoop | None = None  # faults may be cleared while it does not run
        self._filling: socket.socket | None = None  # of a hanging port
        self._connections: set[Connection | _Settled] = set()
        self._is_empty = asyncio.Event()
        self._handshakes: set[asyncio.Task[None]] = set()

    @property
    def is_open(self) -> bool:
        """Whether new connections get through."""
        return self._door is Door.OPEN

    @property
    def open_connections(self) -> int:
        """Connections past their handshake."""
        return len(self._connections)

    def become(self, door: Door) -> None:
        """Change what new connections meet; those that are open stay, those that wait at a stalling port get in."""
        if door is self._door and door is not Door.REFUSING:
            return
        if self._door in _ACCEPTING and self._loop is not None:
            self._loop.remove_reader(self._socket)
        if self._filling is not None:
            self._filling.close()
            self._filling = None
            self._socket.close()
        if door in {Door.REFUSING, Door.HANGING}:
            self._socket.close()
        if door is Door.HANGING:
            self._socket, self._filling = full_sockets(self.port)
        elif door is not Door.REFUSING and self._socket.fileno() < 0:
            self._socket = bound_socket(self.port)
        if door in _ACCEPTING:
            self._loop = self._loop or asyncio.get_running_loop()
            self._loop.add_reader(self._socket, self._accept)
        self._door = door

    def cut(self) -> None:
        """Cut every open connection."""
        for connection in list(self._connections):
            connection.abort()

    async def close(self) -> None:
        """Close the port and cut every connection."""
        self.become(Door.REFUSING)
        for handshake in self._handshakes:
            handshake.cancel()
        await asyncio.gather(*self._handshakes, return_exceptions=True)
        self.cut()
        if self._connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_empty.wait(), _CLOSE_TIMEOUT)
        await asyncio.sleep(0)

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            accepted.setblocking(False)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            handshake = asyncio.get_running_loop().create_task(self._shake_hands(accepted))
            self._handshakes.add(handshake)
            handshake.add_done_callback(self._handshakes.discard)

    async def _shake_hands(self, accepted: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: _Settled(self), accepted, ssl=self._context, ssl_handshake_timeout=_HANDSHAKE_TIMEOUT
            )
        except OSError:
            accepted.close()  # the client's own trouble: wrong authority, or gone

    def settle(self, transport: asyncio.Transport, settled: "_Settled") -> None:
        """Choose the protocol once the handshake is done."""
        self._is_empty.clear()
        if self._door is Door.MUTE:
            self._connections.add(settled)
            return
        connection = self._connect(transport.get_extra_info("ssl_object").selected_alpn_protocol(), self.forget)
        self._connections.add(connection)
        transport.set_protocol(connection)
        connection.connection_made(transport)

    def forget(self, connection: "Connection | _Settled") -> None:
        """Note that a connection is gone."""
        self._connections.discard(connection)
        if not self._connections:
            self._is_empty.set()


class _Settled(asyncio.Protocol):
    """Stands in until ALPN is known; stays, and says nothing, at a mute port."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._listener.settle(self._transport, self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio names it)
        self._listener.forget(self)

    def abort(self) -> None:
        """Cut."""
        if self._transport is not None:
            self._transport.abort()
