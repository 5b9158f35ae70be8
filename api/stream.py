"""The stream: the caller's log in real time, and presence while connected."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID, uuid4

import structlog
from fastapi import APIRouter, Depends, Header, Query, Request
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from api.dependencies import AllServices, UserCaller
from api.http.connection import ConnectionState
from api.http.problem_types import responses
from api.open_streams import OpenStreams, Stream
from api.sync import MAX_SEQ, Arrived, ItemOut, arrive, item_out
from db import presences
from domain.messages import LogItem

HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no", "Connection": "close"}
HEARTBEAT = b":\n\n"
_FAREWELL = 2.0  # seconds that a client has to read the rest after its stream ended
Show = Callable[[LogItem], ItemOut | None]
log = structlog.get_logger()


class EventStream(StreamingResponse):
    """Sends the items of a log as they come, until the stream ends or `lasts` seconds have passed."""

    media_type = "text/event-stream"

    def __init__(
        self, stream: Stream, streams: OpenStreams, show: Show, *, connection: ConnectionState, lasts: float
    ) -> None:
        self._events = _events(stream, streams, show)
        super().__init__(self._events, headers=HEADERS)
        self._stream = stream
        self._streams = streams
        self._connection = connection
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
                    async with asyncio.timeout(self._streams.limits.write_timeout):
                        await send({"type": "http.response.body", "body": event, "more_body": True})
                except TimeoutError:
                    raise _SlowReaderError("the client does not read") from None

    async def _end(self, sending: asyncio.Task[None], receive: Receive, send: Send) -> None:
        try:
            sending.result()
        except asyncio.CancelledError:
            pass
        except _SlowReaderError as error:
            log.info("stream aborted", reason=str(error), stream_id=str(self._stream.stream_id))
            self._connection.abort()
            while (await receive())["type"] != "http.disconnect":
                continue
            return
        asyncio.get_running_loop().call_later(_FAREWELL, self._connection.abort)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _SlowReaderError(Exception):
    """The client read nothing for `OpenStreamLimits.patience` seconds."""


async def _events(stream: Stream, streams: OpenStreams, show: Show) -> AsyncGenerator[bytes]:
    yield f": hello\nretry: {random.randint(1000, 4000)}\n\n".encode()  # noqa: S311 -- clients do not reconnect all at once
    while True:
        page = asyncio.create_task(streams.next_page(stream))
        try:
            while not (await asyncio.wait({page}, timeout=streams.limits.heartbeat))[0]:
                yield HEARTBEAT
        finally:
            page.cancel()
        for item in page.result():
            if item.seq != stream.seq + 1:  # retention was faster; after reconnecting the client gets 410
                return
            stream.seq = item.seq
            shown = show(item)
            if shown is not None:  # items of a newer release are left out, as in sync
                yield _event(shown)


def _event(item: ItemOut) -> bytes:
    return f"id: {item.seq}\nevent: item\ndata: {item.model_dump_json()}\n\n".encode()


router = APIRouter(prefix="/v1/stream", tags=["messages"])


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last item that the client has, and the field that it was given in."""

    seq: int
    field: str


def cursor_at(
    after: Annotated[
        int, Query(ge=0, le=MAX_SEQ, description="0: from the start. Acknowledges the items up to it.")
    ] = 0,
    last_event_id: Annotated[
        int | None, Header(alias="Last-Event-ID", ge=0, le=MAX_SEQ, description="Like `after`, and overrides it.")
    ] = None,
) -> Cursor:
    """Read where the client wants to continue."""
    return Cursor(after, "after") if last_event_id is None else Cursor(last_event_id, "Last-Event-ID")


@router.get(
    "",
    status_code=200,
    response_class=EventStream,
    responses=responses("act-for-a-user", "not-found", "installation-inactive", "being-erased", "cursor-too-old")
    | {200: {"description": "Events, until the stream ends."}},
)
async def stream_log(
    request: Request,
    installation_id: UUID,
    caller: UserCaller,
    services: AllServices,
    cursor: Annotated[Cursor, Depends(cursor_at)],
) -> EventStream:
    """Follow the caller's log after a cursor, as server-sent events.

    The id of an event `item` is the item's `seq`; its data is the same JSON as an item of `/v1/sync`. A comment is sent
    every few seconds. While the stream is open, the installation is present: it gets a push only for a message that it
    does not acknowledge within a few seconds. Acknowledge with `GET /v1/sync?after=`, or by reconnecting with
    `Last-Event-ID`. An installation has one stream; a new one ends the old one. A stream ends when the bearer token
    expires, after a day, when the client does not read, and whenever the service needs to end it. Reconnect with
    `Last-Event-ID`, and nothing is lost.
    """
    streams = services.streams
    streams.check_room()
    stream_id = uuid4()

    async def open_here(db: AsyncSession) -> Arrived:
        arrived = await arrive(db, caller.user_id, installation_id, cursor.seq, cursor.field)
        await presences.appear(db, stream_id, caller.user_id, installation_id, lives=streams.limits.presence_lifetime)
        return arrived

    arrived = await services.writes.run(open_here, f"position/{caller.user_id}/{installation_id}")
    request.state.permit.release()  # a stream lasts, and does no work
    connection: ConnectionState = request.state.connection
    begins_at = max(cursor.seq, arrived.extent.horizon)
    opened = Stream(stream_id, caller.user_id, installation_id, begins_at, connection.over)
    lasts = min(caller.expires_at.timestamp() - time.time(), streams.limits.max_duration)

    def show(item: LogItem) -> ItemOut | None:
        return item_out(item, services.presentations.of(arrived.app_id))

    return EventStream(opened, streams, show, connection=connection, lasts=lasts)
