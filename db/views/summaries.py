"""A person's reminders and messages, one line each, from the tables that the timeline reads.

All statements have to read one moment: call `engine.as_of_one_moment` first. The person's own rows are read by the
index of their user id, so a message with many other recipients costs nothing more.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from db import fasting_sessions
from db.engine import present_instant
from db.unreadable import readable, word
from db.views import standings, timeline
from db.views.standings import ReminderStanding
from domain import summaries
from domain.fasts import (
    AFTER_THE_END,
    LEAST_KEPT,
    LONGEST_USEFUL,
    FastingSession,
    ReminderState,
    SessionStatus,
    reminders,
)
from domain.kinds import Kind
from domain.messages import LONGEST_GRACE
from domain.push import Provider, TaskState
from domain.reasons import SUSPECTS, why
from domain.summaries import MessageSummary, SettledPushes, SummaryState, TokenSince, WithheldReason
from domain.timeline import TimelineItem, TimelinePart

_ITEMS_EACH = 30  # of the timeline, under one line
_MOST_FASTS = 200  # whose reminders had no push
_MOST_ITEMS = 600  # under all lines of a page

Present = Mapping[UUID, Sequence[TimelineItem]]


async def unsettled(db: AsyncSession, user_id: str, now: Sequence[TimelineItem]) -> list[MessageSummary]:
    """Give the lines of what `present.of_user` lists, in its order: the longest due first."""
    by_message = _by_message(now)
    if not by_message:
        return []
    wanted = _Wanted(None, len(by_message), only=list(by_message))
    found = await _lines(db, user_id, wanted, by_message)
    known = {line.message_id: line for line in found}
    return [known.get(message_id) or _only_present(items) for message_id, items in by_message.items()]


async def of_user(
    db: AsyncSession,
    user_id: str,
    part: TimelinePart,
    now: Sequence[TimelineItem],
    after: tuple[datetime, UUID] | None,
    limit: int,
) -> list[MessageSummary]:
    """List the other reminders and messages of a user, the latest due first, below a line's (at, message_id).

    Reminders that never had a push are listed for two days: until then it is certain why.
    """
    by_message = _by_message(now)
    only = None if part.message_id is None else [part.message_id]
    lines = await _lines(db, user_id, _Wanted(part.session_id, limit, only, list(by_message), after), by_message)
    listed = {line.message_id for line in lines} | set(by_message)
    lines += [line for line in await _unplanned(db, user_id, part, after) if line.message_id not in listed]
    return sorted(lines, key=lambda line: (line.at, line.message_id), reverse=True)[:limit]


async def with_timelines(
    db: AsyncSession, user_id: str, lines: Sequence[MessageSummary], now: Sequence[TimelineItem]
) -> list[MessageSummary]:
    """Put under each line what its pushes wait for, and what happened to them."""
    if not lines:
        return []
    waiting = _by_message(now)
    part = TimelinePart(message_ids=tuple(line.message_id for line in lines))
    items: dict[UUID, list[TimelineItem]] = defaultdict(list)
    for item in await timeline.of_user(db, user_id, part, None, _MOST_ITEMS):
        if item.message_id is not None:
            items[item.message_id].append(item)
    return [
        replace(
            line,
            happened=[*waiting.get(line.message_id, ()), *items[line.message_id][:_ITEMS_EACH]],
            has_more=len(items[line.message_id]) > _ITEMS_EACH or sum(map(len, items.values())) == _MOST_ITEMS,
        )
        for line in lines
    ]


def _by_message(items: Sequence[TimelineItem]) -> dict[UUID, list[TimelineItem]]:
    found: dict[UUID, list[TimelineItem]] = {}
    for item in items:
        if item.message_id is not None:
            found.setdefault(item.message_id, []).append(item)
    return found


def _only_present(items: Sequence[TimelineItem]) -> MessageSummary:
    """Give the line of a message without any push task: it is ahead, or was not processed yet. Its text says which."""
    first = items[0]
    conversation_id = first.session_id or first.conversation_id or first.message_id
    assert conversation_id is not None
    assert first.message_id is not None
    return MessageSummary(
        message_id=first.message_id,
        at=datetime.fromisoformat(first.detail["due_at"]),
        kind=Kind.REMINDER if first.session_id else Kind.MESSAGE,
        conversation_id=conversation_id,
        reminder_minutes=None,
        state=summaries.state_of(items, (), is_withheld=False),
        text=summaries.in_words(items, (), ()),
    )


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which messages to read: `only` some, or all but others."""

    session_id: UUID | None
    limit: int
    only: Sequence[UUID] | None = None
    but: Sequence[UUID] = ()
    after: tuple[datetime, UUID] | None = None


