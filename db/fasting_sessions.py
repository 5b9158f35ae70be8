"""Fasting sessions: every change raises `rev` and enters the outbox, in one transaction."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, bindparam, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from db import outbox
from db.engine import among, present_instant
from db.models.people import FastingSessionRow
from db.unreadable import EARLIEST, LATEST, Unreadable, log_unreadable, word
from domain.problems import too_many_fasts
from domain.reminders import needed_at, rescheduled
from domain.sessions import FastingSession, SessionStatus, readable_labels, readable_minutes

OUTBOX_KIND = outbox.FAST


async def start(
    db: AsyncSession, session: FastingSession, started_with: dict[str, Any], *, most: int | None = None
) -> outbox.OutboxEntry | None:
    """Insert a new session; returns its outbox entry, None when the session's id is taken.

    Raises Conflict if its user already has `most` active fasts.
    """
    if most is not None:
        await _hold_count(db, session.user_id)
        if await read(db, session.session_id) is not None:  # by the same request, a moment ago
            return None
        await _check_count(db, session.user_id, most)
    values = _values(session) | {"id": session.session_id, "started_with": started_with}
    query = insert(FastingSessionRow).values(values).on_conflict_do_nothing().returning(FastingSessionRow.id)
    if await db.scalar(query) is None:
        return None
    return await outbox.add(db, OUTBOX_KIND, session.session_id, needed_at(None, session, session.scheduled_at))


async def check_room(db: AsyncSession, user_id: str, most: int | None) -> None:
    """Check that a user may have one more active fast, and hold off other such checks until the transaction ends.

    A fast whose end has passed does not count, even if its user has not ended it. Raises Conflict.
    """
    if most is not None:
        await _hold_count(db, user_id)
        await _check_count(db, user_id, most)


async def change(db: AsyncSession, session: FastingSession, now: datetime) -> outbox.OutboxEntry:
    """Store a session that `locked` has read and that changed at `now`; returns its outbox entry."""
    row = await db.get_one(FastingSessionRow, session.session_id)
    before = _session(row)
    for name, value in _values(session).items():
        setattr(row, name, value)
    await db.flush()
    return await outbox.add(db, OUTBOX_KIND, session.session_id, needed_at(before, session, now))


async def follow(db: AsyncSession, user_id: str, minutes: tuple[int, ...]) -> list[outbox.OutboxEntry]:
    """Give these reminder minutes to a user's fasts that follow the preferences; returns the outbox entries.

    A start of such a fast waits meanwhile: see `preferences.held`.
    """
    query = _active(user_id).where(FastingSessionRow.follows_preferences).order_by(FastingSessionRow.id)
    following = _readable(await db.scalars(query.with_for_update().execution_options(populate_existing=True)))
    now = await present_instant(db)
    changed = [
        replace(rescheduled(each, replace(each, reminder_minutes=minutes), now), rev=each.rev + 1)
        for each in following
        if each.reminder_minutes != minutes
    ]
    return [await change(db, each, now) for each in changed]


async def active_of(db: AsyncSession, user_id: str, limit: int) -> Sequence[FastingSession]:
    """List a user's fasts whose end lies ahead, the next to end first."""
    query = _active(user_id).order_by(FastingSessionRow.ends_at, FastingSessionRow.id).limit(limit)
    return _readable(await db.scalars(query))


async def read(db: AsyncSession, session_id: UUID) -> FastingSession | None:
    """Read a session as it is now; raises Unreadable."""
    row = await db.get(FastingSessionRow, session_id, populate_existing=True)
    return None if row is None else _one(row)


async def locked(db: AsyncSession, session_id: UUID) -> FastingSession | None:
    """Read a session and lock it until the transaction ends; raises Unreadable."""
    row = await db.get(FastingSessionRow, session_id, with_for_update=True, populate_existing=True)
    return None if row is None else _one(row)


