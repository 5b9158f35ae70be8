"""The stream: realtime delivery of the caller's log, and presence while connected."""

import time
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID, uuid4

from fastapi import APIRouter, Depends, Header, Query, Request
from sqlalchemy.ext.asyncio import AsyncSession

from api.connection import Line
from api.dependencies import AnyCaller, RowWrites, Streams
from api.event_stream import EventStream
from api.open_streams import Stream
from api.problems import responses
from api.sync import MOST_SEQ, arrive
from db import presences
from db.log import Extent

router = APIRouter(prefix="/v1/stream", tags=["messages"])


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last item that the client has, and the name of the field that says so."""

    seq: int
    field: str


def cursor_at(
    after: Annotated[int, Query(ge=0, le=MOST_SEQ, description="0: from the start. Acknowledges what it passes.")] = 0,
    last_event_id: Annotated[
        int | None, Header(alias="Last-Event-ID", ge=0, le=MOST_SEQ, description="As `after`, over which it wins.")
    ] = None,
) -> Cursor:
    """Read where the client wants to go on."""
    return Cursor(after, "after") if last_event_id is None else Cursor(last_event_id, "Last-Event-ID")


@router.get(
    "",
    status_code=200,
    response_class=EventStream,
    responses=responses(404, 409, 410) | {200: {"description": "Events, until the stream ends."}},
)
async def stream(
    request: Request,
    installation_id: UUID,
    caller: AnyCaller,
    writes: RowWrites,
    streams: Streams,
    cursor: Annotated[Cursor, Depends(cursor_at)],
) -> EventStream:
    """Follow the log of the caller after a cursor, as server-sent events.

    Each event `item` has the item's `seq` as its id, and as its data the same JSON as an item of `/v1/sync`. A comment
    comes every few seconds. While the stream is open the installation is present: a message that is not acknowledged
    within a few seconds is pushed all the same. Acknowledge with `GET /v1/sync?after=`, or by coming again with
    `Last-Event-ID`. An installation has one stream: another one ends it. A stream ends when the bearer token expires,
    after a day, when nobody reads, and whenever the service needs it to; come again with `Last-Event-ID`, and nothing
    is lost.
    """
    streams.check_room()
    stream_id = uuid4()

    async def open_here(db: AsyncSession) -> Extent:
        _, extent = await arrive(db, caller.user_id, installation_id, cursor.seq, cursor.field)
        await presences.appear(db, stream_id, caller.user_id, installation_id, lives=streams.terms.life)
        return extent

    extent = await writes.run(open_here, f"position/{caller.user_id}/{installation_id}")
    request.state.permit.release()  # a stream lasts, and runs nothing
    line: Line = request.state.line
    opened = Stream(stream_id, caller.user_id, installation_id, max(cursor.seq, extent.horizon), line.over)
    lasts = min(caller.expires_at.timestamp() - time.time(), streams.terms.longest)
    return EventStream(opened, streams, line=line, lasts=lasts)
