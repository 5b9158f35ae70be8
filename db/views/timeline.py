"""A person's timeline, derived from the tables that hold the truth, by indexes of the person alone.

One statement finds what happened. What should have happened and did not is computed (`db/views/standings.py`), and so
is what is true now (`db/views/present.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from db import last_check, preferences, push_tasks, token_error_cutoffs
from db.engine import among
from db.models.operations import TokenErrorCutoffRow
from db.models.people import DeviceToken
from db.models.pushes import PushAttempt, PushTask
from db.unreadable import known_or_none, log_unreadable, readable, word
from db.views import devices as device_history
from db.views import standings
from domain.devices import ReportedPermission
from domain.kinds import RULES, Kind, Subject
from domain.mass_failure import Threshold
from domain.push import Provider, TaskState
from domain.reasons import SAYS_GONE, SUSPECTS, TOKEN_ERRORS, UNCALLED
from domain.timeline import Event, Happening, TimelineItem, TimelinePart
from domain.timeline_words import in_words, now_quiet

_REFUSED_ALONE = {TaskState.UNREGISTERED, TaskState.REJECTED}
_CUTOFF_FOLLOWS = Threshold().window  # the errors of a mass come at most so long before the cutoff


async def of_user(
    db: AsyncSession, user_id: str, part: TimelinePart, after: tuple[datetime, UUID] | None, limit: int
) -> list[TimelineItem]:
    """List what happened to a user's pushes, the latest first, below an item's (at, id)."""
    before_at, before_id = after or (part.at_to, None)
    values = {
        "user_id": user_id,
        "session_id": part.session_id,
        "message_ids": _messages_of(part),
        "at_from": part.at_from,
        "at_to": part.at_to,
        "before_at": before_at,
        "before_id": before_id,
        "limit": limit,
    }
    rows = (await db.execute(ITEMS, values)).all()
    quiet = ""
    if any(row.reason == "quiet_hours" for row in rows):
        quiet = now_quiet((await preferences.of_user(db, user_id)).quiet_hours)
    known = await _known(db, rows)
    happened = [_item(row, known, quiet if row.reason == "quiet_hours" else "") for row in rows]
    unopened = [item for item in await standings.of_user(db, user_id, part) if _is_asked_for(item, part, after)]
    return sorted(happened + unopened, key=_place, reverse=True)[:limit]


def _messages_of(part: TimelinePart) -> list[UUID] | None:
    if part.message_ids is not None:
        return list(part.message_ids)
    return None if part.message_id is None else [part.message_id]


@dataclass(frozen=True, slots=True)
class _Known:
    """What sentences about pushes need besides the event."""

    tasks: Mapping[UUID, PushTask]
    refused: Mapping[UUID, str]  # why a dead one cannot be redriven now
    brakes: Sequence[TokenErrorCutoffRow]  # of these days, the latest first
    permissions: Mapping[tuple[str, UUID], ReportedPermission]
    kept: Mapping[UUID, datetime]  # registration of tokens that are active, although a push was refused for them
    calls: Mapping[UUID, tuple[datetime, int]]  # the accepted call: when it began, and its milliseconds


async def _known(db: AsyncSession, rows: Sequence[Row[Any]]) -> _Known:
    task_ids = {row.task_id for row in rows if row.task_id is not None}
    query = select(PushTask).where(among(PushTask.task_id, task_ids)).execution_options(populate_existing=True)
    tasks = {task.task_id: task for task in await db.scalars(query)} if task_ids else {}
    dead = [task for task in tasks.values() if task.state == TaskState.DEAD]
    engaged: list[TokenErrorCutoffRow] = []
    if any(row.reason in _CUT_OFF for row in rows):
        engaged = await token_error_cutoffs.between(db, rows[-1].at, rows[0].at + _CUTOFF_FOLLOWS)
    unopened = {(task.user_id, task.installation_id) for task in tasks.values() if task.opened_at is None}
    permissions = await device_history.permissions(db, unopened)
    refused = {task.device_id for task in tasks.values() if task.state == TaskState.UNREGISTERED}
    kept: dict[UUID, datetime] = {}
    if refused:
        active = select(DeviceToken.id, DeviceToken.registered_at).where(
            among(DeviceToken.id, refused), DeviceToken.active
        )
        kept = {row.id: row.registered_at for row in await db.execute(active)}
    calls = await _accepted_calls(db, [task.task_id for task in tasks.values() if task.state == TaskState.ACCEPTED])
    return _Known(tasks, await last_check.refusals(db, dead), engaged, permissions, kept, calls)


async def _accepted_calls(db: AsyncSession, task_ids: Sequence[UUID]) -> dict[UUID, tuple[datetime, int]]:
    if not task_ids:
        return {}
    query = select(PushAttempt.task_id, PushAttempt.started_at, PushAttempt.latency_ms).where(
        among(PushAttempt.task_id, task_ids), PushAttempt.outcome == "accepted", PushAttempt.latency_ms.is_not(None)
    )
    return {row.task_id: (row.started_at, row.latency_ms) for row in await db.execute(query)}


_CUT_OFF = TOKEN_ERRORS | {"brake_engaged"}


def _in_words(what: Happening) -> str:
    """Put an event into words; as `other` if a newer release recorded it in a way that this one cannot read."""
    try:
        return in_words(what)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        log_unreadable(f"detail of {what.event} in a timeline", "")
        return in_words(replace(what, event=Event.OTHER, detail={}))


def _place(item: TimelineItem) -> tuple[datetime, UUID]:
    return item.at, item.id


def _is_asked_for(item: TimelineItem, part: TimelinePart, after: tuple[datetime, UUID] | None) -> bool:
    """Apply the last conditions of the statement to an item."""
    in_time = (part.at_from is None or item.at >= part.at_from) and (part.at_to is None or item.at < part.at_to)
    return in_time and (after is None or _place(item) < after)


def _item(row: Row[Any], known: _Known, quiet: str) -> TimelineItem:
    kind = None if row.kind is None else word(Kind, row.kind, "push_tasks.kind")
    provider = None if row.provider is None else word(Provider, row.provider, "push_tasks.provider")
    event = word(Event, row.event, "event of a timeline")
    if event is None or (kind, provider) != (row.kind, row.provider):
        event = Event.OTHER
    subject = None if kind is None else RULES[kind].subject
    task = known.tasks.get(row.task_id)
    detail: dict[str, Any] = row.detail if isinstance(row.detail, dict) else {}
    facts = detail if task is None else detail | _more(row, event, task, known)
    happening = Happening(event, kind, provider, row.installation_id, row.reminder_minutes, row.reason, facts, row.now)
    return TimelineItem(
        id=row.id,
        at=row.at,
        event=event,
        text=_in_words(happening) + quiet,
        session_id=row.conversation_id if subject in {None, Subject.SESSION} else None,
        conversation_id=row.conversation_id if subject is Subject.MESSAGE else None,
        message_id=row.message_id,
        task_id=row.task_id,
        installation_id=row.installation_id,
        provider=provider,
        reason=None if event is Event.ATTEMPTED and row.reason not in UNCALLED else row.reason,
        detail=detail if event is not Event.ACCEPTED else detail | _of_acceptance(facts),
    )


def _more(row: Row[Any], event: Event, task: PushTask, known: _Known) -> dict[str, Any]:
    """Give what a sentence about this push needs besides the event."""
    match event:
        case Event.ACCEPTED:
            return _acceptance(task, known)
        case Event.ANSWERED:
            retry_at = _readable(row.detail["retry_at"])
            return {
                "is_tried_again": retry_at is not None
                and task.state == TaskState.PENDING
                and row.now < retry_at < task.expires_at,
                "asked_until": row.detail["retry_at"] if retry_at and retry_at >= task.expires_at else None,
                # a push refused by itself, before the cutoff engaged, stays refused
                "cutoff_at": None if task.state in _REFUSED_ALONE else _cutoff_at(task, row.at, known),
            }
        case Event.UNREGISTERED:
            registered_at = known.kept.get(task.device_id)
            is_kept = registered_at is not None and registered_at <= row.at
            return {"is_kept": is_kept and row.reason in SAYS_GONE, "is_suspect": is_kept and row.reason in SUSPECTS}
        case Event.DEAD:
            more: dict[str, Any] = {"ended_at": row.at.isoformat(), "cutoff_at": _cutoff_at(task, row.at, known)}
            if task.state == TaskState.DEAD and task.settled_at in {None, row.at}:  # else it was redriven since
                more["redrive_refused"] = known.refused.get(task.task_id)
            return more
        case _:
            return {}


def _readable(instant: str | None) -> datetime | None:
    try:
        return None if instant is None else datetime.fromisoformat(instant)
    except ValueError:  # infinity, or a year of five digits
        return None


def _acceptance(task: PushTask, known: _Known) -> dict[str, Any]:
    """Give how late a push was accepted, and the reported permission, unless a tap proves that the phone showed it."""
    assert task.accepted_at is not None
    late_from, again_at = push_tasks.late_from(task), known_or_none(task.again_at)
    reported = None if task.opened_at else known.permissions.get((task.user_id, task.installation_id))
    permission: dict[str, Any] = {}
    if reported is not None:
        permission = {"permission": reported.permission, "permission_told_at": reported.at.isoformat()}
    called_at, took_ms = known.calls.get(task.task_id, (None, None))
    return permission | {
        "called_at": called_at and called_at.isoformat(),
        "took_ms": took_ms,
        "late_seconds": max((task.accepted_at - late_from).total_seconds(), 0.0),
        "late_from": late_from.isoformat(),
        "held_up_by": task.held_up_by,
        "created_at": task.created_at.isoformat(),
        "again_at": again_at and again_at.isoformat(),
        "is_redriven": again_at is not None and late_from == task.due_at,
    }


def _of_acceptance(facts: Mapping[str, Any]) -> dict[str, Any]:
    names = ("late_seconds", "held_up_by", "permission", "permission_told_at")
    return {name: facts[name] for name in names if name in facts}


def _cutoff_at(task: PushTask, at: datetime, known: _Known) -> str | None:
    """Give when the cutoff engaged that an error of that instant belongs to."""
    for brake in known.brakes:
        on_route = (brake.provider, brake.environment) == (task.provider, task.environment)
        ended_at = brake.resumed_at or at
        if on_route and brake.app_id in {task.app_id, None} and brake.engaged_at - _CUTOFF_FOLLOWS <= at <= ended_at:
            return brake.engaged_at.isoformat()
    return None


def _instant(json_text: str) -> str:
    """Read an instant from JSON in SQL: null if it is none, since a failing cast would fail the statement."""
    is_one = (
        r"^[1-9]\d{3}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])[T ]([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?"
        r"(Z|[+-](0\d|1[0-4])(:[0-5]\d)?)$"
    )
    of_month = f"CAST(overlay({json_text} PLACING '01' FROM 9 FOR 2) AS timestamptz)"
    days = f"(CAST(substr({json_text}, 9, 2) AS int) - 1) * interval '1 day'"
    return f"CASE WHEN {json_text} ~ '{is_one}' THEN {of_month} + {days} END"


# What one transaction stored has one instant: then cause before effect. The digit begins the item's id.
_RANK = """CASE WHEN event IN ('rotated', 'transferred', 'signed_out', 'test_push') THEN '0'
                    WHEN event IN ('registered', 'reactivated', 'fast_started') THEN '1'
                    WHEN event IN ('permission_told', 'goal_moved', 'planned') THEN '2'
                    WHEN event = 'attempted' THEN '3' WHEN event = 'answered' THEN '4' ELSE '5' END"""

# Nothing happens to a push before it is planned, so tasks planned after the page are not read. Of the others the latest
# `limit` fill a page, so of older ones only later events can be on it. What was settled before migration 0004 has its
# due instant. OFFSET 0 makes the planner look attempts and actions up by index, task by task: it cannot know how few
# tasks are left.
ITEMS = text(
    f"""
    WITH mine AS MATERIALIZED (
        SELECT t.*, t.state = 'pending' AS waits,
               CASE WHEN t.state NOT IN ('pending', 'accepted')
                    THEN greatest(coalesce(t.settled_at, t.due_at), t.created_at) END AS ended_at
          FROM push_tasks t
         WHERE t.user_id = :user_id
           AND (CAST(:session_id AS uuid) IS NULL OR t.conversation_id = :session_id)
           AND (CAST(:message_ids AS uuid[]) IS NULL OR t.message_id = ANY(:message_ids))
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
               ('planned', t.created_at, NULL,
                jsonb_build_object('due_at', t.due_at, 'expires_at', t.expires_at, 'is_pending', t.waits,
                                   'next_attempt_at', t.next_attempt_at, 'attempts', t.attempt_count)),
               ('accepted', t.accepted_at, t.last_reason, jsonb_build_object('due_at', t.due_at)),
               ('opened', t.opened_at, NULL, '{{}}'),
               ('synced', t.synced_at, NULL, '{{}}'),
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
               ('attempted', a.started_at, a.reason,
                jsonb_build_object('outcome', a.outcome, 'silent_because', a.silent_because)),
               ('answered',
                coalesce({readable("a.started_at")} + coalesce(a.latency_ms, 0) * interval '1 ms', a.started_at),
                a.reason,
                jsonb_build_object('outcome', a.outcome, 'latency_ms', a.latency_ms, 'retry_at', a.retry_at)))
               AS e (event, at, reason, detail)
         WHERE e.event = 'attempted' OR a.outcome IS NOT NULL
         UNION ALL
        SELECT e.at, e.event, a.id::text, a.detail ->> 'reason',
               a.detail || jsonb_build_object('actor', a.actor, 'expires_at', t.expires_at),
               t.kind, t.conversation_id, t.message_id, t.task_id, t.installation_id, t.provider, t.reminder_minutes
          FROM tasks t
         CROSS JOIN LATERAL (SELECT * FROM support_actions WHERE subject_id = t.task_id OFFSET 0) AS a
         CROSS JOIN LATERAL (VALUES ('redriven', a.at), ('dead', {_instant("a.detail ->> 'dead_at'")}))
               AS e (event, at)
         WHERE a.action = 'redrive' AND e.at IS NOT NULL
         UNION ALL
        SELECT a.at, 'test_push', a.id::text, NULL, a.detail || jsonb_build_object('actor', a.actor), 'test',
               t.message_id, t.message_id, NULL, NULL, NULL, NULL
          FROM (SELECT DISTINCT message_id FROM tasks WHERE kind = 'test') t
         CROSS JOIN LATERAL (SELECT * FROM support_actions WHERE subject_id = t.message_id OFFSET 0) AS a
         WHERE a.action = 'test_push'
         UNION ALL
        SELECT w.at, 'withheld', w.id::text, w.reason, '{{}}', w.kind, w.conversation_id, w.message_id, NULL,
               w.installation_id, d.provider, w.reminder_minutes
          FROM withheld_pushes w
          LEFT JOIN LATERAL (SELECT provider FROM device_tokens
                              WHERE user_id = w.user_id AND installation_id = w.installation_id
                              ORDER BY last_seen_at DESC
                              LIMIT 1) AS d ON true
         WHERE w.user_id = :user_id
           AND (CAST(:session_id AS uuid) IS NULL OR w.conversation_id = :session_id)
           AND (CAST(:message_ids AS uuid[]) IS NULL OR w.message_id = ANY(:message_ids))
         UNION ALL
        SELECT e.at, e.event, s.id::text, NULL,
               jsonb_build_object('ends_at', s.ends_at, 'reminder_minutes', s.reminder_minutes,
                                  'first_ends_at', CASE WHEN first.ends_at IS NULL THEN to_jsonb(s.ends_at)
                                                        ELSE s.started_with -> 'ends_at' END,
                                  'first_reminder_minutes', s.started_with -> 'reminder_minutes',
                                  'changes', s.rev - CASE WHEN s.status = 'active' THEN 1 ELSE 2 END,
                                  'scheduled_at', s.scheduled_at, 'late_minutes', s.late_minutes),
               NULL, s.id, NULL, NULL, NULL, NULL, NULL
          FROM fasting_sessions s
         CROSS JOIN LATERAL (SELECT {_instant("s.started_with ->> 'ends_at'")} AS ends_at) AS first
         CROSS JOIN LATERAL (VALUES
               ('fast_started', s.started_at),
               ('goal_moved', CASE WHEN first.ends_at <> s.ends_at THEN s.scheduled_at END),
               ('fast_' || s.status, s.ended_at)) AS e (event, at)
         WHERE s.user_id = :user_id AND e.at IS NOT NULL AND CAST(:message_ids AS uuid[]) IS NULL
           AND (CAST(:session_id AS uuid) IS NULL OR s.id = :session_id)
         UNION ALL
        SELECT e.at, e.event, e.id::text, e.reason, jsonb_build_object('app_id', d.app_id), NULL, NULL, NULL, NULL,
               d.installation_id, d.provider, NULL
          FROM device_tokens d JOIN device_token_events e ON e.device_id = d.id
         WHERE d.user_id = :user_id AND CAST(:message_ids AS uuid[]) IS NULL AND CAST(:session_id AS uuid) IS NULL
    ), named AS (
        SELECT *, CAST({_RANK} || substr(md5(event || '/' || subject), 2) AS uuid) AS id FROM items
    )
    SELECT *, statement_timestamp() AS now FROM named
     WHERE (CAST(:before_at AS timestamptz) IS NULL OR at <= :before_at)
       AND (CAST(:before_at AS timestamptz) IS NULL OR at < :before_at OR id < CAST(:before_id AS uuid))
       AND (CAST(:at_from AS timestamptz) IS NULL OR at >= :at_from)
       AND (CAST(:at_to AS timestamptz) IS NULL OR at < :at_to)
     ORDER BY at DESC, id DESC
     LIMIT :limit
"""  # noqa: S608 -- of this module alone
)
