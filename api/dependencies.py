"""What routes depend on: the caller, the database, the relay, a page, limits of batches and exports, readiness."""

import asyncio
import base64
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar
from uuid import UUID

from fastapi import Depends, Query, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic_core import to_json

from api.http.auth import Caller, TokenCheck, is_user_id
from api.http.problems import ActForUser, Detail, Forbidden, ServiceUnavailable, Unauthorized
from api.http.rates import Rate, Rates, RunningRequests
from api.http.request_log import route_template
from api.open_streams import OpenStreams
from api.writes import SharedStarts, Writes
from db import erasures
from db.engine import Sessions
from db.migrate import check_readiness
from dispatch.relay import Relay
from domain.presentation import Presentations
from domain.problems import InvalidField, NotFound, being_erased
from settings.apps_file import AppIds
from telemetry.exposition import Exposition

LARGEST_PAGE = 1024 * 1024  # bytes; a single item may be larger
T = TypeVar("T")


def cut(rows: Sequence[T], limit: int, place: Callable[[T], tuple[datetime, UUID]]) -> tuple[list[T], str | None]:
    """Cut a list to a page; gives also the cursor of the next one, if there is one. `rows` were read with `limit + 1`.

    A page ends early where it would be larger than `LARGEST_PAGE`; the next page starts there. `place`: what the rows
    are ordered by.
    """
    shown, size = list(rows[:limit]), 0
    for count, item in enumerate(shown):
        size += len(to_json(item))
        if size > LARGEST_PAGE and count:
            shown = shown[:count]
            break
    return shown, next_cursor(*place(shown[-1])) if len(rows) > len(shown) else None


ANSWERS_WITHIN = 3.0  # seconds; load balancers' probes wait little longer


class ReadinessCheck:
    """Checks whether the database is ready. Concurrent requests share one check."""

    def __init__(self, sessions: Sessions, *, within: float = ANSWERS_WITHIN) -> None:
        self.within = within  # seconds
        self._sessions = sessions
        self._under_way: asyncio.Task[tuple[bool, str | None]] | None = None

    async def check(self) -> tuple[bool, str | None]:
        """Tell whether the database is ready, and why not, if known; raises TimeoutError.

        A timeout also cancels the shared check.
        """
        if self._under_way is None or self._under_way.done():
            self._under_way = asyncio.create_task(check_readiness(self._sessions))
        check_under_way = self._under_way
        await asyncio.wait({check_under_way}, timeout=self.within)
        if check_under_way.done() and not check_under_way.cancelled():
            return check_under_way.result()
        check_under_way.cancel()
        if self._under_way is check_under_way:
            self._under_way = None
        raise TimeoutError


MAX_EXPORTS = 4  # at once; each holds up to a page in memory
MAX_WATCHERS = 20  # streams of test pushes at once; each reads the database four times a second
_READS = {"GET", "HEAD"}
_bearer = HTTPBearer(auto_error=False, bearerFormat="JWT, or an API key")


MAX_BATCHES = 2  # at once; each takes a connection and some tenths of a second
MAX_BATCHES_OF_ONE, MAX_BATCHES_OF_ALL = 8, 16  # of a service, and of all services; with those that wait


@dataclass(frozen=True, slots=True)
class Batches:
    """The batches of this process: those that it works on, and with them those that wait."""

    at_once: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_BATCHES))
    accepted: Counter[str] = field(default_factory=Counter)  # by service

    @asynccontextmanager
    async def turn(self, service: str) -> AsyncIterator[None]:
        """Wait for other batches; raises ServiceUnavailable where many wait already, so that others find room."""
        if self.accepted[service] >= MAX_BATCHES_OF_ONE or self.accepted.total() >= MAX_BATCHES_OF_ALL:
            raise ServiceUnavailable(Detail.TOO_MANY_BATCHES)
        self.accepted[service] += 1
        try:
            async with self.at_once:
                yield
        finally:
            self.accepted[service] -= 1
            if not self.accepted[service]:
                del self.accepted[service]


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
    starts: SharedStarts
    relay: Relay
    app_ids: AppIds
    streams: OpenStreams
    presentations: Presentations
    exposition: Exposition
    erasure_key: bytes | None  # None: digests prove nothing
    allow_private_webhooks: bool = False
    exports: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_EXPORTS))
    batches: Batches = field(default_factory=Batches)
    watchers: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_WATCHERS))


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def _held(name: str) -> Any:  # noqa: ANN401 -- FastAPI's own `Depends` is typed so
    """Depend on one of the `Services`."""

    async def held(services: AllServices) -> object:
        return getattr(services, name)

    return Depends(held)


