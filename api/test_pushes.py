"""Test pushes, by support or by a service: send one, and its result, once or as a stream."""

import asyncio
import time
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Request
from fastapi.responses import Response
from pydantic import Field, StrictBool, TypeAdapter
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from api.acting import UserIdInPath
from api.dependencies import Database, RowWrites, Tester, Watchers
from api.fields import Body
from api.http.connection import ConnectionState
from api.http.problem_types import responses
from api.http.problems import Detail, ServiceUnavailable
from api.stream import HEADERS, HEARTBEAT
from db.engine import UNREACHABLE, Sessions
from domain.problems import NotFound
from operations import diagnostic_push as test_pushes
from operations.diagnostic_push import ShownTestPush, TestPushRequest

router = APIRouter(prefix="/v1/support", tags=["support"])
_LOOK_EVERY = 0.25  # seconds
_HEARTBEAT_EVERY = 5.0  # seconds
_AFTER_EXPIRY = 30.0  # seconds; a push that is not settled by then has lost its worker
_EVENTS = "text/event-stream"
_JSON = TypeAdapter(ShownTestPush)


class TestPushIn(Body):
    """Which phones to test, and how."""

    installation_id: Annotated[UUID | None, Field(description="Default: all that have an active token.")] = None
    validate_only: Annotated[StrictBool, Field(description="FCM only checks the push; no phone gets it.")] = False


@router.post(
    "/users/{user_id:path}/test-push",
    status_code=202,
    responses=responses("not-allowed", "not-found", "no-active-token", "being-erased"),
)
async def send_test_push(user_id: UserIdInPath, body: TestPushIn, caller: Tester, writes: RowWrites) -> ShownTestPush:
    """Send a test push on the same path as every push. `GET /v1/support/test-pushes/{id}` shows the result.

    At most 5 a minute to one user. Apple has no dry run: with `validate_only` iPhones are skipped. Needs the scope
    `support` or `service`.
    """
    wanted = TestPushRequest(user_id, body.installation_id, body.validate_only)

    async def send(db: AsyncSession) -> ShownTestPush:
        return await test_pushes.send(db, wanted, caller.actor)

    return await writes.run(send, f"test-push/{user_id}")


@router.get(
    "/test-pushes/{test_push_id}",
    response_model=ShownTestPush,
    responses=responses("not-allowed", "not-found")
    | {200: {"content": {_EVENTS: {}}, "description": "The result, or each change."}},
)
async def show_test_push(
    test_push_id: UUID,
    request: Request,
    caller: Tester,
    sessions: Database,
    watchers: Watchers,
    accept: Annotated[str, Header()] = "",
) -> Response | ShownTestPush:
    """Show the result of a test push for each phone.

    With `Accept: text/event-stream` the answer is a stream: an event `test_push` now and at each change, with the same
    JSON as its data, until every push is settled.
    """
    async with sessions() as db:
        found = await test_pushes.shown(db, test_push_id)
    if found is None:
        raise NotFound("test push")
    if _EVENTS not in accept:
        return found
    if watchers.locked():
        raise ServiceUnavailable(Detail.TOO_MANY_WATCHERS)
    await watchers.acquire()  # does not wait, since there is room; the answer releases it
    request.state.permit.release()  # a stream lasts, and does little work
    connection: ConnectionState = request.state.connection
    ends_at = min(found.expires_at.timestamp() + _AFTER_EXPIRY, caller.expires_at.timestamp())
    changes = _changes(found, sessions, connection.over, time.monotonic() + ends_at - datetime.now(UTC).timestamp())
    return _Watched(watchers, changes)


class _Watched(StreamingResponse):
    """A stream that releases its place, however it ends."""

    def __init__(self, watchers: asyncio.Semaphore, changes: AsyncGenerator[bytes]) -> None:
        super().__init__(changes, media_type=_EVENTS, headers=HEADERS)
        self._watchers = watchers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._watchers.release()


async def _changes(
    found: ShownTestPush, sessions: Sessions, over: asyncio.Future[None], until: float
) -> AsyncGenerator[bytes]:
    """Give the result so far, then each change, until every push is settled or the connection has to end."""
    yield _event(found)
    sent_at = time.monotonic()
    while not found.is_settled and not over.done() and time.monotonic() < until:
        await asyncio.wait({over}, timeout=_LOOK_EVERY)
        try:
            async with sessions() as db:
                now = await test_pushes.shown(db, found.test_push_id)
        except UNREACHABLE:  # the client asks again for the rest
            return
        if now is None:
            return
        if now != found:
            yield _event(now)
        elif time.monotonic() - sent_at > _HEARTBEAT_EVERY:
            yield HEARTBEAT
        else:
            continue
        found, sent_at = now, time.monotonic()


def _event(shown: ShownTestPush) -> bytes:
    return b"event: test_push\ndata: " + _JSON.dump_json(shown) + b"\n\n"
