"""One HTTP/1.1 connection, server side: a small parser, keep-alive, chunked bodies both ways."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

from simulator.exchange import Answer, Endpoint, Farewell, LastStream

_HEAD_END = b"\r\n\r\n"
_LONGEST_HEAD = 32_768
_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}


class Http1Exchange:
    """One request on a connection that answers them in order."""

    __slots__ = ("_connection", "body", "headers", "method", "path", "repeats_headers", "session")

    def __init__(self, connection: "Http1Connection", head: bytes) -> None:
        lines = head.split(b"\r\n")
        self.method, self.path, version = lines[0].split(b" ")
        if version != b"HTTP/1.1":
            raise ValueError("only HTTP/1.1 is spoken here")
        pairs = [line.split(b":", 1) for line in lines[1:]]
        self.headers = {name.lower(): value.strip() for name, value in pairs}
        self.repeats_headers = len(self.headers) != len(pairs)
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
        self._buffer = b""
        self._awaited: Http1Exchange | None = None  # received, not answered
        self._is_reading = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Handle every complete request, one at a time."""
        self._buffer += data
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
        self._transport.write(_response(answer))
        if exchange.headers.get(b"connection", b"").lower() == b"close":
            self.close()
        elif not self._is_reading:
            self._read_on()
        return True

    def begin_answer(self, answer: Answer) -> None:
        """Write the response but for the second half of its body."""
        if self._transport is not None:
            whole = _response(answer)
            self._transport.write(whole[: len(whole) - (sum(map(len, answer.chunks)) + 1) // 2])

    def _read_on(self) -> None:
        self._is_reading = True
        try:
            while self._awaited is None and self._transport is not None:
                exchange = self._next_exchange()
                if exchange is None:
                    return
                self._awaited = exchange
                self._endpoint.receive(exchange)
        except ValueError:
            if self._transport is not None:
                self._transport.write(_BAD_REQUEST)
            self.close()
        finally:
            self._is_reading = False

    def _next_exchange(self) -> Http1Exchange | None:
        """Cut off the next complete request, if there is one; raise ValueError when it is not HTTP."""
        head_end = self._buffer.find(_HEAD_END)
        if head_end < 0:
            if len(self._buffer) > _LONGEST_HEAD:
                raise ValueError("head too long")
            return None
        exchange = Http1Exchange(self, self._buffer[:head_end])
        start = head_end + len(_HEAD_END)
        if exchange.headers.get(b"transfer-encoding", b"").lower() == b"chunked":
            parsed = _dechunked(self._buffer, start)
            if parsed is None:
                return None
            exchange.body, end = parsed
        else:
            end = start + int(exchange.headers.get(b"content-length", b"0"))
            if len(self._buffer) < end:
                return None
            exchange.body = self._buffer[start:end]
        self._buffer = self._buffer[end:]
        return exchange


def _dechunked(buffer: bytes, position: int) -> tuple[bytes, int] | None:
    """Read the body at `position` and where it ends; None while it is incomplete. Trailers are not spoken."""
    chunks: list[bytes] = []
    while True:
        line_end = buffer.find(b"\r\n", position)
        if line_end < 0:
            return None
        size = int(buffer[position:line_end].split(b";")[0], 16)
        start, end = line_end + 2, line_end + 2 + size
        if len(buffer) < end + 2:
            return None
        if size == 0:
            return b"".join(chunks), end + 2
        chunks.append(buffer[start:end])
        position = end + 2


def _response(answer: Answer) -> bytes:
    lines = [b"HTTP/1.1 %d %s" % (answer.status, _PHRASES.get(answer.status, b"Unknown"))]
    lines += [name + b": " + value for name, value in answer.headers]
    if len(answer.chunks) > 1:
        lines.append(b"transfer-encoding: chunked")
        body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in answer.chunks if chunk) + b"0\r\n\r\n"
    else:
        body = b"".join(answer.chunks)
        lines.append(b"content-length: %d" % len(body))
    return b"\r\n".join(lines) + _HEAD_END + body
