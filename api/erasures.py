"""A person leaves, or asks what is held: erasure and export, for services."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from uuid import UUID

from fastapi import APIRouter, Request
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from api.acting import UserIdInPath
from api.dependencies import Database, ErasureKey, Exports, RowWrites, ServiceCaller
from api.fields import Out
from api.http.connection import ConnectionState
from api.http.problem_types import responses
from api.http.problems import Detail, ServiceUnavailable
from db import erasures
from db.erasures import Erasure, ErasureState
from db.views import export
from domain.problems import Conflict, NotFound, being_erased
from operations import erasure

router = APIRouter(prefix="/v1", tags=["people"])
_LINES = "application/x-ndjson"


class ErasureOut(Out):
    """The erasure of a person, who is not named."""

    id: UUID
    state: ErasureState
    requested_at: datetime
    done_at: datetime | None


@router.delete("/users/{user_id:encoded}", status_code=202, responses=responses("not-allowed"))
async def erase_data(user_id: UserIdInPath, _: ServiceCaller, writes: RowWrites, key: ErasureKey) -> ErasureOut:
    """Erase a person: from the answer on, no push to them starts. All that is held of them is then deleted.

    Until `GET /v1/erasures/{id}` says `done`, their writes get 409 `being-erased`. A repeat meanwhile gives the same
    erasure. Afterwards they may come back, and start afresh.
    """

    async def begin(db: AsyncSession) -> Erasure:
        return await erasure.request(db, user_id, key)

    return ErasureOut.model_validate(await writes.run(begin, f"user/{user_id}"))


@router.get("/erasures/{erasure_id}", responses=responses("not-allowed", "not-found"))
async def read_erasure(erasure_id: UUID, _: ServiceCaller, sessions: Database) -> ErasureOut:
    """Tell whether an erasure is done."""
    async with sessions() as db:
        found = await erasures.read(db, erasure_id)
    if found is None:
        raise NotFound("erasure")
    return ErasureOut.model_validate(found)


class Export(StreamingResponse):
    """Lines of JSON that are read as fast as the client takes them."""

    media_type = _LINES

    def __init__(self, lines: AsyncGenerator[bytes], places: asyncio.Semaphore) -> None:
        super().__init__(lines)
        self._places = places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, and free its place however that ends."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._places.release()


@router.get(
    "/users/{user_id:encoded}/export",
    status_code=200,
    response_class=Export,
    responses=responses("not-allowed", "being-erased")
    | {200: {"content": {_LINES: {}}, "description": "One line for each thing held."}},
)
async def export_data(
    user_id: UserIdInPath, request: Request, _: ServiceCaller, sessions: Database, places: Exports
) -> Export:
    """Export all that is held of a person, as lines `{"type": …, "data": {…}}`.

    What changes meanwhile is in the lines that follow the change. 409 `being-erased` while the person is being erased.
    An answer that breaks off is not complete: ask again.
    """
    async with sessions() as db:
        if await erasures.running(db, user_id) is not None:
            raise being_erased()
    if places.locked():
        raise ServiceUnavailable(Detail.TOO_MANY_EXPORTS)
    await places.acquire()  # does not wait, since there is room; the answer releases it
    connection: ConnectionState = request.state.connection
    return Export(_lines(export.pages_of(sessions, user_id), connection), places)


async def _lines(pages: AsyncGenerator[list[str]], connection: ConnectionState) -> AsyncGenerator[bytes]:
    """Write the lines; where there will be more, the client sees that the answer is not whole."""
    async with aclosing(pages):
        try:
            async for page in pages:
                yield "".join(page).encode()
                if connection.over.done():  # the process stops
                    connection.abort()
                    return
        except Conflict:  # the person is being erased
            connection.abort()
