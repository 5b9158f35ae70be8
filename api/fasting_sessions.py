"""Fasting sessions: start, read, move the goal, end, cancel. Accepted when committed; the dispatch follows."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import AliasPath, BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import Database, Dispatch, Page, Paged, RowWrites, UserCaller, next_cursor
from api.fields import Body, Instant, Labels, Out, ReminderMinutes
from api.http.problem_types import responses
from api.http.problems import Detail
from api.row_queue import Writes
from db import fasting_sessions, outbox, preferences
from db.engine import Sessions, present_instant
from db.views import standings as reminder_standings
from db.views.standings import ReminderStanding
from dispatch.relay import Relay
from domain.problems import Conflict, NotFound
from domain.reminders import ReminderState, rescheduled
from domain.sessions import FastingSession, SessionStatus, already_finished, check_times, finished_status

user_router = APIRouter(prefix="/fasting-sessions", tags=["fasting sessions"])


class StartIn(Body):
    """A fast to start. `started_at` defaults to now. Without `reminder_minutes` it follows the caller's preferences."""

    ends_at: Instant
    started_at: Instant | None = None
    reminder_minutes: ReminderMinutes | None = None
    labels: Labels | None = None


class ChangeIn(Body):
    """What to change: the goal, the reminders, or both."""

    ends_at: Instant | None = None
    reminder_minutes: ReminderMinutes | None = None


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


Changed = tuple[SessionOut, outbox.OutboxEntry | None]  # the session, and what to dispatch if it was changed


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
    session_id: UUID,
    body: StartIn,
    caller: UserCaller,
    writes: RowWrites,
    relay: Dispatch,
    response: Response,
) -> SessionOut:
    """Start a fast under an id that the caller chooses.

    201: accepted. 200: the same fast was accepted before. 409: the id has other content, or the caller has too many
    active fasts. A fast whose end has passed does not count.
    """
    started_with = body.model_dump(mode="json", exclude_none=True)

    async def store(db: AsyncSession) -> Changed:
        session = await fasting_sessions.locked(db, session_id)
        if session is None:
            session = await _new_session(db, session_id, caller.user_id, body)
            entry = await fasting_sessions.start(db, session, started_with, most=writes.quotas.active_fasts)
            if entry is not None:
                return _shown(session, reminder_standings.of_new(session)), entry
        session = await _mine(db, session_id, caller.user_id)
        if not _asks_for(body, session) and started_with != await fasting_sessions.started_with(db, session_id):
            raise Conflict("session-exists", Detail.SESSION_EXISTS)
        [answer] = await _out(db, [session])
        return answer, None

    rows = [_row(session_id), f"fasts-of/{caller.user_id}"]
    if body.reminder_minutes is None:
        rows.append(f"preferences/{caller.user_id}")
    answer, entry = await writes.run(store, *rows)
    if entry is None:
        response.status_code = 200
    else:
        relay.dispatch_soon(entry)
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
    shown = found[: page.limit]
    items = await _out(db, shown)
    more = len(found) > len(shown)
    return SessionList(
        items=items, next_cursor=next_cursor(shown[-1].started_at, shown[-1].session_id) if more else None
    )


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

    async def store(db: AsyncSession) -> Changed:
        session = await _mine(db, session_id, caller.user_id)
        if session.status is not SessionStatus.ACTIVE:
            raise already_finished(session)
        now = await present_instant(db)
        changed = replace(session, ends_at=body.ends_at or session.ends_at)
        if body.reminder_minutes not in {None, session.reminder_minutes}:
            changed = replace(changed, reminder_minutes=body.reminder_minutes, follows_preferences=False)
        entry = None
        if changed != session:
            if body.ends_at is not None:
                check_times(changed.started_at, changed.ends_at, now)
            if session.ends_at <= now < changed.ends_at:  # it counts as active again
                await fasting_sessions.check_room(db, caller.user_id, writes.quotas.active_fasts)
            changed = replace(rescheduled(session, changed, now), rev=session.rev + 1)
            entry = await fasting_sessions.change(db, changed, now)
        [answer] = await _out(db, [changed])
        return answer, entry

    return _dispatched(relay, await writes.run(store, _row(session_id)))


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
    async def store(db: AsyncSession) -> Changed:
        session = await _mine(db, session_id, user_id)
        now = await present_instant(db)
        status = finished_status(session, wanted, now)
        entry = None
        if status is not None:
            session = replace(session, status=status, ended_at=now, rev=session.rev + 1)
            entry = await fasting_sessions.change(db, session, now)
        [answer] = await _out(db, [session])
        return answer, entry

    return _dispatched(relay, await writes.run(store, _row(session_id)))


def _dispatched(relay: Relay, changed: Changed) -> SessionOut:
    answer, entry = changed
    if entry is not None:
        relay.dispatch_soon(entry)
    return answer


def _row(session_id: UUID) -> str:
    return f"fasting-session/{session_id}"


async def _new_session(db: AsyncSession, session_id: UUID, user_id: str, body: StartIn) -> FastingSession:
    now = await present_instant(db)
    started_at = body.started_at or now
    check_times(started_at, body.ends_at, now)
    minutes = body.reminder_minutes
    if minutes is None:
        minutes = (await preferences.held(db, user_id)).reminder_minutes
    return FastingSession(
        session_id=session_id,
        user_id=user_id,
        started_at=started_at,
        ends_at=body.ends_at,
        status=SessionStatus.ACTIVE,
        ended_at=None,
        reminder_minutes=minutes,
        scheduled_at=now,
        rev=1,
        follows_preferences=body.reminder_minutes is None,
        labels=body.labels or {},
    )


async def _mine(db: AsyncSession, session_id: UUID, user_id: str) -> FastingSession:
    session = await fasting_sessions.locked(db, session_id)
    if session is None or session.user_id != user_id:
        raise NotFound("fasting session")
    return session


def _asks_for(body: StartIn, session: FastingSession) -> bool:
    """Tell whether a start request matches the session as it is now."""
    return (
        body.ends_at == session.ends_at
        and body.started_at in {None, session.started_at}
        and body.reminder_minutes in {None, session.reminder_minutes}
        and body.labels in (None, session.labels)
    )


async def _out(db: AsyncSession, sessions: Sequence[FastingSession]) -> list[SessionOut]:
    standings = await reminder_standings.of_sessions(db, sessions)
    return [_shown(session, standings[session.session_id]) for session in sessions]


def _shown(session: FastingSession, standings: Sequence[ReminderStanding]) -> SessionOut:
    return SessionOut.model_validate(asdict(session) | {"reminders": standings})