async def _lines(db: AsyncSession, user_id: str, wanted: _Wanted, present: Present) -> list[MessageSummary]:
    """Read messages that have push tasks, or decisions not to push."""
    at, message_id = wanted.after or (None, None)
    values = {
        "user_id": user_id,
        "session_id": wanted.session_id,
        "only": None if wanted.only is None else list(wanted.only),
        "but": list(wanted.but),
        "spoken_of": [item.task_id for items in present.values() for item in items if item.task_id],
        "before_at": at,
        "before_id": message_id,
        "limit": wanted.limit,
        "grace": LONGEST_GRACE,
    }
    groups: dict[UUID, list[Row[Any]]] = {}
    for row in await db.execute(LINES, values):
        groups.setdefault(row.message_id, []).append(row)
    return [_line(message_id, rows, present.get(message_id, ())) for message_id, rows in groups.items()]


def _line(message_id: UUID, rows: Sequence[Row[Any]], now: Sequence[TimelineItem]) -> MessageSummary:
    settled = [group for row in rows if row.state is not None and (group := _settled(row)) is not None]
    withheld = [WithheldReason(row.withheld, row.phones or None) for row in rows if row.withheld is not None]
    first = rows[0]
    return MessageSummary(
        message_id=message_id,
        at=first.at,
        kind=word(Kind, first.kind, "push_tasks.kind"),
        conversation_id=first.conversation_id,
        reminder_minutes=first.reminder_minutes,
        state=summaries.state_of(now, settled, is_withheld=bool(withheld)),
        text=summaries.in_words(now, settled, withheld),
    )


def _settled(row: Row[Any]) -> SettledPushes | None:
    state = word(TaskState, row.state, "push_tasks.state")
    if state is None:
        return None
    return SettledPushes(
        state=state,
        provider=word(Provider, row.provider, "push_tasks.provider"),
        reason=row.reason,
        phones=row.phones,
        first_at=row.first_at,
        last_at=row.last_at,
        late=None if row.late is None or row.kind == Kind.TEST else max(row.late, timedelta()),
        opened=row.opened,
        synced=row.synced,
        token=None if row.token is None else TokenSince(row.token),
    )


async def _unplanned(
    db: AsyncSession, user_id: str, part: TimelinePart, after: tuple[datetime, UUID] | None
) -> list[MessageSummary]:
    """Give the lines of reminders without a push: skipped, unprocessed, or of a fast that had ended."""
    now = await present_instant(db)
    around = await fasting_sessions.ending(db, user_id, now - LEAST_KEPT - AFTER_THE_END, now + LONGEST_USEFUL)
    around = [each for each in around if part.session_id in {None, each.session_id}]
    if after is not None:
        around = [each for each in around if any(reminder.due_at <= after[0] for reminder in reminders(each))]
    latest = sorted(around, key=lambda each: (each.ends_at, each.session_id), reverse=True)[:_MOST_FASTS]
    wanted = {each.session_id: each for each in latest}
    if not wanted:
        return []
    found = []
    for session_id, of_one in (await standings.of_sessions(db, list(wanted.values()))).items():
        for each in of_one:
            is_asked_for = part.message_id in {None, each.message_id}
            below = after is None or (each.reminder.due_at, each.message_id) < after
            unplanned = _why_unplanned(wanted[session_id], each)
            if is_asked_for and below and unplanned is not None:
                found.append(_of_standing(each, *unplanned))
    return found


def _why_unplanned(session: FastingSession, standing: ReminderStanding) -> tuple[SummaryState, str] | None:
    if standing.record.tasks or standing.record.withheld:
        return None
    if standing.state is ReminderState.SKIPPED:
        return SummaryState.SKIPPED, summaries.SKIPPED
    if standings.is_unopened(standing):
        return SummaryState.UNOPENED, standings.unopened_item(standing).text
    if standing.state is not ReminderState.WITHDRAWN or session.ended_at is None:
        return None
    if session.ended_at > standing.reminder.due_at:
        return SummaryState.WITHDRAWN, summaries.ENDED_UNPROCESSED
    ended = "session_cancelled" if session.status is SessionStatus.CANCELLED else "session_ended"
    return SummaryState.WITHDRAWN, summaries.ENDED_BEFORE.format(why=why(ended))


