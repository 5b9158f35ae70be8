"""HTTP connections that end in time: at once when the process is to stop, and soon when the peer has vanished."""

import asyncio
import resource
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

UNACKNOWLEDGED = timedelta(seconds=15)  # how long a peer may leave bytes unacknowledged, or its window shut
_OTHER_FILES = 500  # for everything else


@dataclass(frozen=True, slots=True)
class Line:
    """The connection as a long answer sees it, in `request.state.line`."""

    over: asyncio.Future[None]  # done when the connection is lost, or has to end
    abort: Callable[[], None]  # closes at once; what is not written yet is dropped


class HttpConnection(H11Protocol):
    """uvicorn's HTTP/1.1, which tells long answers when to end. Without that they hold up the shutdown."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Note a new connection."""
        super().connection_made(transport)
        self._line = Line(self.loop.create_future(), transport.abort)
        self.app_state = {**self.app_state, "line": self._line}

    def connection_lost(self, exc: Exception | None) -> None:
        """End what is still written to it."""
        super().connection_lost(exc)
        self._end()

    def shutdown(self) -> None:
        """End what is still written to it: the process was told to stop."""
        super().shutdown()
        self._end()

    def _end(self) -> None:
        if not self._line.over.done():
            self._line.over.set_result(None)


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
