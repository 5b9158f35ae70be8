"""A person's timeline, derived from the tables that hold the truth, by indexes of the person alone.

One statement finds what happened; what ought to have happened and did not is computed (`db/unopened_reminders.py`).
"""

from dataclasses import asdict, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from db import preferences, unopened_reminders
from db.unreadable import tell, word
from domain.kinds import RULES, Kind, Subject
from domain.push import Provider
from domain.quiet_hours import QuietHours
from domain.reasons import UNCALLED
from domain.timeline import Event, Happening, Part, TimelineItem
from domain.timeline_words import in_words, now_quiet


async def of_user(
    db: AsyncSession, user_id: str, part: Part, after: tuple[datetime, UUID] | None, limit: int
) -> list[TimelineItem]:
    """List what happened to somebody's pushes, the latest first, from below an item's (at, id)."""
    before_at, before_id = after or (part.at_to, None)
    values = {"user_id": user_id, "before_at": before_at, "before_id": before_id, "limit": limit}
    rows = (await db.execute(ITEMS, asdict(part) | values)).all()
    quiet = None
    if any(row.reason == "quiet_hours" for row in rows):
        quiet = (await preferences.of_user(db, user_id)).quiet_hours
    happened = [_item(row, quiet if row.reason == "quiet_hours" else None) for row in rows]
    unopened = [
        item for item in await unopened_reminders.of_user(db, user_id, part) if _is_asked_for(item, part, after)
    ]
    return sorted(happened + unopened, key=_place, reverse=True)[:limit]


def _told(what: Happening) -> str:
    """Put it into words; where a newer release wrote what these words need in another way, say so."""
    try:
        return in_words(what)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        tell(f"detail of {what.event} in a timeline", "")
        return in_words(replace(what, event=Event.OTHER))


def _place(item: TimelineItem) -> tuple[datetime, UUID]:
    return item.at, item.id


def _is_asked_for(item: TimelineItem, part: Part, after: tuple[datetime, UUID] | None) -> bool:
    """Tell what the statement tells of its items by its last conditions."""
    in_time = (part.at_from is None or item.at >= part.at_from) and (part.at_to is None or item.at < part.at_to)
    return in_time and (after is None or _place(item) < after)


def _item(row: Row[Any], quiet: QuietHours | None) -> TimelineItem:
    kind = None if row.kind is None else word(Kind, row.kind, "push_tasks.kind")
    provider = None if row.provider is None else word(Provider, row.provider, "push_tasks.provider")
    event = word(Event, row.event, "event of a timeline")
    if event is None or (kind, provider) != (row.kind, row.provider):
        event = Event.OTHER
    subject = None if kind is None else RULES[kind].subject
    reason = None if event is Event.ATTEMPTED and row.reason not in UNCALLED else row.reason
    happening = Happening(event, kind, provider, row.installation_id, row.reminder_minutes, reason, row.detail, row.now)
    return TimelineItem(
        id=row.id,
        at=row.at,
        event=event,
        text=_told(happening) + now_quiet(quiet),
        session_id=row.conversation_id if subject in {None, Subject.SESSION} else None,
        conversation_id=row.conversation_id if subject is Subject.MESSAGE else None,
        message_id=row.message_id,
        task_id=row.task_id,
        installation_id=row.installation_id,
        provider=provider,
        reason=reason,
        detail=row.detail,
    )