def _of_standing(standing: ReminderStanding, state: SummaryState, text: str) -> MessageSummary:
    return MessageSummary(
        message_id=standing.message_id,
        at=standing.reminder.due_at,
        kind=Kind.REMINDER,
        conversation_id=standing.session_id,
        reminder_minutes=standing.reminder.minutes,
        state=state,
        text=text,
    )


_SUSPECTS = "{" + ",".join(sorted(SUSPECTS)) + "}"

# One row for each group of a message's pushes, and one for each reason for which others were withheld. A phone that
# has a push task is not counted as withheld: a push that it missed was revived when the phone registered again. A
# decision about all phones is told only where no push was planned.
LINES = text(
    f"""
    WITH mine AS MATERIALIZED (
        SELECT t.*, CASE WHEN kind = 'message' AND {readable("again_at")} - {readable("due_at")} <= :grace
                         THEN again_at ELSE {readable("due_at")} END AS late_from
          FROM push_tasks t
         WHERE t.user_id = :user_id
           AND (CAST(:session_id AS uuid) IS NULL OR t.conversation_id = :session_id)
           AND (CAST(:only AS uuid[]) IS NULL OR t.message_id = ANY(:only))
           AND t.message_id <> ALL(CAST(:but AS uuid[]))
    ), held AS MATERIALIZED (
        SELECT w.*
          FROM withheld_pushes w
         WHERE w.user_id = :user_id
           AND (CAST(:session_id AS uuid) IS NULL OR w.conversation_id = :session_id)
           AND (CAST(:only AS uuid[]) IS NULL OR w.message_id = ANY(:only))
           AND w.message_id <> ALL(CAST(:but AS uuid[]))
    ), page AS MATERIALIZED (
        SELECT message_id, kind, conversation_id, reminder_minutes, min(at) AS at
          FROM (SELECT message_id, kind, conversation_id, reminder_minutes, due_at AS at FROM mine
                 UNION ALL
                SELECT message_id, kind, conversation_id, reminder_minutes, at FROM held) AS each
         GROUP BY message_id, kind, conversation_id, reminder_minutes
        HAVING CAST(:before_at AS timestamptz) IS NULL
            OR (min(at), message_id) < (CAST(:before_at AS timestamptz), CAST(:before_id AS uuid))
         ORDER BY min(at) DESC, message_id DESC
         LIMIT :limit
    ), shown AS MATERIALIZED (
        SELECT m.* FROM mine m JOIN page p ON p.message_id = m.message_id
    )
    SELECT p.*, g.*
      FROM page p
      LEFT JOIN (
        SELECT message_id AS of_message, state, provider,
               CASE WHEN state <> 'accepted' OR last_reason = 'validated' THEN last_reason END AS reason,
               CAST(NULL AS text) AS withheld, count(*) AS phones, min(accepted_at) AS first_at,
               max(accepted_at) AS last_at, max({readable("accepted_at")} - late_from) AS late,
               count(opened_at) AS opened,
               count(*) FILTER (WHERE synced_at IS NOT NULL AND state = 'accepted') AS synced, token
          FROM shown
          LEFT JOIN LATERAL (
            SELECT CASE WHEN NOT d.active THEN 'invalidated'
                        WHEN shown.last_reason = ANY(CAST('{_SUSPECTS}' AS text[])) AND d.id = shown.device_id
                             AND d.registered_at <= shown.settled_at THEN 'suspected'
                        ELSE 'active' END AS token
              FROM device_tokens d
             WHERE shown.state = 'unregistered' AND d.user_id = :user_id AND d.installation_id = shown.installation_id
               AND (d.active OR d.inactive_reason = 'invalidated')
             ORDER BY d.active DESC
             LIMIT 1
          ) AS since ON true
         WHERE task_id <> ALL(CAST(:spoken_of AS uuid[]))
         GROUP BY 1, 2, 3, 4, token
         UNION ALL
        SELECT h.message_id, NULL, NULL, NULL, h.reason, count(h.installation_id), NULL, NULL, NULL, 0, 0, NULL
          FROM held h JOIN page ON page.message_id = h.message_id
         WHERE NOT EXISTS (SELECT FROM shown t
                            WHERE t.message_id = h.message_id
                              AND t.installation_id = coalesce(h.installation_id, t.installation_id))
         GROUP BY h.message_id, h.reason
      ) AS g ON g.of_message = p.message_id
     ORDER BY p.at DESC, p.message_id DESC, g.state, g.phones DESC, g.provider, g.reason, g.withheld
"""  # noqa: S608 -- of `readable` alone
)
