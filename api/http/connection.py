"""HTTP connections that end in time: at once when the process is to stop, and soon when the peer has vanished."""

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

from api.http.bounds import LARGEST_HEAD
from api.http.problems import problem
from api.http.security_headers import FOR_ERRORS

UNACKNOWLEDGED = timedelta(seconds=15)  # how long a peer may leave bytes unacknowledged, or its window shut
READ_WITHIN = 15.0  # seconds from the first byte of a request to its last
_OTHER_FILES = 500  # for everything else: connections that do not last, too
_PASSING = 400  # connections that do not last
_ABSOLUTE = re.compile(rb"(?i:https?)://([\w.~%!$&'()*+,;=:\[\]-]+)((?:[/?].*)?)")  # the host, and what follows


@dataclass(frozen=True, slots=True)
class ConnectionState:
    """The connection as a long answer sees it, in `request.state.line`."""

    over: asyncio.Future[None]  # done when the connection is lost, or has to end
    abort: Callable[[], None]  # closes at once; what is not written yet is dropped


class _Framing(h11.Connection):
    """HTTP/1.1 that refuses a request of which a proxy may see another end than we do (RFC 9112, 6.1 and 6.3).

    Its targets are paths, or `*` for OPTIONS; what names the host, too, is taken apart (RFC 9112, 3.2).
    """

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Give what came next; raises RemoteProtocolError."""
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
    """Take a target in absolute form apart: its host counts, whatever the header says."""
    found = _ABSOLUTE.fullmatch(request.target)
    if found is None:
        raise h11.RemoteProtocolError("the target of the request is neither a path nor an http address")
    host, target = found.groups()
    headers = [(b"host", host), *(each for each in request.headers if each[0] != b"host")]
    return h11.Request(
        method=request.method,
        headers=headers,
        target=target if target.startswith(b"/") else b"/" + target,
        http_version=request.http_version,
    )


class HttpConnection(H11Protocol):
    """uvicorn's HTTP/1.1, which tells long answers when to end. Without that they hold up the shutdown.

    A client that takes too long over a request is cut off, and so is whoever comes when there are too many, or sends
    much before it has its answer.
    """

    read_within = READ_WITHIN
    most = sys.maxsize
    _reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Note a new connection."""
        super().connection_made(transport)
        self.conn = _Framing(h11.SERVER, LARGEST_HEAD)
        if len(self.connections) > self.most:
            transport.abort()
        self._reading = self.loop.call_later(self.read_within, transport.abort)
        self._line = ConnectionState(self.loop.create_future(), transport.abort)
        self.app_state = {**self.app_state, "line": self._line}

    def connection_lost(self, exc: Exception | None) -> None:
        """End what is still written to it."""
        super().connection_lost(exc)
        self._read()
        self._end()

    def data_received(self, data: bytes) -> None:
        """Take in a piece of a request, and watch how long its last one takes to come."""
        super().data_received(data)
        state = self.conn.their_state
        if state is h11.DONE and len(self.conn.trailing_data[0]) > LARGEST_HEAD:  # behind a request under way
            self.transport.abort()
        if state is h11.SEND_BODY or (state is h11.IDLE and self.conn.trailing_data[0]):
            self._reading = self._reading or self.loop.call_later(self.read_within, self.transport.abort)
        else:
            self._read()

    def shutdown(self) -> None:
        """End what is still written to it: the process was told to stop."""
        super().shutdown()
        self._end()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, or a head without end, in the form of all problems."""
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
        if not self._line.over.done():
            self._line.over.set_result(None)


def connection_of(*, lasting: int, read_within: float = READ_WITHIN) -> type[HttpConnection]:
    """Bound the connections of a process: so many that last, and some that do not."""
    bounds = {"most": lasting + _PASSING, "read_within": read_within}
    return type("BoundHttpConnection", (HttpConnection,), bounds)


def allow_connections(wanted: int) -> int:
    """Allow this process so many connections that last, as far as its limit of open files lets it; gives how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = wanted + _OTHER_FILES if hard == resource.RLIM_INFINITY else min(wanted + _OTHER_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return max(min(wanted, files - _OTHER_FILES), 0)


def bind(config: uvicorn.Config, unacknowledged: timedelta = UNACKNOWLEDGED) -> socket.socket:
    """Bind the address of a server so that a connection whose peer has vanished without a word breaks.

    A socket that is accepted inherits the option (tcp(7), TCP_USER_TIMEOUT). It counts while bytes are on their way, so
    an open stream has to send something now and then. Exits when the port is taken, as uvicorn does.
    """
    bound = config.bind_socket()
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited, too; asyncio overlooks a socket like this
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(unacknowledged.total_seconds() * 1000))
    return bound
