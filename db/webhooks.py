"""Webhooks: stored, changed, rotated, disabled; how each is doing."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import case, delete, func, insert, null, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from db import events, outbox
from db.engine import columns_like, hold_names, present_instant
from db.models.events import EventFeed, WebhookDelivery, WebhookRow
from domain.events import FORMER_KEPT, MAX_WEBHOOKS, OVERLAP, SUSPICIOUS, DeliveryState, Webhook, new_secret
from domain.problems import Conflict, NotFound

OUTBOX_KIND = "webhook"
_LOST_AFTER = text("statement_timestamp() - interval '5 minutes'")  # longer than a batch lasts


@dataclass(frozen=True, slots=True)
class ShownWebhook:
    """A webhook as its owner sees it; the secret only where it was made a moment ago."""

    id: UUID
    url: str
    types: list[str] | None
    state: str  # enabled, failing, disabled
    created_at: datetime
    failing_since: datetime | None
    last_accepted_at: datetime | None
    pending: int  # failed deliveries that are tried again
    dead: int
    behind: int  # events of the feed that were not looked at yet
    missed: int  # events that were deleted before they could be sent
    former_secret_expires_at: datetime | None
    disabled_at: datetime | None
    disabled_reason: str | None
    secret: str | None = None


async def store(db: AsyncSession, webhook_id: UUID, url: str, types: Collection[str] | None) -> tuple[str | None, bool]:
    """Create a webhook that starts now, or change one; a disabled one is enabled again and starts now.

    Returns the secret of a new one, and whether its workflow has to be told. Raises Conflict where there are too many.
    """
    await hold_names(db, ["webhooks"])
    row = await db.get(WebhookRow, webhook_id, with_for_update=True, populate_existing=True)
    wanted = None if types is None else sorted(set(types))
    if row is None:
        if (await db.execute(select(func.count()).select_from(WebhookRow))).scalar_one() >= MAX_WEBHOOKS:
            raise Conflict("too-many-webhooks", f"There may be {MAX_WEBHOOKS} webhooks. Delete one of them first.")
        secret = new_secret()
        head = (await events.extent(db)).head
        values = {"id": webhook_id, "url": url, "types": wanted, "secret": secret, "position": head}
        await db.execute(insert(WebhookRow).values(values))
        return secret, True
    was_disabled = row.disabled_at is not None
    row.url, row.types = url, wanted
    if was_disabled:
        row.disabled_at = row.disabled_reason = row.failing_since = None
        row.failures, row.position = 0, (await events.extent(db)).head
        row.starts_at = await db.scalar(select(func.clock_timestamp()))  # type: ignore[assignment] # never null
    await db.flush()
    return None, was_disabled


async def remove(db: AsyncSession, webhook_id: UUID) -> bool:
    """Delete a webhook and its deliveries; tells whether there was one."""
    query = delete(WebhookRow).where(WebhookRow.id == webhook_id).returning(WebhookRow.id)
    return await db.scalar(query) is not None


async def rotate_secret(db: AsyncSession, webhook_id: UUID) -> str:
    """Give it another secret; the former ones sign too for a while. Raises NotFound."""
    row = await db.get(WebhookRow, webhook_id, with_for_update=True, populate_existing=True)
    if row is None:
        raise NotFound("webhook")
    now = await present_instant(db)
    signing = (row.former_secret or "").split() if (row.former_expires_at or now) > now else []
    row.former_secret, row.former_expires_at = " ".join([row.secret, *signing][:FORMER_KEPT]), now + OVERLAP
    row.secret = new_secret()
    await db.flush()
    return row.secret


async def shown(db: AsyncSession, webhook_id: UUID | None = None) -> list[ShownWebhook]:
    """Show webhooks, the newest first."""
    counted = {
        state: select(func.count())
        .where(WebhookDelivery.webhook_id == WebhookRow.id, WebhookDelivery.state == state)
        .scalar_subquery()
        for state in (DeliveryState.PENDING, DeliveryState.DEAD)
    }
    former = WebhookRow.former_expires_at
    disabled, failing = WebhookRow.disabled_at.is_not(None), WebhookRow.failing_since.is_not(None)
    columns = columns_like(
        ShownWebhook,
        WebhookRow,
        state=case((disabled, "disabled"), (failing, "failing"), else_="enabled"),
        pending=counted[DeliveryState.PENDING],
        dead=counted[DeliveryState.DEAD],
        behind=func.greatest(EventFeed.head - WebhookRow.position, 0),
        former_secret_expires_at=case((former > func.statement_timestamp(), former)),
        secret=null(),
    )
    query = select(*columns).join(EventFeed, EventFeed.id == 1)
    if webhook_id is not None:
        query = query.where(WebhookRow.id == webhook_id)
    rows = await db.execute(query.order_by(WebhookRow.created_at.desc(), WebhookRow.id.desc()))
    return [ShownWebhook(*row) for row in rows]


async def one(db: AsyncSession, webhook_id: UUID) -> ShownWebhook:
    """Show one webhook; raises NotFound."""
    rows = await shown(db, webhook_id)
    if not rows:
        raise NotFound("webhook")
    return rows[0]


async def find(db: AsyncSession, webhook_id: UUID) -> Webhook | None:
    """Read a webhook to send to; None if there is none, or it is disabled."""
    row = (await db.execute(_FIND, {"id": webhook_id, "most": SUSPICIOUS})).one_or_none()
    if row is None:
        return None
    return Webhook(row.id, row.url, None if row.types is None else frozenset(row.types), *row[3:])


async def exists(db: AsyncSession, webhook_id: UUID) -> bool:
    """Say whether there is such a webhook that is not disabled."""
    query = select(WebhookRow.id).where(WebhookRow.id == webhook_id, WebhookRow.disabled_at.is_(None))
    return await db.scalar(query) is not None


async def enabled(db: AsyncSession) -> Sequence[UUID]:
    """List the webhooks that are not disabled."""
    return (await db.scalars(select(WebhookRow.id).where(WebhookRow.disabled_at.is_(None)))).all()


async def notify(db: AsyncSession, webhook_id: UUID) -> outbox.OutboxEntry:
    """Have the workflow of a webhook started, or told to look again."""
    return await outbox.add(db, OUTBOX_KIND, webhook_id)


async def unfollowed(db: AsyncSession) -> Sequence[UUID]:
    """List the webhooks that no workflow has followed lately."""
    query = select(WebhookRow.id).where(
        WebhookRow.disabled_at.is_(None),
        func.greatest(WebhookRow.rests_until, WebhookRow.followed_at, WebhookRow.starts_at) < _LOST_AFTER,
    )
    return (await db.scalars(query.order_by(WebhookRow.id))).all()


_FIND = text("""
    SELECT w.id, w.url, w.types, w.secret,
           CASE WHEN w.former_expires_at > statement_timestamp() THEN w.former_secret END AS former_secret,
           w.created_at, w.starts_at, w.position, w.failures,
           (SELECT count(*)
              FROM (SELECT FROM webhook_deliveries AS d
                     WHERE d.webhook_id = w.id AND d.state = 'pending' AND d.attempts > 0
                       AND d.last_attempt_at > coalesce(w.last_accepted_at, '-infinity')
                     LIMIT :most) AS failed) AS suspects
      FROM webhooks AS w
     WHERE w.id = :id AND w.disabled_at IS NULL
""")