AllServices = Annotated[Services, Depends(_services)]
AllowedApps = Annotated[AppIds, _held("app_ids")]
Database = Annotated[Sessions, _held("sessions")]
RowWrites = Annotated[Writes, _held("writes")]
Dispatch = Annotated[Relay, _held("relay")]
Ready = Annotated[ReadinessCheck, _held("readiness")]
MetricsText = Annotated[Exposition, _held("exposition")]
RunningBatches = Annotated[Batches, _held("batches")]
Watchers = Annotated[asyncio.Semaphore, _held("watchers")]
Exports = Annotated[asyncio.Semaphore, _held("exports")]
ErasureKey = Annotated[bytes | None, _held("erasure_key")]


async def _caller(
    request: Request,
    services: AllServices,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> AsyncIterator[Caller]:
    """Check who calls, and hold a permit until the answer. A stream releases `request.state.permit` itself.

    FastAPI asks once for each set of scopes that a route's dependencies have; only the first time counts.
    """
    if hasattr(request.state, "caller"):
        yield request.state.caller
        return
    if credentials is None:
        raise Unauthorized(Detail.NOT_SIGNED_IN)
    caller = await services.tokens.caller(credentials.credentials)
    acts_for = _named_user(request)
    services.rates.spend(caller, acts_for)
    request.state.permit = await services.running.enter(caller, acts_for)
    request.state.caller = caller
    try:
        yield caller
    except NotFound:
        person = acts_for or (caller.user_id if caller.is_person else None)
        if request.method not in _READS and person and await _is_being_erased(services, person):
            raise being_erased() from None  # what the request is about may be gone already
        raise
    finally:
        request.state.permit.release()


def _named_user(request: Request) -> str | None:
    """Give the user that the path names; None for an id that cannot be one, which gets 422."""
    named = request.path_params.get("user_id", "")
    return named if is_user_id(named) else None


async def _is_being_erased(services: Services, user_id: str) -> bool:
    async with services.sessions() as db:
        return await erasures.running(db, user_id) is not None


async def supporter(caller: Annotated[Caller, Depends(_caller)]) -> Caller:
    """Require the scope `support`."""
    return _with_scope(caller, "support")


async def service(caller: Annotated[Caller, Depends(_caller)]) -> Caller:
    """Require the scope `service`."""
    return _with_scope(caller, "service")


async def _user(request: Request, caller: Annotated[Caller, Depends(_caller)]) -> Caller:
    """Give the user that a route is for: the caller, or below `/v1/users/` the one that a service acts for."""
    if "user_id" in request.path_params:
        return Caller(request.path_params["user_id"], frozenset(), _with_scope(caller, "service").expires_at)
    if not caller.is_person:
        raise ActForUser(for_a_user(route_template(request.scope)))
    return caller


def for_a_user(path: str) -> str:
    """Give the path on which a service does for a user what a user does on `path`."""
    bare = path.removeprefix("/v1")
    return f"/v1/users/{{user_id}}{_NOT_FOR_SERVICES.get(bare, bare)}"


_NOT_FOR_SERVICES = {"/stream": "/sync"}  # what serves them instead


async def tester(caller: Annotated[Caller, Depends(_caller)]) -> Caller:
    """Require the scope `support` or `service`."""
    return caller if "service" in caller.scopes else _with_scope(caller, "support")


def _with_scope(caller: Caller, scope: str) -> Caller:
    if scope not in caller.scopes:
        raise Forbidden(Detail.NEEDS_SCOPE.format(scope=scope))
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


AnyCaller = Annotated[Caller, Depends(_caller)]
UserCaller = Annotated[Caller, Depends(_user)]
Supporter = Annotated[Caller, Security(supporter, scopes=["support"])]
ServiceCaller = Annotated[Caller, Security(service, scopes=["service"])]
Tester = Annotated[Caller, Security(tester, scopes=["support"])]
Paged = Annotated[Page, Depends(page_at)]
