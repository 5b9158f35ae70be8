"""Deliveries to webhooks: what is to be sent next, what came of it, the log of the last ones, redrives."""

import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, func, insert, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from db import events, webhooks
from db.engine import among, any_of_locked, columns_like, columns_of, once_committed, present_instant
from db.models.events import EventRow, WebhookDelivery, WebhookRow
from domain.events import (
    GONE,
    LOG_KEPT,
    MAX_PENDING,
    TEST_TYPE,
    TRIED_FOR,
    Attempted,
    DeliveryState,
    Outgoing,
    UserEvent,
    Webhook,
    again_after,
    delivery_id,
    rest_after,
)
from telemetry import metrics

NEW_AT_ONCE = 100  # events in one batch
_AGAIN_AT_ONCE = 50  # failed deliveries in one batch
MAX_REDRIVEN = 1000
_DISABLED = "webhook_disabled"  # reasons of dead deliveries, beside those of attempts
_DELETED = "event_deleted"
_TOO_MANY = "too_many_pending"


@dataclass(frozen=True, slots=True)
class SendingBatch:
    """What to send to a webhook next."""

    items: Sequence[Outgoing]
    until: int  # the webhook's position once they are recorded
    has_more: bool


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of a webhook by the attempts that were recorded."""

    is_over: bool = False  # it was deleted or disabled
    rests_for: timedelta | None = None  # None: it goes on


@dataclass(frozen=True, slots=True)
class LoggedDelivery:
    """A delivery as its owner sees it."""

    id: UUID
    event_id: int | None  # None: a test
    type: str
    state: str
    attempts: int
    created_at: datetime
    last_attempt_at: datetime | None
    next_attempt_at: datetime | None
    status: int | None
    reason: str | None
    latency_ms: int | None


async def is_idle(db: AsyncSession, webhook_id: UUID) -> bool:
    """Tell by one statement that there is nothing to number, to send, to try again or to record for a webhook."""
    await db.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
    return bool(await db.scalar(_IS_IDLE, {"id": webhook_id}))


async def next_batch(db: AsyncSession, webhook: Webhook) -> SendingBatch:
    """Read what to send: failed deliveries that are due, and new events. While a webhook rests, one of either kind.

    Deliveries whose day is over become dead, and so do those whose event was deleted.
    """
    await _give_up(db, webhook.id)
    extent = await events.extent(db)
    if webhook.position < extent.horizon:
        await db.execute(_MISSED, {"id": webhook.id, "created_at": webhook.created_at, "horizon": extent.horizon})
    tries_new = not webhook.is_resting or webhook.failures % 2 == 0  # or one bad event would stop all others
    limit = 1 if webhook.is_resting else NEW_AT_ONCE
    page = await events.page_after(db, webhook.position, limit, webhook.types, extent)
    new = [_outgoing(webhook.id, event) for event in page.items if event.occurred_at >= webhook.starts_at]
    again = [] if webhook.is_resting and new and tries_new else await _due(db, webhook)
    if webhook.is_resting and again:
        return SendingBatch(again, webhook.position, has_more=True)
    return SendingBatch([*again, *new], max(page.until, webhook.position), page.has_more or len(again) > 1)


async def note_followed(db: AsyncSession, webhook: Webhook, until: int) -> None:
    """Record that a webhook was followed up to this event, with nothing to send; seldom where it has not moved."""
    await db.execute(_FOLLOWED, {"id": webhook.id, "created_at": webhook.created_at, "until": until})


async def record(
    db: AsyncSession, webhook: Webhook, batch: SendingBatch, results: Sequence[tuple[Outgoing, Attempted]]
) -> Recorded:
    """Record attempts, in the order in which they ended; what was not attempted of the batch waits."""
    held = select(WebhookRow.id).where(WebhookRow.id == webhook.id, WebhookRow.created_at == webhook.created_at)
    if await db.scalar(held.where(WebhookRow.disabled_at.is_(None)).with_for_update()) is None:
        return Recorded(is_over=True)
    now = await present_instant(db)
    tried = {outgoing.delivery_id for outgoing, _ in results}
    rows = [_tried(outgoing, result, now) for outgoing, result in results]
    rows += [_untried(each, now) for each in batch.items if each.delivery_id not in tried and each.gives_up_at is None]
    await db.execute(_STORE, {"webhook_id": webhook.id} | columns_of(rows, *_ROW))
    counts = Counter((row.state if row.state != DeliveryState.PENDING else "failed") for row in rows if row.attempts)
    once_committed(db, lambda: _count(counts))
    oks = [result.reason is None for _, result in results]
    failures = oks[::-1].index(True) if any(oks) else webhook.failures + len(oks)  # bool order: the last acceptance
    state = {"id": webhook.id, "until": batch.until, "failures": failures, "accepted": any(oks), "now": now}
    await db.execute(_PROGRESS, state)
    if any(result.status == 410 for _, result in results):
        await _disable(db, webhook.id)
        return Recorded(is_over=True)
    if any(oks):
        await db.execute(_TRIM, {"webhook_id": webhook.id, "most": LOG_KEPT})
        if webhook.is_resting:  # it is back: what failed need not wait
            waits = (WebhookDelivery.webhook_id == webhook.id, WebhookDelivery.state == DeliveryState.PENDING)
            await db.execute(update(WebhookDelivery).where(*waits).values(next_attempt_at=now))
    await _drop_beyond(db, webhook.id)
    if not (await _is_resting(db, webhook.id)) or not failures:
        return Recorded()
    rests_for = rest_after(failures, random.random(), results[-1][1].retry_after if results else None)  # noqa: S311 -- spreads load
    rests = update(WebhookRow).where(WebhookRow.id == webhook.id).values(rests_until=now + rests_for)
    await db.execute(rests)
    return Recorded(rests_for=rests_for)


async def add_test(db: AsyncSession, webhook_id: UUID) -> UUID:
    """Add a test to send; gives its id."""
    values = {
        "webhook_id": webhook_id,
        "type": TEST_TYPE,
        "state": DeliveryState.PENDING,
        "next_attempt_at": func.clock_timestamp(),
        "gives_up_at": func.clock_timestamp() + TRIED_FOR,
    }
    return (await db.scalars(insert(WebhookDelivery).values(values).returning(WebhookDelivery.id))).one()


async def redrive(db: AsyncSession, webhook_id: UUID, delivery_ids: Collection[UUID] | None = None) -> int:
    """Send dead deliveries again, the oldest first, `MAX_REDRIVEN` at most; returns how many.

    Those whose event was deleted stay dead.
    """
    dead = select(WebhookDelivery.id).where(
        WebhookDelivery.webhook_id == webhook_id,
        WebhookDelivery.state == DeliveryState.DEAD,
        WebhookDelivery.event_number.is_(None)
        | select(EventRow.number).where(EventRow.number == WebhookDelivery.event_number).exists(),
    )
    if delivery_ids is not None:
        dead = dead.where(among(WebhookDelivery.id, delivery_ids))
    some = dead.order_by(WebhookDelivery.created_at, WebhookDelivery.id).limit(MAX_REDRIVEN)
    some = some.with_for_update(of=WebhookDelivery, skip_locked=True)
    query = (
        update(WebhookDelivery)
        .where(any_of_locked(WebhookDelivery.id, some))
        .values(
            state=DeliveryState.PENDING,
            attempts=0,
            next_attempt_at=func.clock_timestamp(),
            gives_up_at=func.clock_timestamp() + TRIED_FOR,
        )
        .returning(WebhookDelivery.id)
    )
    return len((await db.scalars(query)).all())


async def log_of(
    db: AsyncSession, webhook_id: UUID, after: tuple[datetime, UUID] | None, limit: int
) -> list[LoggedDelivery]:
    """List a webhook's deliveries, the latest first."""
    latest_first = (WebhookDelivery.created_at.desc(), WebhookDelivery.id.desc())
    columns = columns_like(LoggedDelivery, WebhookDelivery, event_id=WebhookDelivery.event_number)
    query = select(*columns).where(WebhookDelivery.webhook_id == webhook_id).order_by(*latest_first).limit(limit)
    if after:
        query = query.where(tuple_(WebhookDelivery.created_at, WebhookDelivery.id) < after)
    return [LoggedDelivery(*row) for row in await db.execute(query)]


