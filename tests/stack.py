"""A whole Fastbell for tests: API on a socket and worker in this process, on the shared servers.

Each stack has a database and a Temporal namespace of its own, so stacks do not disturb each other.
"""

import asyncio
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from types import CoroutineType, FrameType
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import uvicorn
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError

from activities.webhooks import WebhookDependencies
from api.app import create_app
from api.http.connection import UNACKNOWLEDGED, HttpConnection, bind
from api.open_streams import DEFAULT_STREAM_LIMITS, OpenStreamLimits
from db.engine import Sessions, make_engine, make_sessions
from dispatch.client import data_converter
from dispatch.relay import Relay
from fleet.heartbeat import Heartbeat
from push.registry import EVERY, Rotation
from settings.credentials import make_rotation
from settings.environment import auth_settings, limit_settings, service_settings
from settings.presentations import PresentationFiles
from simulator import Simulator
from tests.busy import ANSWERED_WITHIN, soon
from worker import make_send_dependencies, make_workers

ROOT = Path(__file__).parent.parent
UNLIMITED = {"MAX_INSTALLATIONS_PER_USER": "0", "MAX_ACTIVE_FASTS_PER_USER": "0", "MESSAGE_RATE": "0"}
SECRET = "a secret that only the tests know, 32 bytes long"


@dataclass(frozen=True)
class StackPlace:
    """Where a stack stands: its database, its namespace, the world around it."""

    database_url: str
    temporal_address: str
    namespace: str
    simulator: Simulator

    def environment(self, **more: str) -> dict[str, str]:
        """Give the settings for the processes of this stack."""
        return {
            "DATABASE_URL": self.database_url,
            "TEMPORAL_ADDRESS": self.temporal_address,
            "TEMPORAL_NAMESPACE": self.namespace,
            "AUTH_JWT_SECRET": SECRET,
            "ARM_WINDOW": "60",
            **self.simulator.environment,
            **more,
        }


@dataclass(frozen=True)
class Stack:
    """What tests talk to."""

    place: StackPlace
    http: httpx.AsyncClient
    sessions: Sessions
    temporal: Client

    def user(self, user_id: str | None = None, *scopes: str) -> "User":
        """Sign somebody in."""
        user_id = user_id or f"user-{uuid4()}"
        return User(self, user_id, {"Authorization": f"Bearer {bearer(user_id, *scopes)}"})

    async def rows(self, query: str, **values: Any) -> list[Any]:
        """Ask the database."""
        async with self.sessions() as db:
            return list((await db.execute(text(query), values)).all())

    async def tasks(self, session_id: UUID) -> list[Any]:
        """Read the push tasks of a session."""
        return await self.rows("SELECT * FROM push_tasks WHERE conversation_id = :id ORDER BY provider", id=session_id)

    def workflow(self, session_id: UUID) -> WorkflowHandle[Any, Any]:
        """Find the workflow of a session."""
        return self.temporal.get_workflow_handle(f"fasting-reminder/{session_id}")

    async def started(self, session_id: UUID) -> None:
        """Wait until a session's workflow runs."""
        await self.knows(session_id, rev=1)

    async def knows(self, session_id: UUID, *, rev: int) -> None:
        """Wait until a session's workflow has learnt of this revision."""

        async def learnt() -> bool:
            try:
                return bool((await self.workflow(session_id).query("status"))["rev"] >= rev)
            except RPCError:  # not started yet
                return False

        await eventually(learnt)

    async def finished(self, session_id: UUID, *, within: float = 30.0) -> str:
        """Wait until a session's workflow has nothing left to do; gives its result."""

        async def result() -> str | None:
            try:
                return str(await self.workflow(session_id).result())
            except RPCError:  # not started yet
                return None

        return str(await eventually(result, within=within))

    async def holds_sends(self, session_id: UUID, count: int) -> bool:
        """Tell whether so many send activities of a session are in a worker's hands."""
        if not await self.tasks(session_id):
            return False
        pending = (await self.workflow(session_id).describe()).raw_description.pending_activities
        return sum(each.HasField("last_started_time") for each in pending) == count

    async def failed_attempts(self, session_id: UUID, count: int) -> bool:
        """Tell whether so many push tasks of a session wait for another attempt."""
        failed = (
            "SELECT 1 FROM push_tasks WHERE conversation_id = :id AND last_reason IS NOT NULL AND state = 'pending'"
        )
        return len(await self.rows(failed, id=session_id)) == count

    async def someone_waits_for_a_lock(self) -> bool:
        """Tell whether a query hangs on a lock that the test holds."""
        waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return bool(await self.rows(waiting))


