"""Fasting sessions: every change raises `rev` and enters the outbox, in one transaction."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Select, Uuid, and_, bindparam, func, select, text, true, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased
from sqlalchemy.sql.selectable import ForUpdateArg

from db import outbox, preferences
from db.engine import among, hold_names, present_instant
from db.models.people import DeviceToken, FastingSessionRow, PreferencesRow
from db.unreadable import EARLIEST, LATEST, Unreadable, addresses, log_unreadable, word
from domain.preferences import Preferences
from domain.reminders import needed_at, rescheduled
from domain.sessions import FastingSession, SessionStatus, readable_labels, readable_minutes

OUTBOX_KIND = outbox.FAST


@dataclass(frozen=True, slots=True)
class StoredFast:
    """A session as it is stored, and the request that started it."""

    session: FastingSession | None  # None: this release cannot read it
    started_with: dict[str, Any]


@dataclass(frozen=True, slots=True)
class FastWithPhones:
    """A session, what its user prefers, and the tokens that may be pushed to."""

    session: FastingSession
    preferences: Preferences
    devices: Sequence[DeviceToken]


async def hold(db: AsyncSession, session_ids: Collection[UUID]) -> dict[UUID, StoredFast]:
    """Read sessions, locked until the transaction ends."""
    rows = await db.scalars(_each(session_ids, _ALONE), execution_options=_AFRESH)
    return {row.id: StoredFast(_session(row), row.started_with) for row in rows}


async def unheld(db: AsyncSession, session_ids: Collection[UUID]) -> set[UUID]:
    """Give those of these sessions that exist and are locked by others; lock the rest. Waits for no lock."""
    free = {row.id for row in await db.scalars(_each(session_ids, _IF_FREE))}
    return {row.id for row in await db.scalars(_each(session_ids))} - free


async def start_all(db: AsyncSession, started: Collection[tuple[FastingSession, dict[str, Any]]]) -> set[UUID]:
    """Insert new sessions, each with the request that started it; gives those whose id was not taken."""
    rows = [_values(session) | {"id": session.session_id, "started_with": request} for session, request in started]
    query = insert(FastingSessionRow).on_conflict_do_nothing().returning(FastingSessionRow.id)
    return set(await db.scalars(query, rows)) if rows else set()


async def count_active(db: AsyncSession, user_ids: Collection[str]) -> dict[str, int]:
    """Count users' active fasts, and hold off other counts until the transaction ends.

    A fast whose end has passed does not count, even if its user has not ended it.
    """
    await hold_names(db, [fasts_of(user_id) for user_id in user_ids])
    return {row.user_id: row.active for row in await db.execute(_COUNT_ACTIVE, {"user_ids": list(user_ids)})}


def fasts_of(user_id: str) -> str:
    """Name the lock of the number of a user's active fasts."""
    return f"fasts-of/{user_id}"


async def change_all(db: AsyncSession, changed: Collection[FastingSession]) -> None:
    """Store sessions that `hold` has read."""
    for session in changed:
        row = await db.get_one(FastingSessionRow, session.session_id)
        for name, value in _values(session).items():
            setattr(row, name, value)
    await db.flush()


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
    before = {each.session_id: each for each in following}
    await change_all(db, changed)
    needs = {each.session_id: needed_at(before[each.session_id], each, now) for each in changed}
    return await outbox.add_all(db, OUTBOX_KIND, needs, now)


async def active_of(db: AsyncSession, user_id: str, limit: int) -> Sequence[FastingSession]:
    """List a user's fasts whose end lies ahead, the next to end first."""
    query = _active(user_id).order_by(FastingSessionRow.ends_at, FastingSessionRow.id).limit(limit)
    return _readable(await db.scalars(query))


async def read(db: AsyncSession, session_id: UUID) -> FastingSession | None:
    """Read a session as it is now; raises Unreadable."""
    row = await db.get(FastingSessionRow, session_id, populate_existing=True)
    return None if row is None else _one(row)


async def read_with_phones(db: AsyncSession, session_id: UUID) -> FastWithPhones | None:
    """Read a session, what its user prefers and the tokens that may be pushed to, in one statement; raises Unreadable.

    An opening reads thousands of them a minute.
    """
    mine = FastingSessionRow.user_id
    query = (
        select(FastingSessionRow, PreferencesRow, DeviceToken)
        .outerjoin(PreferencesRow, PreferencesRow.user_id == mine)
        .outerjoin(DeviceToken, and_(DeviceToken.user_id == mine, DeviceToken.active))
        .where(FastingSessionRow.id == session_id)
        .order_by(DeviceToken.id)
        .execution_options(populate_existing=True)
    )
    rows = (await db.execute(query)).all()
    if not rows:
        return None
    stored, preferred, _ = rows[0]
    by_user = {} if preferred is None else await preferences.of_rows(db, [preferred])
    devices = addresses(device for *_, device in rows if device is not None)
    return FastWithPhones(_one(stored), by_user.get(stored.user_id, Preferences()), devices)


async def by_id(db: AsyncSession, session_ids: Iterable[UUID]) -> dict[UUID, FastingSession]:
    """Read sessions as they are now; here and below, those that this release cannot read are left out."""
    query = select(FastingSessionRow).where(among(FastingSessionRow.id, session_ids))
    return {each.session_id: each for each in _readable(await db.scalars(query))}


async def shared(db: AsyncSession, session_ids: Iterable[UUID]) -> dict[UUID, FastingSession]:
    """Read sessions, locked against changes until the transaction ends."""
    rows = await db.scalars(_each(session_ids, _SHARED), execution_options=_AFRESH)
    return {each.session_id: each for each in _readable(rows)}


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


_AFRESH = {"populate_existing": True}
_ALONE, _SHARED, _IF_FREE = ForUpdateArg(), ForUpdateArg(read=True), ForUpdateArg(skip_locked=True)


def _each(session_ids: Iterable[UUID], lock: ForUpdateArg | None = None) -> Select[FastingSessionRow]:
    """Select sessions, and lock them, in the order of their ids with one look into the index for each.

    A plan for `= ANY` that was made while the table was small reads all of it, until PostgreSQL counts its rows anew:
    up to a minute, in which an import adds tens of thousands.
    """
    each = select(func.unnest(bindparam(None, sorted(session_ids), type_=ARRAY(Uuid))).label("id")).subquery("asked")
    one = select(FastingSessionRow).where(FastingSessionRow.id == each.c.id).limit(1)
    if lock is not None:
        one = one.with_for_update(read=lock.read, skip_locked=lock.skip_locked)
    found = one.lateral("found")
    return select(aliased(FastingSessionRow, found)).select_from(each.join(found, true()))


def _active(user_id: str) -> Select[FastingSessionRow]:
    """Select a user's active fasts, without those whose end has passed."""
    return select(FastingSessionRow).where(
        FastingSessionRow.user_id == user_id,
        FastingSessionRow.status == bindparam(None, SessionStatus.ACTIVE.value, literal_execute=True),
        FastingSessionRow.ends_at > func.statement_timestamp(),
    )


_COUNT_ACTIVE = text("""
    SELECT asked.user_id,
           (SELECT count(*) FROM fasting_sessions s
             WHERE s.user_id = asked.user_id AND s.status = 'active' AND s.ends_at > statement_timestamp()) AS active
      FROM (SELECT DISTINCT user_id FROM unnest(CAST(:user_ids AS text[])) AS each (user_id)) AS asked
""")  # user by user: else a planner without statistics reads all active fasts


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
