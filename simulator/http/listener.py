"""One TLS port, which can open, refuse, stall, recover and close."""

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


class PortState(StrEnum):
    """How a port treats new connections."""

    OPEN = "open"
    REFUSING = "refusing"  # nobody listens at the port: connection refused
    HANGING = "hanging"  # TCP does not connect
    STALLING = "stalling"  # TCP connects, the TLS handshake is never answered
    MUTE = "mute"  # the TLS handshake succeeds, HTTP is never spoken


_ACCEPTING = frozenset({PortState.OPEN, PortState.MUTE})


def bound_socket(port: int) -> socket.socket:
    """Hold a port before anything runs on it."""
    listening = socket.create_server((HOST, port), backlog=_BACKLOG)
    listening.setblocking(False)
    return listening


def reserved_socket(port: int) -> socket.socket:
    """Hold a port at which nobody listens: connections are refused, and no other program takes it meanwhile."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind((HOST, port))
    reserved.setblocking(False)
    return reserved


def full_sockets(port: int) -> tuple[socket.socket, socket.socket]:
    """Hold a port whose queue is full, so that the system answers no SYN; gives both sockets."""
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
    """Accepts connections and gives each the protocol that its handshake chose."""

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
        self._state = PortState.REFUSING
        self._loop: asyncio.AbstractEventLoop | None = None  # faults may be cleared while it does not run
        self._filling: socket.socket | None = None  # of a hanging port
        self._connections: set[Connection | _PendingProtocol] = set()
        self._is_empty = asyncio.Event()
        self._handshakes: set[asyncio.Task[None]] = set()

    @property
    def is_open(self) -> bool:
        """Whether new connections get through."""
        return self._state is PortState.OPEN

    @property
    def open_connections(self) -> int:
        """Connections past their handshake."""
        return len(self._connections)

    def switch(self, state: PortState) -> None:
        """Change the state for new connections. Open ones stay; those that wait at a stalling port are accepted."""
        if state is self._state and state is not PortState.REFUSING:
            return
        if self._state in _ACCEPTING and self._loop is not None:
            self._loop.remove_reader(self._socket)
        if self._filling is not None:
            self._filling.close()
            self._filling = None
            self._socket.close()
        if state in {PortState.REFUSING, PortState.HANGING}:
            self._socket.close()
        if state is PortState.HANGING:
            self._socket, self._filling = full_sockets(self.port)
        elif state is PortState.REFUSING:
            self._socket = reserved_socket(self.port)
        elif self._socket.fileno() < 0:
            self._socket = bound_socket(self.port)
        elif self._state is PortState.REFUSING:
            self._socket.listen(_BACKLOG)
        if state in _ACCEPTING:
            self._loop = self._loop or asyncio.get_running_loop()
            self._loop.add_reader(self._socket, self._accept)
        self._state = state

    def cut(self) -> None:
        """Cut every open connection."""
        for connection in list(self._connections):
            connection.abort()

    async def close(self) -> None:
        """Close the port and cut every connection."""
        self.switch(PortState.REFUSING)
        self._socket.close()
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
            handshake = asyncio.get_running_loop().create_task(self._handshake(accepted))
            self._handshakes.add(handshake)
            handshake.add_done_callback(self._handshakes.discard)

    async def _handshake(self, accepted: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: _PendingProtocol(self), accepted, ssl=self._context, ssl_handshake_timeout=_HANDSHAKE_TIMEOUT
            )
        except OSError:
            accepted.close()  # the client's error: it does not trust the authority, or is gone

    def choose_protocol(self, transport: asyncio.Transport, pending: "_PendingProtocol") -> None:
        """Choose the protocol after the handshake."""
        self._is_empty.clear()
        if self._state is PortState.MUTE:
            self._connections.add(pending)
            return
        connection = self._connect(transport.get_extra_info("ssl_object").selected_alpn_protocol(), self.forget)
        self._connections.add(connection)
        transport.set_protocol(connection)
        connection.connection_made(transport)

    def forget(self, connection: "Connection | _PendingProtocol") -> None:
        """Note that a connection is gone."""
        self._connections.discard(connection)
        if not self._connections:
            self._is_empty.set()


class _PendingProtocol(asyncio.Protocol):
    """The protocol until ALPN is known; on a mute port it stays and sends nothing."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._listener.choose_protocol(self._transport, self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio names it)
        self._listener.forget(self)

    def abort(self) -> None:
        """Cut."""
        if self._transport is not None:
            self._transport.abort()