@dataclass(frozen=True)
class Phone:
    """A device token as its app knows it."""

    provider: str
    token: str
    installation_id: UUID = field(default_factory=uuid4)


def iphone() -> Phone:
    """A new iPhone."""
    return Phone("apns", secrets.token_hex(32))


def android() -> Phone:
    """A new Android phone."""
    return Phone("fcm", f"fcm-{secrets.token_urlsafe(90)}")


@dataclass(frozen=True)
class User:
    """Somebody with the app."""

    stack: Stack
    user_id: str
    headers: dict[str, str]

    async def call(self, method: str, path: str, body: object = None) -> httpx.Response:
        """Make an API call."""
        return await self.stack.http.request(method, path, json=body, headers=self.headers)

    async def register(self, *phones: Phone, **more: str) -> None:
        """Sign in on these phones."""
        for phone in phones:
            body = {"provider": phone.provider, "token": phone.token, **more}
            answer = await self.done("PUT", f"/v1/device-tokens/{phone.installation_id}", body)
            assert answer.status_code == 200, answer.text

    async def start_fast(self, *, due_in: float, minutes: tuple[int, ...] = (1,), **more: object) -> UUID:
        """Start a fast whose last reminder is due in so many seconds.

        Where the answer took longer than that, another one that is due later; of the first one nothing is left.
        """
        while True:
            session_id = uuid4()
            ends_at = datetime.now(UTC) + timedelta(seconds=due_in, minutes=min(minutes))
            body = {"ends_at": ends_at.isoformat(), "reminder_minutes": minutes, **more}
            answer = await self.done("PUT", f"/v1/fasting-sessions/{session_id}", body)
            assert answer.is_success, answer.text
            if answer.json()["reminders"][-1]["state"] != "skipped":
                return session_id
            await self._forget(session_id)
            due_in = 2 * max(due_in, 0.5)

    async def move_goal(self, session_id: UUID, *, due_in: float, minutes: int = 1) -> None:
        """Move the goal so that the reminder is due in so many seconds."""
        ends_at = datetime.now(UTC) + timedelta(seconds=due_in, minutes=minutes)
        answer = await self.done("PATCH", f"/v1/fasting-sessions/{session_id}", {"ends_at": ends_at.isoformat()})
        assert answer.status_code == 200, answer.text

    async def end(self, session_id: UUID) -> None:
        """End a fast."""
        answer = await self.done("POST", f"/v1/fasting-sessions/{session_id}/end")
        assert answer.status_code == 200, answer.text

    async def cancel(self, session_id: UUID) -> None:
        """Cancel a fast."""
        answer = await self.done("POST", f"/v1/fasting-sessions/{session_id}/cancel")
        assert answer.status_code == 200, answer.text

    async def _forget(self, session_id: UUID) -> None:
        """Let no timeline and no feed tell of a fast."""
        left = ("outbox WHERE subject_id", "fasting_sessions WHERE id", "unnumbered_events WHERE session_id")
        async with self.stack.sessions.begin() as db:
            for rows in (*left, "events WHERE session_id"):  # where an event may get its number meanwhile
                await db.execute(text(f"DELETE FROM {rows} = :id"), {"id": session_id})

    async def done(self, method: str, path: str, body: object = None) -> httpx.Response:
        """Make an API call as an app does: again where the API says that it is too busy."""
        while (answer := await self.call(method, path, body)).status_code == httpx.codes.SERVICE_UNAVAILABLE:
            await asyncio.sleep(0.2)
        return answer


