"""Fasting sessions: start, read, move the goal, end, cancel. Accepted when committed; the dispatch follows."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import AliasPath, BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import AllServices, Database, Dispatch, Page, Paged, RowWrites, UserCaller, cut
from api.fields import Body, Instant, Labels, Out, ReminderMinutes
from api.http.problem_types import responses
from api.writes import Writes
from db import fasting_sessions, preferences
from db.engine import Sessions
from db.outbox import OutboxEntry
from db.views import standings as reminder_standings
from db.views.standings import ReminderStanding
from dispatch.relay import Relay
from domain.fasts import FastingSession, ReminderState, SessionStatus
from domain.problems import DomainError, NotFound
from operations import fasts
from operations.fasts import CarriedOut, Change, Finish, Order, Start
from telemetry import tracing

user_router = APIRouter(prefix="/fasting-sessions", tags=["fasting sessions"])


class StartIn(Body):
    """A fast to start. `started_at` defaults to now. Without `reminder_minutes` it follows the caller's preferences."""

    ends_at: Instant
    started_at: Instant | None = None
    reminder_minutes: ReminderMinutes | None = None
    labels: Labels | None = None

    def order(self) -> Start:
        """Give what is asked for."""
        request = self.model_dump(mode="json", exclude_none=True, include=set(StartIn.model_fields))
        return Start(self.ends_at, self.started_at, self.reminder_minutes, self.labels, request)


class ChangeIn(Body):
    """What to change: the goal, the reminders, or both."""

    ends_at: Instant | None = None
    reminder_minutes: ReminderMinutes | None = None

    def order(self) -> Change:
        """Give what is asked for."""
        return Change(self.ends_at, self.reminder_minutes)


class ReminderOut(Out):
    """One reminder of a session."""

    minutes: int = Field(validation_alias=AliasPath("reminder", "minutes"))
    due_at: datetime = Field(validation_alias=AliasPath("reminder", "due_at"))
    state: ReminderState


class SessionOut(Out):
    """A fasting session."""

    id: UUID = Field(validation_alias="session_id")
    started_at: datetime
    ends_at: datetime
    status: SessionStatus
    ended_at: datetime | None
    reminders: list[ReminderOut]
    labels: dict[str, str] = Field(description="As given at the start.", examples=[{"name": "Assam"}])
    rev: int = Field(description="Increases with each change.")


class SessionList(BaseModel):
    """A page of sessions, the latest started first."""

    items: list[SessionOut]
    next_cursor: str | None


@user_router.put(
    "/{session_id}",
    status_code=201,
    responses=responses("not-found", "session-exists", "too-many-active-fasts", "being-erased")
    | {200: {"model": SessionOut}},
)
async def start_fasting_session(
    session_id: UUID, body: StartIn, caller: UserCaller, services: AllServices, response: Response
) -> SessionOut:
    """Start a fast under an id that the caller chooses.

    201: accepted. 200: the same fast was accepted before. 409: the id has other content, or the caller has too many
    active fasts. A fast whose end has passed does not count.
    """
    order = Order(caller.user_id, session_id, body.order(), tracing.traceparent())
    started = await services.starts.start(order)
    if started is None:  # somebody else holds what it needs
        rows = _rows_of_start(caller.user_id, body)
        accepted, answer = await _carry_out(order, services.writes, services.relay, *rows)
    else:
        accepted = started.carried_out
        if started.entry is not None:
            services.relay.dispatch_soon(started.entry)
        answer = await _answer(accepted, services.sessions)
    if not accepted.is_new:
        response.status_code = 200
    return answer


@user_router.get("", responses=responses())
async def list_fasting_sessions(caller: UserCaller, sessions: Database, page: Paged) -> SessionList:
    """List the caller's fasting sessions."""
    return await list_of(caller.user_id, sessions, page)


async def list_of(user_id: str, sessions: Sessions, page: Page) -> SessionList:
    """List a user's fasting sessions."""
    async with sessions() as db:
        return await page_of(db, user_id, page)


