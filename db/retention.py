"""Retention: what was kept long enough goes, in batches that hold nobody up. All by the database's clock."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import TextClause, delete, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from db import log
from db.models import ConsoleCode, ConsoleSession, Presence
from domain.housekeeping import LetGo

_BATCH = 500  # rows
_LOG_BATCH = 1000  # items of one user's log
_A_WHILE = timedelta(hours=1)
_LAZY = timedelta(days=1)  # so that each log is cut at most once a day


async def let_tasks_go(db: AsyncSession, keep: timedelta) -> LetGo:
    """Delete settled push tasks that were due so long ago, with their attempts; never one that may be of use.

    What is known of lines that have not been pushed to for a day goes, too, uncounted.
    """
    lines = len((await db.execute(_COLLAPSE_GROUPS, {"limit": _BATCH})).all())
    gone = await _batch(db, _TASKS, keep)
    return replace(gone, is_all=gone.is_all and lines < _BATCH)


async def let_token_events_go(db: AsyncSession, keep: timedelta) -> LetGo:
    """Delete what happened to device tokens so long ago."""
    return await _batch(db, _TOKEN_EVENTS, keep)


async def let_presences_go(db: AsyncSession) -> LetGo:
    """Delete the streams of API processes that did not say goodbye."""
    return await _expired(db, Presence.stream_id, Presence.expires_at)


async def let_console_sessions_go(db: AsyncSession) -> LetGo:
    """Delete the sessions of the console that ended."""
    return await _expired(db, ConsoleSession.digest, ConsoleSession.expires_at)


async def let_console_codes_go(db: AsyncSession) -> LetGo:
    """Delete the sign-in codes that nobody used in time."""
    return await _expired(db, ConsoleCode.digest, ConsoleCode.expires_at)


async def let_withheld_pushes_go(db: AsyncSession, keep: timedelta) -> LetGo:
    """Delete decisions not to push that were made so long ago."""
    return await _batch(db, _WITHHELD, keep)


async def let_log_items_go(db: AsyncSession, keep: timedelta) -> LetGo:
    """Let go of one user's items so old, where there are some."""
    found = (await db.execute(_RIPE, {"keep": keep, "lazy": _LAZY, "limit": _LOG_BATCH})).one_or_none()
    if found is None:
        return LetGo(0, is_all=True)
    if found.upto is not None:
        await log.let_go(db, found.user_id, upto=found.upto)
    await db.execute(_OLDEST, {"user_id": found.user_id, "oldest_at": found.oldest_at})
    return LetGo(found.gone, is_all=False)


async def _expired(
    db: AsyncSession, key: InstrumentedAttribute[Any], expires_at: InstrumentedAttribute[datetime]
) -> LetGo:
    """Delete what expired a while ago."""
    old = select(key).where(expires_at < func.statement_timestamp() - _A_WHILE).limit(_BATCH)
    gone = delete(key.class_).where(key.in_(old.with_for_update(skip_locked=True).scalar_subquery())).returning(key)
    count = len((await db.scalars(gone, execution_options={"synchronize_session": False})).all())
    return LetGo(count, is_all=count < _BATCH)


async def _batch(db: AsyncSession, statement: TextClause, keep: timedelta) -> LetGo:
    count = len((await db.execute(statement, {"keep": keep, "limit": _BATCH})).all())
    return LetGo(count, is_all=count < _BATCH)


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

_COLLAPSE_GROUPS = text("""
    DELETE FROM collapse_groups g
     USING (SELECT installation_id, collapse_key
              FROM collapse_groups
             WHERE greatest(planned_at, sounded_at) < statement_timestamp() - interval '1 day'
             LIMIT :limit
               FOR UPDATE SKIP LOCKED) AS old
     WHERE g.installation_id = old.installation_id AND g.collapse_key = old.collapse_key
    RETURNING 1
""")

_TOKEN_EVENTS = text("""
    DELETE FROM device_token_events e
     USING (SELECT id, at FROM device_token_events ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED) AS eldest
     WHERE e.id = eldest.id AND eldest.at < statement_timestamp() - CAST(:keep AS interval)
    RETURNING e.id
""")

_WITHHELD = text("""
    DELETE FROM withheld_pushes w
     USING (SELECT id, at FROM withheld_pushes ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED) AS eldest
     WHERE w.id = eldest.id AND eldest.at < statement_timestamp() - CAST(:keep AS interval)
    RETURNING w.id
""")

_RIPE = text("""
    WITH ripe AS (
        SELECT user_id, horizon
          FROM log_heads
         WHERE oldest_at < statement_timestamp() - CAST(:keep AS interval) - CAST(:lazy AS interval)
         ORDER BY oldest_at
         LIMIT 1
    ), eldest AS (
        SELECT i.seq, m.created_at, m.created_at < statement_timestamp() - CAST(:keep AS interval) AS is_old
          FROM ripe
          JOIN log_items i ON i.user_id = ripe.user_id AND i.seq > ripe.horizon
          JOIN messages m ON m.id = i.message_id
         ORDER BY i.seq
         LIMIT :limit
    )
    SELECT ripe.user_id,
           (SELECT max(seq) FROM eldest WHERE is_old) AS upto,
           (SELECT count(*) FROM eldest WHERE is_old) AS gone,
           CASE WHEN (SELECT count(*) FROM eldest WHERE is_old) < :limit
                THEN coalesce((SELECT min(created_at) FROM eldest WHERE NOT is_old), statement_timestamp())
           END AS oldest_at
      FROM ripe
""")

_OLDEST = text("""
    UPDATE log_heads SET oldest_at = coalesce(CAST(:oldest_at AS timestamptz), oldest_at) WHERE user_id = :user_id
""")