def refuse_once(simulator: Simulator, phone: Phone) -> None:
    """Let the provider's next answer for this phone be that it is unavailable."""
    refuse(simulator, phone, count=1)


def refuse(simulator: Simulator, phone: Phone, *, count: int | None = None) -> None:
    """Let the provider answer so for this phone: so many times, or until no faults are left."""
    words = {"apns": {"reason": "ServiceUnavailable"}, "fcm": {"error_code": "UNAVAILABLE"}}[phone.provider]
    simulator.faults.add(provider=phone.provider, token=phone.token, fault="answer", status=503, count=count, **words)


def bearer(user_id: str, *scopes: str, expires_in: timedelta = timedelta(hours=1)) -> str:
    """Sign a bearer token."""
    claims = {"sub": user_id, "exp": datetime.now(UTC) + expires_in, "scope": " ".join(scopes)}
    return jwt.encode(claims, SECRET, algorithm="HS256")


def make_app(place: StackPlace, stream_limits: OpenStreamLimits = DEFAULT_STREAM_LIMITS, /, **settings: str) -> FastAPI:
    """Make an API with these settings."""
    environment = place.environment(**settings)
    return create_app(
        service_settings(environment), auth_settings(environment), stream_limits, limit_settings(environment)
    )


@asynccontextmanager
async def open_stack(place: StackPlace, **settings: str) -> AsyncIterator[Stack]:
    """Serve the API and run the worker in this process."""
    async with make_stack(place, make_app(place, **settings)) as stack, working(stack, place.environment(**settings)):
        yield stack


@asynccontextmanager
async def working(
    stack: Stack, environment: dict[str, str], *, looks_every: timedelta = EVERY
) -> AsyncIterator[Rotation]:
    """Run a worker in this process, its sweeper included; gives what follows its credentials."""
    rotation = make_rotation(environment, every=looks_every)
    relay = Relay(stack.sessions, stack.temporal, service_settings(environment).arm_window)
    presented = PresentationFiles(service_settings(environment), every=looks_every)
    dependencies = make_send_dependencies(
        stack.sessions, rotation.apps, environment, presentations=presented.presentations
    )
    heartbeat = Heartbeat(stack.sessions, dependencies.limiters, dependencies.cutoff)
    background_tasks = [
        asyncio.create_task(relay.sweep_forever()),
        asyncio.create_task(rotation.follow()),
        asyncio.create_task(presented.follow()),
        asyncio.create_task(heartbeat.beat_forever()),
        asyncio.create_task(dependencies.takeover.run_forever(heartbeat.worker_id)),
    ]
    webhooks = WebhookDependencies(service_settings(environment).webhooks_allow_private, within=1.5, looks_every=0.1)
    workers = make_workers(stack.temporal, stack.sessions, dependencies, webhooks=webhooks)
    running = [asyncio.create_task(worker.run()) for worker in workers]
    try:
        yield rotation
    finally:
        for task in background_tasks:
            task.cancel()
        await asyncio.gather(*(worker.shutdown() for worker in workers))
        await asyncio.gather(*running)
        await heartbeat.leave()
        await rotation.close()


@asynccontextmanager
async def make_stack(
    place: StackPlace,
    app: FastAPI,
    *,
    lazy: bool = False,
    unacknowledged: timedelta = UNACKNOWLEDGED,
    http: type[HttpConnection] = HttpConnection,
) -> AsyncIterator[Stack]:
    """Serve the API on a socket in this process, with no worker; lazy: Temporal may be away."""
    with _environ(TEMPORAL_ADDRESS=place.temporal_address, TEMPORAL_NAMESPACE=place.namespace):
        config = uvicorn.Config(
            app, port=0, http=http, log_config=None, access_log=False, lifespan="on", timeout_keep_alive=300
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve([bind(config, unacknowledged)]))
        while not server.started:
            assert not serving.done(), "the API did not start"
            await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    engine = make_engine(place.database_url)
    try:
        client = await temporal_client(place, lazy=lazy)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=ANSWERED_WITHIN) as client_http:
            client_http.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # many share it: it keeps none
            yield Stack(place, client_http, make_sessions(engine), client)
    finally:
        server.should_exit = True
        await serving
        await engine.dispose()


