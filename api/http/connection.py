"""HTTP connections that end in time: at once when the process stops, and soon after the peer has vanished."""

import asyncio
import re
import resource
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.http.browsers import FOR_ERRORS
from api.http.problems import problem

UNACKNOWLEDGED = timedelta(seconds=15)  # how long a peer may leave bytes unacknowledged, or its window closed
LARGEST_HEAD = 16 * 1024  # bytes, also of a head that arrives in pieces
READ_WITHIN = 15.0  # seconds from the first byte of a request to its last
_OTHER_FILES = 500  # open files for all but streams, short connections included
_SHORT = 400  # connections without a stream
_ABSOLUTE = re.compile(rb"(?i:https?)://([\w.~%!$&'()*+,;=:\[\]-]+)((?:[/?].*)?)")  # the host, and the rest


@dataclass(frozen=True, slots=True)
class ConnectionState:
    """The connection as a stream sees it, in `request.state.connection`."""

    over: asyncio.Future[None]  # done when the connection is lost or has to end
    abort: Callable[[], None]  # closes at once and drops unwritten bytes


class _Framing(h11.Connection):
    """HTTP/1.1 that refuses requests whose end a proxy may see elsewhere (RFC 9112, 6.1 and 6.3).

    A target is a path, or `*` for OPTIONS; a target in absolute form is split (RFC 9112, 3.2).
    """

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Give the next event; raises RemoteProtocolError."""
        event = super().next_event()
        if not isinstance(event, h11.Request):
            return event
        names = {name for name, _ in event.headers}
        if b"transfer-encoding" in names and (b"content-length" in names or event.http_version < b"1.1"):
            raise h11.RemoteProtocolError("the end of the request is ambiguous")
        if event.target.startswith(b"/") or (event.method, event.target) == (b"OPTIONS", b"*"):
            return event
        return _with_a_path(event)


def _with_a_path(request: h11.Request) -> h11.Request:
    """Split a target in absolute form. Its host overrides the header."""
    absolute = _ABSOLUTE.fullmatch(request.target)
    if absolute is None:
        raise h11.RemoteProtocolError("the target of the request is neither a path nor an http address")
    host, target = absolute.groups()
    headers = [(b"host", host), *(each for each in request.headers if each[0] != b"host")]
    return h11.Request(
        method=request.method,
        headers=headers,
        target=target if target.startswith(b"/") else b"/" + target,
        http_version=request.http_version,
    )


class HttpConnection(H11Protocol):
    """uvicorn's HTTP/1.1, which also tells streams when to end, so that they do not delay the shutdown.

    Aborts a connection whose request takes too long, one connection too many, and one that sends too much while its
    request is being answered.
    """

    read_within = READ_WITHIN
    most = sys.maxsize
    _reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Set up a new connection, or abort one too many."""
        super().connection_made(transport)
        self.conn = _Framing(h11.SERVER, LARGEST_HEAD)
        if len(self.connections) > self.most:
            transport.abort()
        self._reading = self.loop.call_later(self.read_within, transport.abort)
        self._state = ConnectionState(self.loop.create_future(), transport.abort)
        self.app_state = {**self.app_state, "connection": self._state}

    def connection_lost(self, exc: Exception | None) -> None:
        """End the streams on it."""
        super().connection_lost(exc)
        self._read()
        self._end()

    def data_received(self, data: bytes) -> None:
        """Take in bytes, and time how long the rest of the request takes."""
        super().data_received(data)
        state = self.conn.their_state
        if state is h11.DONE and len(self.conn.trailing_data[0]) > LARGEST_HEAD:  # pipelined behind a request under way
            self.transport.abort()
        if state is h11.SEND_BODY or (state is h11.IDLE and self.conn.trailing_data[0]):
            self._reading = self._reading or self.loop.call_later(self.read_within, self.transport.abort)
        else:
            self._read()

    def shutdown(self) -> None:
        """End the streams on it: the process stops."""
        super().shutdown()
        self._end()

    def send_400_response(self, msg: str) -> None:
        """Refuse malformed HTTP or an endless head with a problem, like all errors."""
        answer = problem(400, "not-http", msg, headers=FOR_ERRORS | {"Connection": "close"})
        parts = (
            h11.Response(status_code=400, headers=answer.raw_headers),
            h11.Data(data=bytes(answer.body)),
            h11.EndOfMessage(),
        )
        for part in parts:
            self.transport.write(self.conn.send(part) or b"")
        self.transport.close()

    def _read(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _end(self) -> None:
        if not self._state.over.done():
            self._state.over.set_result(None)


def connection_of(*, lasting: int, read_within: float = READ_WITHIN) -> type[HttpConnection]:
    """Bound the connections of a process: `lasting` streams, and some short ones."""
    bounds = {"most": lasting + _SHORT, "read_within": read_within}
    return type("BoundHttpConnection", (HttpConnection,), bounds)


def allow_connections(wanted: int) -> int:
    """Raise the limit of open files for `wanted` streams, as far as allowed; gives how many streams fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = wanted + _OTHER_FILES if hard == resource.RLIM_INFINITY else min(wanted + _OTHER_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return max(min(wanted, files - _OTHER_FILES), 0)


def bind(config: uvicorn.Config, unacknowledged: timedelta = UNACKNOWLEDGED) -> socket.socket:
    """Bind the address of a server so that connections break after their peer has vanished.

    Accepted sockets inherit the option (tcp(7), TCP_USER_TIMEOUT). It works while bytes are unacknowledged, so an open
    stream has to send something now and then. Exits if the port is taken, as uvicorn does.
    """
    bound = config.bind_socket()
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited, too; asyncio does not set it here
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(unacknowledged.total_seconds() * 1000))
    return bound
