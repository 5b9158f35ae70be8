"""Fasting sessions: every change raises `rev` and enters the outbox, in one transaction."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy import ARRAY, Select, Uuid, bindparam, func, select, text, true, tuple_
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from db import outbox, preferences
from db.engine import among, columns_of, present_instant
from db.models.people import DeviceToken, FastingSessionRow, PreferencesRow
from db.unreadable import EARLIEST, LATEST, Unreadable, addresses, log_unreadable, word
from domain.fasts import FastingSession, SessionStatus, needed_at, readable_labels, readable_minutes, rescheduled
from domain.preferences import Preferences

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


@dataclass(frozen=True, slots=True)
class HeldFasts:
    """What a transaction about some fasts begins with."""

    fasts: dict[UUID, StoredFast]  # locked until the transaction ends
    now: datetime  # by the database's clock, once they were locked
    erased: set[str]  # those of their users who are being erased now


async def hold(db: AsyncSession, session_ids: Collection[UUID], user_ids: Collection[str] = ()) -> HeldFasts:
    """Read sessions, locked until the transaction ends, and which of these users are being erased."""
    rows = (await db.execute(_HOLD, {"ids": sorted(session_ids), "user_ids": list(user_ids)})).all()
    fasts = {row.id: StoredFast(_session(row), row.started_with) for row in rows if row.id is not None}
    return HeldFasts(fasts, max(row.now for row in rows), set(rows[0].erased))


async def free(db: AsyncSession, session_ids: Collection[UUID], names: Collection[str]) -> tuple[set[UUID], set[str]]:
    """Lock those of these sessions and names that nobody holds; gives the sessions that others hold, and our names.

    Waits for no lock.
    """
    row = (await db.execute(_FREE, {"ids": sorted(session_ids), "names": sorted(set(names))})).one()
    return set(row.held_by_others), set(row.names)


async def start_all(
    db: AsyncSession,
    started: Collection[tuple[FastingSession, dict[str, Any]]],
    dispatches: Collection[outbox.PlannedDispatch],
) -> tuple[set[UUID], list[outbox.OutboxEntry]]:
    """Insert new sessions, each with the request that started it and its dispatch, in one statement.

    Gives those whose id was not taken, and the dispatches that this process tries first.
    """
    if not started:
        return set(), []
    planned = {each.subject_id: each for each in dispatches}
    rows = [
        asdict(session) | {"id": session.session_id, "started_with": request} | asdict(planned[session.session_id])
        for session, request in started
    ]
    added = await db.execute(_START, {"kind": OUTBOX_KIND, "rows": _JSON.dump_json(rows).decode()})
    ids = {row.subject_id: row.id for row in added}
    return set(ids), outbox.entries(OUTBOX_KIND, dispatches, ids)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a user's next fast depends on."""

    active: int  # fasts
    reminder_minutes: tuple[int, ...] | None  # as preferred; None: never set


async def terms_of(db: AsyncSession, user_ids: Collection[str]) -> dict[str, Terms]:
    """Read users' preferred minutes, and count their active fasts; `fasts_of` and `preferences.lock_of` are held.

    A fast whose end has passed does not count, even if its user has not ended it.
    """
    return {
        row.user_id: Terms(row.active, None if row.minutes is None else readable_minutes(row.minutes))
        for row in await db.execute(_TERMS, {"user_ids": list(user_ids)})
    }


def fasts_of(user_id: str) -> str:
    """Name the lock of the number of a user's active fasts."""
    return f"fasts-of/{user_id}"


async def change_all(db: AsyncSession, changed: Collection[FastingSession]) -> None:
    """Store sessions that are locked."""
    if not changed:
        return
    ids = [session.session_id for session in changed]
    stored = await db.scalars(_each(ids))
    rows = {row.id: row for row in stored}
    for session in changed:
        for name, value in _values(session).items():
            setattr(rows[session.session_id], name, value)
    await db.flush()


async def follow(db: AsyncSession, user_id: str, minutes: tuple[int, ...]) -> list[outbox.OutboxEntry]:
    """Give these reminder minutes to a user's fasts that follow the preferences; returns the outbox entries.

    A start of such a fast waits meanwhile: see `preferences.lock_of`.
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
    return await outbox.add_all(db, OUTBOX_KIND, outbox.planned_dispatches(needs, now))


async def active_of(db: AsyncSession, user_id: str, limit: int) -> Sequence[FastingSession]:
    """List a user's fasts whose end lies ahead, the next to end first."""
    query = _active(user_id).order_by(FastingSessionRow.ends_at, FastingSessionRow.id).limit(limit)
    return _readable(await db.scalars(query))


async def read(db: AsyncSession, session_id: UUID) -> FastingSession | None:
    """Read a session as it is now; raises Unreadable."""
    row = await db.get(FastingSessionRow, session_id, populate_existing=True)
    return None if row is None else _one(row)