async def temporal_client(place: StackPlace, *, lazy: bool = False) -> Client:
    """Connect to the place's Temporal."""
    return await Client.connect(
        place.temporal_address, namespace=place.namespace, data_converter=data_converter, lazy=lazy
    )


async def start_held(*users: User, due_in: float, sends: int = 1) -> list[UUID]:
    """Start a fast of each, due at about one instant, and wait until so many sends of each are in a worker's hands.

    There is half of the time left then, or a second. Where that took longer, others that are due later.
    """
    while True:
        late_at = time.monotonic() + max(due_in / 2, due_in - 1)
        fasts = await asyncio.gather(*(user.start_fast(due_in=due_in) for user in users))
        waiting = list(zip(users, fasts, strict=True))
        while waiting and time.monotonic() < late_at:
            user, session_id = waiting[-1]
            with suppress(TimeoutError):  # of the look itself
                if await user.stack.holds_sends(session_id, sends):
                    waiting.pop()
                    continue
            await asyncio.sleep(0.02)
        if time.monotonic() < late_at:
            return list(fasts)
        for user, session_id in zip(users, fasts, strict=True):
            await user.cancel(session_id)
        due_in *= 2


@asynccontextmanager
async def uncommitted(stack: Stack, statement: str, **values: object) -> AsyncIterator[None]:
    """Run a statement in a transaction that commits when the block is left, however long that takes."""
    async with lasting(stack) as db:
        await db.execute(text(statement), values)
        yield


@asynccontextmanager
async def lasting(stack: Stack) -> AsyncIterator[AsyncSession]:
    """Begin a transaction that commits when the block is left, however long that takes."""
    async with stack.sessions.begin() as db:
        await db.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        yield db


async def eventually(check: Callable[[], Awaitable[Any]], *, within: float = 15.0) -> Any:
    """Wait until a check gives something true, and give it; raises TimeoutError that tells what it saw last.

    On a busy machine it is given the more time.
    """
    looks, stood_still, looked_at = 0, 0.0, (began := time.monotonic())
    try:
        async with soon(within):
            while True:
                with suppress(TimeoutError):  # of the look itself, as where the machine is too busy to connect in time
                    if found := await check():
                        return found
                await asyncio.sleep(0.02)
                looks, before, looked_at = looks + 1, looked_at, time.monotonic()
                stood_still = max(stood_still, looked_at - before)
    except TimeoutError as error:
        took = time.monotonic() - began
        raise TimeoutError(
            f"not true within {took:.1f} s, at {looks} looks of which the longest took {stood_still:.1f} s;"
            f" load {os.getloadavg()[0]:.1f}; seen last: {await _seen_by(check)}"
        ) from error


async def _seen_by(check: Callable[[], Awaitable[Any]]) -> str:
    """Look once more; gives the names and values that the check made out for itself, and its result."""
    look: Any = check()
    seen: dict[str, object] = {}

    def watch(frame: FrameType, event: str, _: object) -> None:
        if event == "return" and frame.f_code is code:
            seen.update({name: frame.f_locals[name] for name in code.co_varnames if name in frame.f_locals})

    code = look.cr_code if isinstance(look, CoroutineType) else None
    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        async with asyncio.timeout(5):
            seen["came to"] = await look
    except Exception as error:  # noqa: BLE001 -- whatever it is, it tells something
        seen["came to"] = repr(error)
    finally:
        sys.setprofile(before)
    return "; ".join(f"{name} = {str(value)[:5000]}" for name, value in seen.items())


@contextmanager
def _environ(**values: str) -> Iterator[None]:
    """Set environment variables for a while: the SDK reads its own."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