# Nothing happens to a push before it is planned, so tasks planned after the page are not looked at. Of those before it,
# the latest `limit` alone fill a page: of older ones only what happened since then can be on it. What was settled
# before that was noted (migration 0004) is told as of its due instant. OFFSET 0 has attempts and actions looked up by
# index, task by task: the planner cannot know how few tasks are left.
ITEMS = text("""
    WITH mine AS MATERIALIZED (
        SELECT t.*, t.state = 'pending' AS waits,
               CASE WHEN t.state NOT IN ('pending', 'accepted')
                    THEN coalesce(t.settled_at, greatest(t.due_at, t.created_at)) END AS ended_at
          FROM push_tasks t
         WHERE t.user_id = :user_id
           AND (CAST(:session_id AS uuid) IS NULL OR t.conversation_id = :session_id)
           AND (CAST(:message_id AS uuid) IS NULL OR t.message_id = :message_id)
           AND (CAST(:before_at AS timestamptz) IS NULL OR t.created_at <= :before_at)
    ), since AS (
        SELECT coalesce(min(created_at), '-infinity') AS at
          FROM (SELECT created_at
                  FROM mine
                 WHERE CAST(:before_at AS timestamptz) IS NULL OR created_at < :before_at
                 ORDER BY created_at DESC
                 LIMIT :limit) AS latest
    ), tasks AS MATERIALIZED (
        SELECT mine.*
          FROM mine, since
         WHERE waits OR greatest(created_at, accepted_at, ended_at, opened_at, synced_at) >= since.at
    ), items AS (
        SELECT e.at, e.event, t.task_id::text AS subject, e.reason, e.detail, t.kind, t.conversation_id, t.message_id,
               t.task_id, t.installation_id, t.provider, t.reminder_minutes
          FROM tasks t
         CROSS JOIN LATERAL (VALUES
               ('planned', t.created_at, CASE WHEN t.waits THEN t.last_reason END,
                jsonb_build_object('due_at', t.due_at, 'expires_at', t.expires_at, 'is_pending', t.waits,
                                   'next_attempt_at', t.next_attempt_at, 'attempts', t.attempt_count)),
               ('accepted', t.accepted_at, t.last_reason, jsonb_build_object('due_at', t.due_at)),
               ('opened', t.opened_at, NULL, '{}'),
               ('synced', t.synced_at, NULL, '{}'),
               (t.state, t.ended_at, t.last_reason,
                jsonb_build_object('attempts', t.attempt_count, 'expires_at', t.expires_at)))
               AS e (event, at, reason, detail)
         WHERE e.at IS NOT NULL
         UNION ALL
        SELECT e.at, e.event, a.attempt_id::text, e.reason, e.detail || jsonb_build_object('attempt', a.number),
               t.kind, t.conversation_id, t.message_id, t.task_id, t.installation_id, t.provider, t.reminder_minutes
          FROM tasks t
         CROSS JOIN LATERAL (SELECT * FROM push_attempts WHERE task_id = t.task_id OFFSET 0) AS a
         CROSS JOIN LATERAL (VALUES
               ('attempted', a.started_at, a.reason, '{}'),
               ('answered', a.started_at + coalesce(a.latency_ms, 0) * interval '1 ms' + interval '1 us', a.reason,
                jsonb_build_object('outcome', a.outcome, 'latency_ms', a.latency_ms, 'retry_at', a.retry_at)))
               AS e (event, at, reason, detail)
         WHERE e.event = 'attempted' OR a.outcome IS NOT NULL
         UNION ALL
        SELECT e.at, e.event, a.id::text, a.detail ->> 'reason',
               a.detail || jsonb_build_object('actor', a.actor, 'expires_at', t.expires_at),
               t.kind, t.conversation_id, t.message_id, t.task_id, t.installation_id, t.provider, t.reminder_minutes
          FROM tasks t
         CROSS JOIN LATERAL (SELECT * FROM support_actions WHERE subject_id = t.task_id OFFSET 0) AS a
         CROSS JOIN LATERAL (VALUES ('redriven', a.at), ('dead', CAST(a.detail ->> 'dead_at' AS timestamptz)))
               AS e (event, at)
         WHERE a.action = 'redrive' AND e.at IS NOT NULL
         UNION ALL
        SELECT a.at, 'test_push', a.id::text, NULL, a.detail || jsonb_build_object('actor', a.actor), 'test',
               t.message_id, t.message_id, NULL, NULL, NULL, NULL
          FROM (SELECT DISTINCT message_id FROM tasks WHERE kind = 'test') t
         CROSS JOIN LATERAL (SELECT * FROM support_actions WHERE subject_id = t.message_id OFFSET 0) AS a
         WHERE a.action = 'test_push'
         UNION ALL
        SELECT w.at, 'withheld', w.id::text, w.reason, '{}', w.kind, w.conversation_id, w.message_id, NULL,
               w.installation_id, d.provider, w.reminder_minutes
          FROM withheld_pushes w
          LEFT JOIN LATERAL (SELECT provider FROM device_tokens
                              WHERE user_id = w.user_id AND installation_id = w.installation_id
                              ORDER BY last_seen_at DESC
                              LIMIT 1) AS d ON true
         WHERE w.user_id = :user_id
           AND (CAST(:session_id AS uuid) IS NULL OR w.conversation_id = :session_id)
           AND (CAST(:message_id AS uuid) IS NULL OR w.message_id = :message_id)
         UNION ALL
        SELECT e.at, e.event, s.id::text, NULL,
               jsonb_build_object('ends_at', s.ends_at, 'reminder_minutes', s.reminder_minutes,
                                  'first_ends_at', coalesce(s.started_with -> 'ends_at', to_jsonb(s.ends_at)),
                                  'first_reminder_minutes', s.started_with -> 'reminder_minutes',
                                  'changes', s.rev - CASE WHEN s.status = 'active' THEN 1 ELSE 2 END,
                                  'scheduled_at', s.scheduled_at, 'late_minutes', s.late_minutes),
               NULL, s.id, NULL, NULL, NULL, NULL, NULL
          FROM fasting_sessions s
         CROSS JOIN LATERAL (VALUES
               ('fast_started', s.started_at),
               ('goal_moved', CASE WHEN CAST(s.started_with ->> 'ends_at' AS timestamptz) <> s.ends_at
                                   THEN s.scheduled_at END),
               ('fast_' || s.status, s.ended_at)) AS e (event, at)
         WHERE s.user_id = :user_id AND e.at IS NOT NULL AND CAST(:message_id AS uuid) IS NULL
           AND (CAST(:session_id AS uuid) IS NULL OR s.id = :session_id)
         UNION ALL
        SELECT e.at, e.event, e.id::text, e.reason, jsonb_build_object('app_id', d.app_id), NULL, NULL, NULL, NULL,
               d.installation_id, d.provider, NULL
          FROM device_tokens d JOIN device_token_events e ON e.device_id = d.id
         WHERE d.user_id = :user_id AND CAST(:message_id AS uuid) IS NULL AND CAST(:session_id AS uuid) IS NULL
    ), named AS (
        SELECT *, CAST(md5(event || '/' || subject) AS uuid) AS id FROM items
    )
    SELECT *, statement_timestamp() AS now FROM named
     WHERE (CAST(:before_at AS timestamptz) IS NULL OR at <= :before_at)
       AND (CAST(:before_at AS timestamptz) IS NULL OR at < :before_at OR id < CAST(:before_id AS uuid))
       AND (CAST(:at_from AS timestamptz) IS NULL OR at >= :at_from)
       AND (CAST(:at_to AS timestamptz) IS NULL OR at < :at_to)
     ORDER BY at DESC, id DESC
     LIMIT :limit
""")