@dataclass(frozen=True, slots=True)
class _Row:
    id: UUID
    event_number: int | None
    type: str
    state: str
    attempts: int
    next_attempt_at: datetime | None
    gives_up_at: datetime
    last_attempt_at: datetime | None
    status: int | None
    reason: str | None
    latency_ms: int | None


def _tried(outgoing: Outgoing, result: Attempted, now: datetime) -> _Row:
    attempts, gives_up_at = outgoing.attempts + 1, outgoing.gives_up_at or now + TRIED_FOR
    again_at = now + again_after(attempts, random.random(), result.retry_after)  # noqa: S311 -- spreads load
    state = DeliveryState.PENDING
    if result.reason is None:
        state = DeliveryState.ACCEPTED
    elif again_at > gives_up_at or result.status == 410:
        state = DeliveryState.DEAD
    return _Row(
        id=outgoing.delivery_id,
        event_number=outgoing.event_number,
        type=outgoing.type,
        state=state,
        attempts=attempts,
        next_attempt_at=again_at if state is DeliveryState.PENDING else None,
        gives_up_at=gives_up_at,
        last_attempt_at=now,
        status=result.status,
        reason=result.reason,
        latency_ms=result.latency_ms,
    )


def _untried(outgoing: Outgoing, now: datetime) -> _Row:
    what = (outgoing.delivery_id, outgoing.event_number, outgoing.type)
    return _Row(*what, DeliveryState.PENDING, 0, now, now + TRIED_FOR, None, None, None, None)


