"""Retention: purges what has been kept long enough, in small batches. All by the database's clock."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import TextClause, delete, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from db import events, log
from db.engine import any_of_locked, is_contended
from db.models.operations import ConsoleCode, ConsoleSession, PreferenceCode, PreferenceSession
from db.models.people import Presence
from db.workers import KEPT
from domain.housekeeping import Keep, RetentionTarget

_BATCH = 500  # rows
_LOG_BATCH = 1000  # items of one user's log
_A_WHILE = timedelta(hours=1)
_LAZY = timedelta(days=1)  # so that each log is purged at most once a day; and of collapse groups


@dataclass(frozen=True, slots=True)
class Purged:
    """How many rows were purged, and whether that was all."""

    count: int
    is_all: bool


async def purge(db: AsyncSession, what: RetentionTarget, keep: Keep) -> Purged:
    """Purge a batch of what has been kept long enough."""
    return await _PURGES[what](db, keep)


async def _push_tasks(db: AsyncSession, keep: Keep) -> Purged:
    """Delete settled push tasks that were due so long ago, with their attempts; never one that may still be useful.

    Collapse groups without a push for a day are deleted too, uncounted.
    """
    groups = await _batch(db, _COLLAPSE_GROUPS, _LAZY)
    tasks = await _batch(db, _TASKS, keep.finished)
    return replace(tasks, is_all=tasks.is_all and groups.is_all)


async def _device_tokens(db: AsyncSession, keep: Keep) -> Purged:
    """Delete tokens that have been inactive for so long; of each installation and user the newest row stays.

    It loses the token and keeps its reason, so that the app still learns that it should register again.
    """
    older = await _batch(db, _OLDER_TOKENS, keep.finished)
    blanked = await _batch(db, _BLANK_TOKENS, keep.finished)
    return Purged(older.count + blanked.count, is_all=older.is_all and blanked.is_all)


async def _log_items(db: AsyncSession, keep: Keep) -> Purged:
    """Delete one user's old log items, if there are any; their messages stay in their conversations.

    A log with a locked head is skipped. One with locked items is tried again a day later.
    """
    look = await db.begin_nested()
    ripe = (await db.execute(_RIPE, {"keep": keep.log, "lazy": _LAZY, "limit": _LOG_BATCH})).one_or_none()
    await look.rollback()  # the head is locked at the end of this, not from its start
    if ripe is None:
        return Purged(0, is_all=True)
    try:
        async with db.begin_nested():
            if ripe.until is not None:
                await log.purge(db, ripe.user_id, until=ripe.until)
            await db.execute(_OLDEST, {"user_id": ripe.user_id, "oldest_at": ripe.oldest_at})
    except DBAPIError as error:
        if not is_contended(error):
            raise
        await db.execute(_A_DAY_LATER, {"user_id": ripe.user_id, "keep": keep.log})
        return Purged(0, is_all=False)
    return Purged(ripe.gone, is_all=False)


async def _events(db: AsyncSession, keep: Keep) -> Purged:
    """Delete the oldest events; those that nobody has read yet are numbered first, so that the horizon covers them."""
    numbered = await events.number_within(db)
    gone = await _batch(db, _EVENTS, keep.events)
    return replace(gone, is_all=gone.is_all and not numbered)


async def _expired(
    db: AsyncSession, key: InstrumentedAttribute[Any], expires_at: InstrumentedAttribute[datetime]
) -> Purged:
    """Delete what expired an hour ago."""
    old = select(key).where(expires_at < func.statement_timestamp() - _A_WHILE).limit(_BATCH)
    old = old.with_for_update(skip_locked=True)
    removal = delete(key.class_).where(any_of_locked(key, old)).returning(key)
    count = len((await db.scalars(removal)).all())
    return Purged(count, is_all=count < _BATCH)


async def _batch(db: AsyncSession, statement: TextClause, keep: timedelta) -> Purged:
    count = len((await db.execute(statement, {"keep": keep, "limit": _BATCH})).all())
    return Purged(count, is_all=count < _BATCH)


def _delete(table: str, key: str, condition: str) -> TextClause:
    """Write the deletion of a batch of unlocked rows; `key`: the columns of the primary key."""
    keys = key.split(", ")
    same = " AND ".join(f"t.{each} = old.{each}" for each in keys)
    return text(f"""
        WITH old AS (SELECT {key} FROM {table} AS t WHERE {condition} LIMIT :limit FOR UPDATE OF t SKIP LOCKED)
        DELETE FROM {table} AS t USING old WHERE {same} RETURNING 1
    """)  # noqa: S608 -- of this module alone


_TASKS = text("""
    WITH old AS (
        SELECT task_id
          FROM push_tasks
         WHERE due_at < statement_timestamp() - CAST(:keep AS interval)
           AND expires_at < statement_timestamp() AND state <> 'pending'
         ORDER BY due_at
         LIMIT :limit
           FOR UPDATE SKIP LOCKED
    ), attempts AS (
        DELETE FROM push_attempts a USING old WHERE a.task_id = old.task_id
    )
    DELETE FROM push_tasks t USING old WHERE t.task_id = old.task_id
    RETURNING t.task_id