async def started_with(db: AsyncSession, session_id: UUID) -> dict[str, Any]:
    """Read the request that started a session."""
    return (await db.get_one(FastingSessionRow, session_id)).started_with


async def by_id(db: AsyncSession, session_ids: Iterable[UUID]) -> dict[UUID, FastingSession]:
    """Read sessions as they are now; here and below, those that this release cannot read are left out."""
    query = select(FastingSessionRow).where(among(FastingSessionRow.id, session_ids))
    return {each.session_id: each for each in _readable(await db.scalars(query))}


async def shared(db: AsyncSession, session_ids: Iterable[UUID]) -> dict[UUID, FastingSession]:
    """Read sessions, locked against changes until the transaction ends."""
    query = (
        select(FastingSessionRow)
        .where(among(FastingSessionRow.id, session_ids))
        .order_by(FastingSessionRow.id)
        .with_for_update(read=True)
        .execution_options(populate_existing=True)
    )
    return {each.session_id: each for each in _readable(await db.scalars(query))}


async def ending(db: AsyncSession, user_id: str, since: datetime, until: datetime) -> Sequence[FastingSession]:
    """List a user's sessions whose end lies between these instants."""
    query = select(FastingSessionRow).where(
        FastingSessionRow.user_id == user_id, FastingSessionRow.ends_at.between(since, until)
    )
    return _readable(await db.scalars(query))


async def owned_by(
    db: AsyncSession, user_id: str, after: tuple[datetime, UUID] | None, limit: int
) -> Sequence[FastingSession]:
    """List a user's sessions, the latest started first."""
    query = (
        select(FastingSessionRow)
        .where(FastingSessionRow.user_id == user_id, FastingSessionRow.status.in_(tuple(SessionStatus)))
        .order_by(FastingSessionRow.started_at.desc(), FastingSessionRow.id.desc())
        .limit(limit)
    )
    if after:
        query = query.where(tuple_(FastingSessionRow.started_at, FastingSessionRow.id) < after)
    return _readable(await db.scalars(query))


async def _hold_count(db: AsyncSession, user_id: str) -> None:
    await db.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"fasts-of/{user_id}", 0))))


async def _check_count(db: AsyncSession, user_id: str, most: int) -> None:
    active = select(func.count()).select_from(_active(user_id).subquery())
    if (await db.execute(active)).scalar_one() >= most:
        raise too_many_fasts(most)


def _active(user_id: str) -> Select[FastingSessionRow]:
    """Select a user's active fasts, without those whose end has passed."""
    return select(FastingSessionRow).where(
        FastingSessionRow.user_id == user_id,
        FastingSessionRow.status == bindparam(None, SessionStatus.ACTIVE.value, literal_execute=True),
        FastingSessionRow.ends_at > func.statement_timestamp(),
    )


def _values(session: FastingSession) -> dict[str, Any]:
    return {name: value for name, value in asdict(session).items() if name != "session_id"}


def _one(row: FastingSessionRow) -> FastingSession:
    session = _session(row)
    if session is None:
        raise Unreadable("fasting session")
    return session


def _readable(rows: Iterable[FastingSessionRow]) -> list[FastingSession]:
    return [session for row in rows if (session := _session(row)) is not None]


def _session(row: FastingSessionRow) -> FastingSession | None:
    status = word(SessionStatus, row.status, "fasting_sessions.status")
    if status is None:
        return None
    if not EARLIEST < row.ends_at < LATEST:
        log_unreadable("fasting_sessions.ends_at", row.ends_at)
        return None
    return FastingSession(
        session_id=row.id,
        user_id=row.user_id,
        started_at=row.started_at,
        ends_at=row.ends_at,
        status=status,
        ended_at=row.ended_at,
        reminder_minutes=readable_minutes(row.reminder_minutes),
        scheduled_at=row.scheduled_at,
        rev=row.rev,
        late_minutes=readable_minutes(row.late_minutes),
        follows_preferences=row.follows_preferences,
        labels=readable_labels(row.labels),
    )
