"""One HTTP/1.1 connection, server side, over h11: one request at a time, in their order."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import cast

import h11

from simulator.http.exchange import Answer, Endpoint, Exchange, LastStream, Shutdown

_LONGEST_HEAD = 32_768  # bytes
_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}


class Http1Connection(asyncio.Protocol):
    """A connection after the TLS handshake."""

    def __init__(self, endpoint: Endpoint, on_lost: Callable[["Http1Connection"], None] | None = None) -> None:
        self._endpoint = endpoint
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=_LONGEST_HEAD)
        self._incoming: Exchange | None = None  # its body is not complete
        self._awaited: Exchange | None = None  # received, not answered
        self._is_reading = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Handle every complete request, one at a time."""
        self._protocol.receive_data(data)
        if not self._is_reading:
            self._handle_events()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio names it)
        """Forget the current request."""
        self._transport = None
        self._awaited = None
        if self._on_lost is not None:
            self._on_lost(self)

    def close(self) -> None:
        """Close once everything written is sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Cut."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def answer(self, exchange: Exchange, answer: Answer) -> bool:
        """Write the response and continue with the next request; False when the connection is gone."""
        if self._awaited is not exchange or self._transport is None:
            return False
        self._awaited = None
        self._transport.write(self._written(answer))
        if self._protocol.our_state is h11.MUST_CLOSE:
            self.close()
            return True
        self._protocol.start_next_cycle()
        if not self._is_reading:
            self._handle_events()
        return True

    def begin_answer(self, exchange: Exchange, answer: Answer) -> None:  # noqa: ARG002 -- HTTP/1.1 answers in order
        """Write the response but for the second half of its body."""
        if self._transport is not None:
            whole = self._written(answer)
            self._transport.write(whole[: len(whole) - (sum(map(len, answer.chunks)) + 1) // 2])

    def reset(self, exchange: Exchange, error_code: int) -> None:  # noqa: ARG002 -- HTTP/2's
        """Cut."""
        self.abort()

    def send_frame(self, exchange: Exchange, kind: int, payload: bytes) -> None:  # noqa: ARG002 -- HTTP/2's
        """Cut."""
        self.abort()

    def goaway(self, exchange: Exchange, shutdown: Shutdown, last: LastStream) -> None:  # noqa: ARG002 -- HTTP/2's
        """Cut."""
        self.abort()

    def freeze(self) -> None:
        """Answer neither this request nor another, since HTTP/1.1 answers in order."""

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

    def _handle_events(self) -> None:
        self._is_reading = True
        try:
            while self._awaited is None and self._transport is not None and self._handles(self._protocol.next_event()):
                pass
        except h11.RemoteProtocolError:
            if self._transport is not None:
                self._transport.write(_BAD_REQUEST)
            self.close()
        finally:
            self._is_reading = False

    def _handles(self, event: h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]) -> bool:
        """Handle an event; False where more bytes, or an answer, are needed first."""
        match event:
            case h11.Request(http_version=version) if version != b"1.1":
                raise h11.RemoteProtocolError("only HTTP/1.1 is supported")
            case h11.Request():
                self._incoming = Exchange(self, list(event.headers), {})
                self._incoming.method, self._incoming.path = event.method, event.target
            case h11.Data() if self._incoming:
                self._incoming.body += event.data
            case h11.EndOfMessage() if self._incoming:
                self._awaited, self._incoming = self._incoming, None
                self._endpoint.receive(self._awaited)
            case _:
                return False
        return True