""")

# Ids grow with time, so an instant in the future is odd, and such rows are deleted too. Otherwise they would one day
# fill the batch, and no row after them would be deleted.
_OLD_AT = """
    (eldest.at < statement_timestamp() - CAST(:keep AS interval)
     OR eldest.at > statement_timestamp() + interval '1 day')
"""

_TOKEN_EVENTS, _WITHHELD = (
    text(f"""
        DELETE FROM {table} AS t
         USING (SELECT id, at FROM {table} ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED) AS eldest
         WHERE t.id = eldest.id AND {_OLD_AT}
        RETURNING t.id
    """)  # noqa: S608 -- of this module alone
    for table in ("device_token_events", "withheld_pushes")
)

# What refers to a row is purged first, after the same time. `_NEWER` says which row of an installation stays.
# `OFFSET 0`: each row looks for others by an index, where a join might read the whole table.
_OLD_TOKENS = """
    d.last_seen_at < statement_timestamp() - CAST(:keep AS interval) AND NOT d.active
       AND NOT EXISTS (SELECT FROM device_token_events e WHERE e.device_id = d.id OFFSET 0)
       AND NOT EXISTS (SELECT FROM push_tasks t WHERE t.device_id = d.id OFFSET 0)
"""
_NEWER = """
    EXISTS (SELECT FROM device_tokens n
             WHERE n.user_id = d.user_id AND n.installation_id = d.installation_id AND n.id <> d.id
               AND (n.active OR (n.last_seen_at, n.id) > (d.last_seen_at, d.id))
            OFFSET 0)
"""

_OLDER_TOKENS = text(f"""
    WITH found AS (
        SELECT d.user_id, d.installation_id
          FROM device_tokens d
         WHERE {_OLD_TOKENS} AND d.token <> ''
         ORDER BY d.last_seen_at
         LIMIT :limit
    ), older AS (
        SELECT d.id
          FROM device_tokens d
         WHERE {_OLD_TOKENS} AND {_NEWER}
           AND (d.user_id, d.installation_id) IN (SELECT user_id, installation_id FROM found)
         ORDER BY d.id
         LIMIT :limit
           FOR UPDATE OF d SKIP LOCKED
    )
    DELETE FROM device_tokens d USING older WHERE d.id = older.id
    RETURNING d.id
""")  # noqa: S608 -- both parts are above

_BLANK_TOKENS = text(f"""
    WITH newest AS (
        SELECT d.id
          FROM device_tokens d
         WHERE {_OLD_TOKENS} AND d.token <> '' AND NOT {_NEWER}
           AND NOT EXISTS (SELECT FROM device_tokens b
                            WHERE b.user_id = d.user_id AND b.installation_id = d.installation_id AND b.token = ''
                           OFFSET 0)
         ORDER BY d.last_seen_at
         LIMIT :limit
           FOR UPDATE OF d SKIP LOCKED
    )
    UPDATE device_tokens d SET token = '' FROM newest WHERE d.id = newest.id
    RETURNING d.id
""")  # noqa: S608 -- both parts are above

_AGO = "statement_timestamp() - CAST(:keep AS interval)"
_COLLAPSE_GROUPS = _delete(
    "collapse_groups", "installation_id, collapse_key", f"greatest(planned_at, sounded_at) < {_AGO}"
)
_SYNC_POSITIONS = _delete(
    "sync_positions",
    "user_id, installation_id",
    f"""synced_at < {_AGO}
        AND NOT EXISTS (SELECT FROM device_tokens d
                         WHERE d.user_id = t.user_id AND d.installation_id = t.installation_id AND d.active)
      ORDER BY synced_at""",
)
_REMINDERS = _delete(
    "messages",
    "id",
    f"""kind = 'reminder' AND created_at < {_AGO} AND NOT EXISTS (SELECT FROM log_items i WHERE i.message_id = t.id)
      ORDER BY created_at, id""",
)
_WORKERS = _delete(
    "workers", "worker_id", f"seen_at < {_AGO} OR seen_at > statement_timestamp() + CAST(:keep AS interval)"
)
_BRAKES = _delete("brakes", "id", f"resumed_at < {_AGO}")
_SPENT_TICKETS = _delete("spent_tickets", "installation_id, digest", f"expires_at < {_AGO}")

# Only from the feed's start, so that nothing after the horizon is missing. It also orders the purge with the numbering.
_EVENTS = text(f"""
    WITH feed AS (
        SELECT id FROM event_feed FOR UPDATE
    ), eldest AS (
        SELECT number, occurred_at AS at FROM events ORDER BY number LIMIT :limit
    ), judged AS (
        SELECT number, {_OLD_AT} AS is_old FROM eldest
    ), gone AS (
        DELETE FROM events AS e
         USING feed
         WHERE e.number <= (SELECT coalesce(min(number) FILTER (WHERE NOT is_old) - 1, max(number)) FROM judged)
        RETURNING e.number
    ), moved AS (
        UPDATE event_feed SET horizon = greatest(horizon, latest.number)
          FROM (SELECT max(number) AS number FROM gone) AS latest
         WHERE latest.number IS NOT NULL
    )
    SELECT number FROM gone
