"""One HTTP/1.1 connection, server side, over h11: one request at a time, in their order."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

import h11

from simulator.http.exchange import Answer, Endpoint, Farewell, LastStream

_LONGEST_HEAD = 32_768  # bytes
_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}


class Http1Exchange:
    """One request on a connection that answers them in order."""

    __slots__ = ("_connection", "body", "headers", "method", "path", "repeats_headers", "session")

    def __init__(self, connection: "Http1Connection", request: h11.Request) -> None:
        self.method, self.path = request.method, request.target
        self.headers = dict(request.headers)
        self.repeats_headers = len(self.headers) != len(request.headers)
        self.body = b""
        self.session: dict[bytes, Any] = {}
        self._connection = connection

    def answer(self, answer: Answer) -> bool:
        """Send the response; False, and nothing happens, when the connection is gone."""
        return self._connection.answer(self, answer)

    def begin_answer(self, answer: Answer) -> None:
        """Send the response but for the second half of its body."""
        self._connection.begin_answer(answer)

    def reset(self, error_code: int) -> None:  # noqa: ARG002 (HTTP/1.1 has no codes)
        """Cut the connection: HTTP/1.1 can reset nothing smaller."""
        self._connection.abort()

    def utter(self, kind: int, payload: bytes) -> None:  # noqa: ARG002 (HTTP/1.1 has no frames)
        """Cut the connection: HTTP/1.1 has no frames."""
        self._connection.abort()

    def goaway(self, farewell: Farewell, last: LastStream) -> None:  # noqa: ARG002 (HTTP/1.1 has no farewell)
        """Cut the connection: HTTP/1.1 has no farewell."""
        self._connection.abort()

    def abort(self) -> None:
        """Cut the connection."""
        self._connection.abort()

    def freeze(self) -> None:
        """Answer neither this request nor another: HTTP/1.1 answers in order."""


class Http1Connection(asyncio.Protocol):
    """A connection after the TLS handshake."""

    def __init__(self, endpoint: Endpoint, on_lost: Callable[["Http1Connection"], None] | None = None) -> None:
        self._endpoint = endpoint
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=_LONGEST_HEAD)
        self._coming: Http1Exchange | None = None  # its body is not complete
        self._awaited: Http1Exchange | None = None  # received, not answered
        self._is_reading = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Handle every complete request, one at a time."""
        self._protocol.receive_data(data)
        if not self._is_reading:
            self._read_on()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio names it)
        """Forget the request in hand."""
        self._transport = None
        self._awaited = None
        if self._on_lost is not None:
            self._on_lost(self)

    def close(self) -> None:
        """Close after what is written has left."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Cut."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def answer(self, exchange: Http1Exchange, answer: Answer) -> bool:
        """Write the response, and go on with what has arrived meanwhile; False when the connection is gone."""
        if self._awaited is not exchange or self._transport is None:
            return False
        self._awaited = None
        self._transport.write(self._written(answer))
        if self._protocol.our_state is h11.MUST_CLOSE:
            self.close()
            return True
        self._protocol.start_next_cycle()
        if not self._is_reading:
            self._read_on()
        return True

    def begin_answer(self, answer: Answer) -> None:
        """Write the response but for the second half of its body."""
        if self._transport is not None:
            whole = self._written(answer)
            self._transport.write(whole[: len(whole) - (sum(map(len, answer.chunks)) + 1) // 2])

    def _written(self, answer: Answer) -> bytes:
        is_chunked = len(answer.chunks) > 1
        framing = (
            (b"transfer-encoding", b"chunked")
            if is_chunked
            else (b"content-length", b"%d" % sum(map(len, answer.chunks)))
        )
        head = h11.Response(
            status_code=answer.status,
            headers=[*answer.headers, framing],
            reason=_PHRASES.get(answer.status, b"Unknown"),
        )
        events = [head, *(h11.Data(data=chunk) for chunk in answer.chunks if chunk), h11.EndOfMessage()]
        return b"".join(self._protocol.send(event) or b"" for event in events)

    def _read_on(self) -> None:
        self._is_reading = True
        try:
            while self._awaited is None and self._transport is not None and self._takes_in(self._protocol.next_event()):
                pass
        except h11.RemoteProtocolError:
            if self._transport is not None:
                self._transport.write(_BAD_REQUEST)
            self.close()
        finally:
            self._is_reading = False

    def _takes_in(self, event: h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]) -> bool:
        """Take an event in; False where more has to come, or an answer has to go, first."""
        match event:
            case h11.Request(http_version=version) if version != b"1.1":
                raise h11.RemoteProtocolError("only HTTP/1.1 is spoken here")
            case h11.Request():
                self._coming = Http1Exchange(self, event)
            case h11.Data() if self._coming:
                self._coming.body += event.data
            case h11.EndOfMessage() if self._coming:
                self._awaited, self._coming = self._coming, None
                self._endpoint.receive(self._awaited)
            case _:
                return False
        return True