async def page_of(db: AsyncSession, user_id: str, page: Page) -> SessionList:
    """List a user's fasting sessions in a transaction."""
    found = await fasting_sessions.owned_by(db, user_id, page.after, page.limit + 1)
    shown, following = cut(found, page.limit, lambda each: (each.started_at, each.session_id))
    return SessionList(items=await _out(db, shown), next_cursor=following)


@user_router.get("/{session_id}", responses=responses("not-found"))
async def read_fasting_session(session_id: UUID, caller: UserCaller, sessions: Database) -> SessionOut:
    """Read a fasting session."""
    async with sessions() as db:
        session = await fasting_sessions.read(db, session_id)
        if session is None or session.user_id != caller.user_id:
            raise NotFound("fasting session")
        return (await _out(db, [session]))[0]


@user_router.patch(
    "/{session_id}", responses=responses("not-found", "session-finished", "too-many-active-fasts", "being-erased")
)
async def change_fasting_session(
    session_id: UUID, body: ChangeIn, caller: UserCaller, writes: RowWrites, relay: Dispatch
) -> SessionOut:
    """Move the goal, change the reminders, or both."""
    return (await _carry_out(Order(caller.user_id, session_id, body.order()), writes, relay))[1]


@user_router.post("/{session_id}/end", responses=responses("not-found", "session-finished", "being-erased"))
async def end_fasting_session(session_id: UUID, caller: UserCaller, writes: RowWrites, relay: Dispatch) -> SessionOut:
    """End a fast. It is completed, or broken if its goal is still ahead. Repeats are harmless."""
    return await _finish(session_id, caller.user_id, SessionStatus.COMPLETED, writes, relay)


@user_router.post("/{session_id}/cancel", responses=responses("not-found", "session-finished", "being-erased"))
async def cancel_fasting_session(
    session_id: UUID, caller: UserCaller, writes: RowWrites, relay: Dispatch
) -> SessionOut:
    """Cancel a fast. Repeats are harmless."""
    return await _finish(session_id, caller.user_id, SessionStatus.CANCELLED, writes, relay)


async def _finish(session_id: UUID, user_id: str, wanted: SessionStatus, writes: Writes, relay: Relay) -> SessionOut:
    return (await _carry_out(Order(user_id, session_id, Finish(wanted)), writes, relay))[1]


async def _carry_out(order: Order, writes: Writes, relay: Relay, *rows: str) -> tuple[CarriedOut, SessionOut]:
    """Carry out one order, alone; `rows` are locked besides the session. Raises DomainError."""

    async def store(db: AsyncSession) -> tuple[CarriedOut, SessionOut, list[OutboxEntry]]:
        carried = await fasts.carry_out(db, [order], writes.quotas.active_fasts)
        [accepted] = carried.answers
        if isinstance(accepted, DomainError):
            raise accepted
        if accepted.is_new:
            return accepted, _new(accepted.session), carried.entries
        [answer] = await _out(db, [accepted.session])
        return accepted, answer, carried.entries

    accepted, answer, entries = await writes.run(store, f"fasting-session/{order.session_id}", *rows)
    for entry in entries:
        relay.dispatch_soon(entry)
    return accepted, answer


async def _answer(accepted: CarriedOut, sessions: Sessions) -> SessionOut:
    if accepted.is_new:
        return _new(accepted.session)
    async with sessions() as db:
        return (await _out(db, [accepted.session]))[0]


def _rows_of_start(user_id: str, body: StartIn) -> list[str]:
    rows = [fasting_sessions.fasts_of(user_id)]
    return rows if body.reminder_minutes is not None else [*rows, preferences.lock_of(user_id)]


async def _out(db: AsyncSession, sessions: Sequence[FastingSession]) -> list[SessionOut]:
    standings = await reminder_standings.of_sessions(db, sessions)
    return [_shown(session, standings[session.session_id]) for session in sessions]


def _new(session: FastingSession) -> SessionOut:
    return _shown(session, reminder_standings.of_new(session))


def _shown(session: FastingSession, standings: Sequence[ReminderStanding]) -> SessionOut:
    return SessionOut.model_validate(asdict(session) | {"reminders": standings})