async def read_all(db: AsyncSession, session_ids: Collection[UUID]) -> dict[UUID, FastingSession | None]:
    """Read sessions as they are now; None for one that this release cannot read."""
    return {row.id: _session(row) for row in await db.execute(_READ, {"ids": list(session_ids)})}


@dataclass(frozen=True, slots=True)
class Dispatched:
    """What Temporal was told of a session."""

    outbox_id: int
    session_id: UUID
    rev: int | None  # None: there was no such session


async def settle_all(db: AsyncSession, dispatched: Collection[Dispatched]) -> set[int]:
    """Delete rows of the outbox whose sessions are as Temporal was told; gives those that are."""
    names = ("outbox_id", "session_id", "rev")
    return set(await db.scalars(_SETTLE, columns_of(dispatched, *names)))


async def read_with_phones(db: AsyncSession, session_ids: Collection[UUID]) -> dict[UUID, FastWithPhones | None]:
    """Read sessions, what their users prefer and the tokens that may be pushed to, in one statement.

    None for a session that this release cannot read. Openings read thousands a minute.
    """
    rows = (await db.execute(_WITH_PHONES, {"ids": list(session_ids)})).all()
    preferred = await preferences.of_rows(db, {row[1].user_id: row[1] for row in rows if row[1] is not None}.values())
    phones: dict[UUID, list[DeviceToken]] = defaultdict(list)
    for stored, _, phone in rows:
        phones[stored.id] += [] if phone is None else [phone]
    read: dict[UUID, FastWithPhones | None] = {}
    for stored in {row[0].id: row[0] for row in rows}.values():  # a row for each phone
        session = _session(stored)
        wanted = preferred.get(stored.user_id, Preferences())
        read[stored.id] = FastWithPhones(session, wanted, addresses(phones[stored.id])) if session else None
    return read


async def by_id(db: AsyncSession, session_ids: Iterable[UUID]) -> dict[UUID, FastingSession]:
    """Read sessions as they are now; here and below, those that this release cannot read are left out."""
    query = select(FastingSessionRow).where(among(FastingSessionRow.id, session_ids))
    return {each.session_id: each for each in _readable(await db.scalars(query))}


async def shared(db: AsyncSession, session_ids: Iterable[UUID]) -> dict[UUID, FastingSession]:
    """Read sessions, locked against changes until the transaction ends."""
    return {each.session_id: each for each in _readable(await db.execute(_SHARED, {"ids": sorted(session_ids)}))}


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


_JSON = TypeAdapter(list[dict[str, Any]])


def _each(session_ids: Iterable[UUID]) -> Select[FastingSessionRow]:
    """Select sessions, in the order of their ids with one look into the index for each.

    A plan for `= ANY` that was made while the table was small reads all of it, until PostgreSQL counts its rows anew:
    up to a minute, in which an import adds tens of thousands.
    """
    each = select(func.unnest(bindparam(None, sorted(session_ids), type_=ARRAY(Uuid))).label("id")).subquery("asked")
    found = select(FastingSessionRow).where(FastingSessionRow.id == each.c.id).limit(1).lateral("found")
    return select(aliased(FastingSessionRow, found)).select_from(each.join(found, true()))


def _with_phones() -> Select[FastingSessionRow, PreferencesRow, DeviceToken]:
    """Select sessions with their users' preferences and active tokens, by index as above."""
    each = select(func.unnest(bindparam("ids", type_=ARRAY(Uuid))).label("id")).subquery("asked")
    found = select(FastingSessionRow).where(FastingSessionRow.id == each.c.id).limit(1).lateral("found")
    preferred = select(PreferencesRow).where(PreferencesRow.user_id == found.c.user_id).limit(1).lateral("preferred")
    active = select(DeviceToken).where(DeviceToken.user_id == found.c.user_id, DeviceToken.active)
    phones = active.order_by(DeviceToken.id).lateral("phones")  # the order keeps the planner from merging it
    entities = aliased(FastingSessionRow, found), aliased(PreferencesRow, preferred), aliased(DeviceToken, phones)
    joined = each.join(found, true()).outerjoin(preferred, true()).outerjoin(phones, true())
    return select(*entities).select_from(joined).order_by(phones.c.id)


def _active(user_id: str) -> Select[FastingSessionRow]:
    """Select a user's active fasts, without those whose end has passed."""
    return select(FastingSessionRow).where(
        FastingSessionRow.user_id == user_id,
        FastingSessionRow.status == bindparam(None, SessionStatus.ACTIVE.value, literal_execute=True),
        FastingSessionRow.ends_at > func.statement_timestamp(),
    )


_WITH_PHONES = _with_phones().execution_options(populate_existing=True)

# each with one look into the index, as `_each` says
_SESSION = """id, user_id, started_at, ends_at, status, ended_at, reminder_minutes, scheduled_at, rev, late_minutes,
               follows_preferences, labels"""