def _outgoing(webhook_id: UUID, event: UserEvent) -> Outgoing:
    which = delivery_id(webhook_id, event.id)
    return Outgoing(which, event.id, event.type, event.occurred_at, event.data.written(event.user_id))


async def _due(db: AsyncSession, webhook: Webhook) -> list[Outgoing]:
    """Read failed deliveries to try again, those first that wait for longest; if the webhook rests, one."""
    waits = (WebhookDelivery.webhook_id == webhook.id, WebhookDelivery.state == DeliveryState.PENDING)
    query = select(WebhookDelivery).where(*waits)
    if webhook.is_resting:
        query = query.order_by(WebhookDelivery.last_attempt_at.asc().nulls_first(), WebhookDelivery.id).limit(1)
    else:
        query = query.where(WebhookDelivery.next_attempt_at <= func.clock_timestamp())
        query = query.order_by(WebhookDelivery.next_attempt_at).limit(_AGAIN_AT_ONCE)
    rows = (await db.scalars(query)).all()
    found = await events.by_number(db, [row.event_number for row in rows if row.event_number is not None])
    outgoing: list[Outgoing] = []
    for row in rows:
        if row.event_number is None:
            content = row.created_at, {"webhook_id": str(webhook.id), "user_id": None}
        elif row.event_number in found:
            event = found[row.event_number]
            content = event.occurred_at, event.data.written(event.user_id)
        else:
            await _bury(db, WebhookDelivery.id == row.id, _DELETED)
            continue
        outgoing.append(Outgoing(row.id, row.event_number, row.type, *content, row.attempts, row.gives_up_at))
    return outgoing


async def _give_up(db: AsyncSession, webhook_id: UUID) -> None:
    """Let deliveries die whose day is over, whether or not an attempt was possible."""
    await _bury(
        db,
        (WebhookDelivery.webhook_id == webhook_id) & (WebhookDelivery.gives_up_at <= func.clock_timestamp()),
        "not_tried",
    )


async def _drop_beyond(db: AsyncSession, webhook_id: UUID) -> None:
    """Let the oldest die where a receiver refuses so many events that their retries would hold up the others."""
    mine = (WebhookDelivery.webhook_id == webhook_id, WebhookDelivery.state == DeliveryState.PENDING)
    beyond = select(WebhookDelivery.id).where(*mine).order_by(WebhookDelivery.created_at.desc()).offset(MAX_PENDING)
    await _bury(db, WebhookDelivery.id.in_(beyond.scalar_subquery()), _TOO_MANY)


async def _disable(db: AsyncSession, webhook_id: UUID) -> None:
    """Disable a webhook whose receiver is gone; what waited is dead."""
    values = {"disabled_at": func.clock_timestamp(), "disabled_reason": GONE}
    await db.execute(update(WebhookRow).where(WebhookRow.id == webhook_id).values(values))
    await _bury(db, WebhookDelivery.webhook_id == webhook_id, _DISABLED)
    await events.note_webhook_disabled(db, webhook_id, GONE)