""")  # noqa: S608 -- its part is above

_WEBHOOK_DELIVERIES = _delete(
    "webhook_deliveries", "id", f"created_at < {_AGO} AND state <> 'pending' ORDER BY created_at"
)

_RIPE = text("""
    WITH ripe AS (
        SELECT user_id, horizon
          FROM log_heads
         WHERE oldest_at < statement_timestamp() - CAST(:keep AS interval) - CAST(:lazy AS interval)
         ORDER BY oldest_at
         LIMIT 1
           FOR NO KEY UPDATE SKIP LOCKED
    ), eldest AS (
        SELECT i.seq, m.created_at, m.created_at < statement_timestamp() - CAST(:keep AS interval) AS is_old
          FROM ripe
          JOIN log_items i ON i.user_id = ripe.user_id AND i.seq > ripe.horizon
          JOIN messages m ON m.id = i.message_id
         ORDER BY i.seq
         LIMIT :limit
    )
    SELECT ripe.user_id,
           (SELECT max(seq) FROM eldest WHERE is_old) AS until,
           (SELECT count(*) FROM eldest WHERE is_old) AS gone,
           CASE WHEN (SELECT count(*) FROM eldest WHERE is_old) < :limit
                THEN least((SELECT min(created_at) FROM eldest WHERE NOT is_old), statement_timestamp())
           END AS oldest_at
      FROM ripe
""")

_OLDEST = text("""
    UPDATE log_heads SET oldest_at = coalesce(CAST(:oldest_at AS timestamptz), oldest_at) WHERE user_id = :user_id
""")

_A_DAY_LATER = text("""
    UPDATE log_heads SET oldest_at = statement_timestamp() - CAST(:keep AS interval) WHERE user_id = :user_id
""")

_PURGES: Mapping[RetentionTarget, Callable[[AsyncSession, Keep], Awaitable[Purged]]] = {
    RetentionTarget.PUSH_TASKS: _push_tasks,
    RetentionTarget.TOKEN_EVENTS: lambda db, keep: _batch(db, _TOKEN_EVENTS, keep.finished),
    # streams of API processes that stopped without deregistering
    RetentionTarget.PRESENCES: lambda db, _: _expired(db, Presence.stream_id, Presence.expires_at),
    RetentionTarget.LOG_ITEMS: _log_items,
    RetentionTarget.WITHHELD_PUSHES: lambda db, keep: _batch(db, _WITHHELD, keep.finished),
    RetentionTarget.CONSOLE_SESSIONS: lambda db, _: _expired(db, ConsoleSession.digest, ConsoleSession.expires_at),
    # sign-in codes that were not used in time
    RetentionTarget.CONSOLE_CODES: lambda db, _: _expired(db, ConsoleCode.digest, ConsoleCode.expires_at),
    RetentionTarget.DEVICE_TOKENS: _device_tokens,
    # of installations without an active token that have read nothing for so long
    RetentionTarget.SYNC_POSITIONS: lambda db, keep: _batch(db, _SYNC_POSITIONS, keep.finished),
    # messages of reminders that are in no log
    RetentionTarget.REMINDERS: lambda db, keep: _batch(db, _REMINDERS, max(keep.log, keep.finished)),
    # of workers that stopped without deregistering
    RetentionTarget.WORKERS: lambda db, _: _batch(db, _WORKERS, KEPT),
    # ended cutoffs; the support action of the resume stays
    RetentionTarget.BRAKES: lambda db, keep: _batch(db, _BRAKES, keep.finished),
    # unused links to the preference page, and its expired sessions
    RetentionTarget.PREFERENCE_CODES: lambda db, _: _expired(db, PreferenceCode.digest, PreferenceCode.expires_at),
    RetentionTarget.PREFERENCE_SESSIONS: lambda db, _: _expired(
        db, PreferenceSession.digest, PreferenceSession.expires_at
    ),
    # sign-out tickets that no pending registration can name
    RetentionTarget.SPENT_TICKETS: lambda db, _: _batch(db, _SPENT_TICKETS, _A_WHILE),
    RetentionTarget.EVENTS: _events,
    RetentionTarget.WEBHOOK_DELIVERIES: lambda db, keep: _batch(db, _WEBHOOK_DELIVERIES, keep.events),
}
