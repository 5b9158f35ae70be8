"""Tables of events and of the webhooks that they are sent to."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, String, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from db.models.table import Table


class _Happened:
    """The columns of an event, with and without its place in the feed."""

    type: Mapped[str]
    occurred_at: Mapped[datetime]
    user_id: Mapped[str | None] = mapped_column(String(200))
    task_id: Mapped[UUID | None]
    kind: Mapped[str | None]
    session_id: Mapped[UUID | None]
    conversation_id: Mapped[UUID | None]
    message_id: Mapped[UUID | None]
    installation_id: Mapped[UUID | None]
    provider: Mapped[str | None]
    reason: Mapped[str | None]
    due_at: Mapped[datetime | None]
    webhook_id: Mapped[UUID | None]


class UnnumberedEvent(_Happened, Table):
    """An event that has no place in the feed yet; triggers write it in the transaction of the change."""

    __tablename__ = "unnumbered_events"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)


class EventRow(_Happened, Table):
    """An event at its place in the feed, which it got after its transaction had committed."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_user_id_number", "user_id", "number"),)

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)


class EventFeed(Table):
    """The ends of the feed, in one row; its lock orders the numbering."""

    __tablename__ = "event_feed"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    head: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))  # the latest number
    horizon: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))  # events up to here were deleted


class WebhookRow(Table):
    """An address that is sent events. Its secrets are readable here, since each request is signed with them."""

    __tablename__ = "webhooks"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    url: Mapped[str]
    types: Mapped[list[str] | None] = mapped_column(ARRAY(String))  # None: all
    secret: Mapped[str]
    former_secret: Mapped[str | None]  # the latest ones, with blanks between: they sign too, until `former_expires_at`
    former_expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    starts_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())  # earlier events are not sent
    position: Mapped[int] = mapped_column(BigInteger)  # events of the feed up to here are sent, or have a delivery
    failures: Mapped[int] = mapped_column(server_default=text("0"))  # attempts since the last accepted one
    failing_since: Mapped[datetime | None]
    last_accepted_at: Mapped[datetime | None]
    followed_at: Mapped[datetime | None]  # when its workflow last looked at the feed
    rests_until: Mapped[datetime | None]  # when its workflow will look again, after failures
    missed: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))  # events deleted before they were sent
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None]


class WebhookDelivery(Table):
    """One event, or test, on its way to one webhook."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        UniqueConstraint("webhook_id", "event_number"),
        Index("ix_webhook_deliveries_latest", "webhook_id", "created_at", "id"),
        Index(
            "ix_webhook_deliveries_pending", "webhook_id", "next_attempt_at", postgresql_where=text("state = 'pending'")
        ),
        Index("ix_webhook_deliveries_dead", "webhook_id", "created_at", postgresql_where=text("state = 'dead'")),
        Index("ix_webhook_deliveries_created_at", "created_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    webhook_id: Mapped[UUID] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    event_number: Mapped[int | None] = mapped_column(BigInteger)  # None: a test
    type: Mapped[str]
    state: Mapped[str]  # pending, accepted, dead
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    next_attempt_at: Mapped[datetime | None]
    gives_up_at: Mapped[datetime]
    last_attempt_at: Mapped[datetime | None]
    status: Mapped[int | None]  # of the last answer; None: there was none
    reason: Mapped[str | None]
    latency_ms: Mapped[int | None]
