"""What routes depend on: the caller, the database, the relay, a page of a list, and whether the database is ready."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, TypeVar
from uuid import UUID

from fastapi import Depends, Query, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import TypeAdapter

from api.http.auth import Caller, TokenCheck
from api.http.problems import Detail, Forbidden, Unauthorized
from api.http.rates import Rate, Rates, RunningRequests
from api.row_queue import Writes
from api.streams.open_streams import OpenStreams
from db.engine import Sessions, is_ready
from dispatch.relay import Relay
from domain.problems import InvalidField
from settings.apps_file import AppIds
from telemetry.exposition import Exposition

LARGEST_PAGE = 1024 * 1024  # bytes; a single item may be larger


T = TypeVar("T")


def cut(found: Sequence[T], limit: int, kind: TypeAdapter[T]) -> tuple[list[T], bool]:
    """Cut a list to a page; tells whether there are more. `found` was read with `limit + 1`.

    A page ends early where it would be larger than `LARGEST_PAGE`; the next page starts there.
    """
    size = 0
    for count, item in enumerate(found[:limit]):
        size += len(kind.dump_json(item))
        if size > LARGEST_PAGE and count:
            return list(found[:count]), True
    return list(found[:limit]), len(found) > limit


ANSWERS_WITHIN = 3.0  # seconds; load balancers' probes wait little longer


class ReadinessCheck:
    """Checks whether the database is ready. Concurrent requests share one check."""

    def __init__(self, sessions: Sessions, *, within: float = ANSWERS_WITHIN) -> None:
        self.within = within  # seconds
        self._sessions = sessions
        self._under_way: asyncio.Task[bool] | None = None

    async def check(self) -> bool:
        """Tell whether the database is ready; raises TimeoutError, which also cancels the shared check."""
        if self._under_way is None or self._under_way.done():
            self._under_way = asyncio.create_task(is_ready(self._sessions))
        check_under_way = self._under_way
        await asyncio.wait({check_under_way}, timeout=self.within)
        if check_under_way.done() and not check_under_way.cancelled():
            return check_under_way.result()
        check_under_way.cancel()
        if self._under_way is check_under_way:
            self._under_way = None
        raise TimeoutError


MAX_WATCHERS = 20  # streams of test pushes at once; each reads the database four times a second


_bearer = HTTPBearer(auto_error=False, bearerFormat="JWT")


@dataclass(frozen=True, slots=True)
class Services:
    """What the process holds for all requests."""

    sessions: Sessions
    tokens: TokenCheck
    rates: Rates
    sign_outs: Rate  # by address
    running: RunningRequests
    readiness: ReadinessCheck
    writes: Writes
    relay: Relay
    app_ids: AppIds
    streams: OpenStreams
    exposition: Exposition
    watchers: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_WATCHERS))


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def _sessions(services: Annotated[Services, Depends(_services)]) -> Sessions:
    return services.sessions


def _app_ids(services: Annotated[Services, Depends(_services)]) -> AppIds:
    return services.app_ids


def _relay(services: Annotated[Services, Depends(_services)]) -> Relay:
    return services.relay


def _streams(services: Annotated[Services, Depends(_services)]) -> OpenStreams:
    return services.streams


def _readiness(services: Annotated[Services, Depends(_services)]) -> ReadinessCheck:
    return services.readiness


def _exposition(services: Annotated[Services, Depends(_services)]) -> Exposition:
    return services.exposition


def _watchers(services: Annotated[Services, Depends(_services)]) -> asyncio.Semaphore:
    return services.watchers


def _writes(services: Annotated[Services, Depends(_services)]) -> Writes:
    return services.writes


async def _caller(
    request: Request,
    services: Annotated[Services, Depends(_services)],
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> AsyncIterator[Caller]:
    """Check who calls, and hold a permit until the answer. A stream releases `request.state.permit` itself."""
    if credentials is None:
        raise Unauthorized(Detail.NOT_SIGNED_IN)
    caller = await services.tokens.caller(credentials.credentials)
    services.rates.spend(caller)
    request.state.permit = await services.running.enter(caller)
    try:
        yield caller
    finally:
        request.state.permit.release()


async def supporter(caller: Annotated[Caller, Depends(_caller)]) -> Caller:
    """Require the scope `support`."""
    if "support" not in caller.scopes:
        raise Forbidden(Detail.NEEDS_SCOPE.format(scope="support"))
    return caller


async def service(caller: Annotated[Caller, Depends(_caller)]) -> Caller:
    """Require the scope `service`."""
    if "service" not in caller.scopes:
        raise Forbidden(Detail.NEEDS_SCOPE.format(scope="service"))
    return caller


@dataclass(frozen=True, slots=True)
class Page:
    """The part of a list to read: after which item, and how many."""

    after: tuple[datetime, UUID] | None
    limit: int


def next_cursor(at: datetime, item_id: UUID) -> str:
    """Encode where the next page starts; opaque to callers."""
    return base64.urlsafe_b64encode(json.dumps([at.isoformat(), str(item_id)]).encode()).decode()


Cursor = Annotated[str | None, Query(max_length=200, description="`next_cursor` of the previous page.")]

Limit = Annotated[int, Query(ge=1, le=200)]


def page_at(cursor: Cursor = None, limit: Limit = 50) -> Page:
    """Decode a cursor; raises InvalidField."""
    if cursor is None:
        return Page(None, limit)
    try:
        at, item_id = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        return Page((datetime.fromisoformat(at).astimezone(UTC), UUID(item_id)), limit)
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise InvalidField("cursor", Detail.UNKNOWN_CURSOR) from None


AllServices = Annotated[Services, Depends(_services)]

AllowedApps = Annotated[AppIds, Depends(_app_ids)]

AnyCaller = Annotated[Caller, Depends(_caller)]

Supporter = Annotated[Caller, Security(supporter, scopes=["support"])]

ServiceCaller = Annotated[Caller, Security(service, scopes=["service"])]

Database = Annotated[Sessions, Depends(_sessions)]

RowWrites = Annotated[Writes, Depends(_writes)]

Dispatch = Annotated[Relay, Depends(_relay)]

Streams = Annotated[OpenStreams, Depends(_streams)]

Ready = Annotated[ReadinessCheck, Depends(_readiness)]

MetricsText = Annotated[Exposition, Depends(_exposition)]

Watchers = Annotated[asyncio.Semaphore, Depends(_watchers)]

Paged = Annotated[Page, Depends(page_at)]