async def _bury(db: AsyncSession, which: ColumnElement[bool], reason: str) -> None:
    query = update(WebhookDelivery).where(which, WebhookDelivery.state == DeliveryState.PENDING)
    kept = func.coalesce(WebhookDelivery.reason, reason)
    query = query.values(state=DeliveryState.DEAD, reason=kept, next_attempt_at=None)
    dead = len((await db.scalars(query.returning(WebhookDelivery.id))).all())
    if dead:
        once_committed(db, lambda: _count({"dead": dead}))


async def _is_resting(db: AsyncSession, webhook_id: UUID) -> bool:
    webhook = await webhooks.find(db, webhook_id)
    return webhook is not None and webhook.is_resting


def _count(counts: Mapping[str, int]) -> None:
    for outcome, count in counts.items():
        metrics.webhook_deliveries.labels(outcome).inc(count)


_ROW = tuple(each.name for each in fields(_Row))

# What was accepted, or is dead, stays so: a frozen worker may report late.
_STORE = text("""
    INSERT INTO webhook_deliveries (id, webhook_id, event_number, type, state, attempts, next_attempt_at, gives_up_at,
                                    last_attempt_at, status, reason, latency_ms)
    SELECT id, :webhook_id, event_number, type, state, attempts, next_attempt_at, gives_up_at,
           last_attempt_at, status, reason, latency_ms
      FROM unnest(CAST(:id AS uuid[]), CAST(:event_number AS bigint[]), CAST(:type AS text[]), CAST(:state AS text[]),
                  CAST(:attempts AS int[]), CAST(:next_attempt_at AS timestamptz[]),
                  CAST(:gives_up_at AS timestamptz[]), CAST(:last_attempt_at AS timestamptz[]),
                  CAST(:status AS int[]), CAST(:reason AS text[]), CAST(:latency_ms AS int[]))
           AS new (id, event_number, type, state, attempts, next_attempt_at, gives_up_at, last_attempt_at, status,
                   reason, latency_ms)
        ON CONFLICT (id) DO UPDATE
       SET state = excluded.state, attempts = excluded.attempts, next_attempt_at = excluded.next_attempt_at,
           last_attempt_at = excluded.last_attempt_at, status = excluded.status, reason = excluded.reason,
           latency_ms = excluded.latency_ms
     WHERE webhook_deliveries.state = 'pending'
""")

_PROGRESS = text("""
    UPDATE webhooks
       SET position = greatest(position, CAST(:until AS bigint)), failures = :failures, followed_at = :now,
           rests_until = NULL,
           failing_since = CASE WHEN :failures > 0 THEN
               CASE WHEN :accepted THEN :now ELSE coalesce(failing_since, :now) END END,
           last_accepted_at = CASE WHEN :accepted THEN :now ELSE last_accepted_at END
     WHERE id = :id
""")

_FOLLOWED = text("""
    UPDATE webhooks AS w
       SET position = greatest(w.position, CAST(:until AS bigint)), followed_at = clock_timestamp(), rests_until = NULL
     WHERE w.id = :id AND w.created_at = :created_at
       AND (w.position < CAST(:until AS bigint) OR w.followed_at IS NULL
            OR w.followed_at < clock_timestamp() - interval '30 seconds')
""")

_IS_IDLE = text("""
    SELECT w.disabled_at IS NULL AND w.position = f.head
           AND w.followed_at > clock_timestamp() - interval '30 seconds'
           AND NOT EXISTS (SELECT FROM unnumbered_events)
           AND NOT EXISTS (SELECT FROM webhook_deliveries AS d WHERE d.webhook_id = w.id AND d.state = 'pending')
      FROM webhooks AS w CROSS JOIN event_feed AS f
     WHERE w.id = :id
""")

_MISSED = text("""
    UPDATE webhooks SET missed = missed + CAST(:horizon AS bigint) - position, position = :horizon
     WHERE id = :id AND created_at = :created_at AND position < :horizon
""")

_TRIM = text("""
    DELETE FROM webhook_deliveries
     WHERE webhook_id = :webhook_id AND state = 'accepted'
       AND (created_at, id) <= (SELECT created_at, id FROM webhook_deliveries
                                WHERE webhook_id = :webhook_id ORDER BY created_at DESC, id DESC OFFSET :most LIMIT 1)
""")
