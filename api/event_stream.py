"""A stream on the wire: server-sent events, heartbeats, and an end to readers that do not read."""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing

import structlog
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from api.connection import Line
from api.open_streams import OpenStreams, Stream
from api.sync import ItemOut, item_out

HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no", "Connection": "close"}
HEARTBEAT = b":\n\n"
_FAREWELL = 2.0  # seconds that a client has to read the rest, once its stream ended

log = structlog.get_logger()


class EventStream(StreamingResponse):
    """Sends the items of a log as they come, until the stream is over or `lasts` seconds have passed."""

    media_type = "text/event-stream"

    def __init__(self, stream: Stream, streams: OpenStreams, *, line: Line, lasts: float) -> None:
        self._events = _events(stream, streams)
        super().__init__(self._events, headers=HEADERS)
        self._stream = stream
        self._streams = streams
        self._line = line
        self._lasts = lasts

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream, from its first byte to its end."""
        self._streams.add(self._stream)
        sending = asyncio.create_task(self._send_events(send))
        term = asyncio.get_running_loop().call_later(self._lasts, self._stream.end)
        self._stream.over.add_done_callback(lambda _: sending.cancel())
        try:
            await asyncio.wait({sending})
            await self._end(sending, receive, send)
        finally:
            sending.cancel()
            term.cancel()
            await self._streams.remove(self._stream)

    async def _send_events(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._events) as events:
            async for event in events:
                try:
                    async with asyncio.timeout(self._streams.terms.patience):
                        await send({"type": "http.response.body", "body": event, "more_body": True})
                except TimeoutError:
                    raise _DoesNotReadError("nobody reads") from None

    async def _end(self, sending: asyncio.Task[None], receive: Receive, send: Send) -> None:
        try:
            sending.result()
        except asyncio.CancelledError:
            pass
        except _DoesNotReadError as error:
            log.info("stream cut off", why=str(error), stream_id=str(self._stream.stream_id))
            self._line.abort()
            while (await receive())["type"] != "http.disconnect":
                continue
            return
        asyncio.get_running_loop().call_later(_FAREWELL, self._line.abort)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _DoesNotReadError(Exception):
    """Nothing could be written for longer than we are patient."""


async def _events(stream: Stream, streams: OpenStreams) -> AsyncGenerator[bytes]:
    yield f": hello\nretry: {random.randint(1000, 4000)}\n\n".encode()  # noqa: S311 -- all of a process do not come back at once
    while True:
        page = asyncio.create_task(streams.next_page(stream))
        try:
            while not (await asyncio.wait({page}, timeout=streams.terms.heartbeat))[0]:
                yield HEARTBEAT
        finally:
            page.cancel()
        for item in page.result():
            if item.seq != stream.seq + 1:  # retention was faster: who comes again is told how to go on
                return
            stream.seq = item.seq
            shown = item_out(item)
            if shown is not None:  # sync passes over what only a newer release can show, too
                yield _event(shown)


def _event(item: ItemOut) -> bytes:
    return f"id: {item.seq}\nevent: item\ndata: {item.model_dump_json()}\n\n".encode()