_COLUMNS = f"{_SESSION}, started_with"
_READ, _SHARED = (
    text(f"""
    SELECT found.*
      FROM unnest(CAST(:ids AS uuid[])) AS asked (asked_id)
     CROSS JOIN LATERAL (SELECT {_SESSION} FROM fasting_sessions WHERE id = asked_id LIMIT 1{lock}) AS found
""").columns(labels=JSONB())  # noqa: S608 -- of our own words alone
    for lock in ("", " FOR SHARE")
)
_SETTLE = text("""
    WITH told AS MATERIALIZED (
        SELECT each.outbox_id
          FROM unnest(CAST(:outbox_id AS bigint[]), CAST(:session_id AS uuid[]), CAST(:rev AS integer[]))
               AS each (outbox_id, session_id, rev)
          LEFT JOIN LATERAL (SELECT rev FROM fasting_sessions WHERE id = session_id LIMIT 1) AS s ON true
         WHERE s.rev IS NOT DISTINCT FROM each.rev
    ), settled AS (
        DELETE FROM outbox WHERE id IN (SELECT outbox_id FROM told)
    )
    SELECT outbox_id FROM told
""")
_HOLD = text(f"""
    WITH held AS MATERIALIZED (
        SELECT found.*
          FROM unnest(CAST(:ids AS uuid[])) AS asked (asked_id)
         CROSS JOIN LATERAL (SELECT {_COLUMNS} FROM fasting_sessions WHERE id = asked_id LIMIT 1 FOR UPDATE) AS found
    )
    SELECT held.*, clock_timestamp() AS now,
           ARRAY(SELECT e.user_id FROM erasures e WHERE e.user_id = ANY(CAST(:user_ids AS text[]))) AS erased
      FROM (SELECT 1) AS one LEFT JOIN held ON true
""").columns(labels=JSONB(), started_with=JSONB())  # noqa: S608 -- of our own words alone
_FREE = text("""
    WITH ours AS MATERIALIZED (
        SELECT id
          FROM unnest(CAST(:ids AS uuid[])) AS asked (asked_id)
         CROSS JOIN LATERAL (SELECT id FROM fasting_sessions WHERE id = asked_id LIMIT 1
                                FOR UPDATE SKIP LOCKED) AS found
    ), free AS MATERIALIZED (
        SELECT name FROM unnest(CAST(:names AS text[])) AS each (name)
         WHERE pg_try_advisory_xact_lock(hashtextextended(name, 0))
    )
    SELECT ARRAY(SELECT id
                   FROM unnest(CAST(:ids AS uuid[])) AS asked (asked_id)
                  CROSS JOIN LATERAL (SELECT id FROM fasting_sessions WHERE id = asked_id LIMIT 1) AS found
                 EXCEPT SELECT id FROM ours) AS held_by_others,
           ARRAY(SELECT name FROM free) AS names
""")
_START = text(f"""
    WITH asked AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS each (
            id uuid, user_id text, started_at timestamptz, ends_at timestamptz, status text, ended_at timestamptz,
            reminder_minutes integer[], scheduled_at timestamptz, rev integer, late_minutes integer[],
            follows_preferences boolean, labels jsonb, started_with jsonb,
            next_attempt_at timestamptz, needed_at timestamptz, traceparent text)
    ), started AS (
        INSERT INTO fasting_sessions ({_COLUMNS})
        SELECT {_COLUMNS}
          FROM asked
            ON CONFLICT DO NOTHING
        RETURNING id
    )
    INSERT INTO outbox (subject_kind, subject_id, next_attempt_at, needed_at, traceparent)
    SELECT CAST(:kind AS text), id, next_attempt_at, needed_at, traceparent FROM asked JOIN started USING (id)
    RETURNING id, subject_id
""")  # noqa: S608 -- of our own words alone
_TERMS = text("""
    SELECT asked.user_id,
           (SELECT count(*) FROM fasting_sessions s
             WHERE s.user_id = asked.user_id AND s.status = 'active' AND s.ends_at > statement_timestamp()) AS active,
           (SELECT p.reminder_minutes FROM preferences p WHERE p.user_id = asked.user_id) AS minutes
      FROM (SELECT DISTINCT user_id FROM unnest(CAST(:user_ids AS text[])) AS each (user_id)) AS asked
""")  # user by user: else a planner without statistics reads all active fasts


def _values(session: FastingSession) -> dict[str, Any]:
    return {name: value for name, value in asdict(session).items() if name != "session_id"}


def _one(row: FastingSessionRow) -> FastingSession:
    session = _session(row)
    if session is None:
        raise Unreadable("fasting session")
    return session


def _readable(rows: Iterable[Any]) -> list[FastingSession]:
    return [session for row in rows if (session := _session(row)) is not None]


def _session(row: Any) -> FastingSession | None:  # noqa: ANN401 -- of the table, or of a query with its columns
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
