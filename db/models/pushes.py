"""Tables of pushes: tasks, attempts, collapse groups, withheld pushes, and the outbox."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, String, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from db.models.table import Table


class PushTask(Table):
    """One message for one device token of one installation."""

    __tablename__ = "push_tasks"
    __table_args__ = (
        UniqueConstraint("message_id", "installation_id"),
        Index("ix_push_tasks_conversation_id", "conversation_id"),
        Index("ix_push_tasks_device_id", "device_id"),
        Index(
            "ix_push_tasks_line_settled",
            "installation_id",
            "collapse_key",
            "settled_at",
            postgresql_where=text("synced_at IS NULL"),
        ),
        Index(
            "ix_push_tasks_line_accepted",
            "installation_id",
            "collapse_key",
            "due_at",
            postgresql_where=text("state = 'accepted' AND synced_at IS NULL"),
        ),
        Index(
            "ix_push_tasks_line_waiting",
            "installation_id",
            "collapse_key",
            "due_at",
            postgresql_where=text("state = 'pending'"),
        ),
        Index(
            "ix_push_tasks_missed",
            "installation_id",
            postgresql_where=text(
                "synced_at IS NULL AND (state = 'unregistered'"
                " OR state = 'withdrawn' AND last_reason IN ('no_active_token', 'token_changed'))"
            ),
        ),
        Index("ix_push_tasks_dead", "due_at", "task_id", postgresql_where=text("state = 'dead'")),
        Index("ix_push_tasks_pending", "due_at", "task_id", postgresql_where=text("state = 'pending'")),
        Index("ix_push_tasks_rejected", "due_at", postgresql_where=text("state = 'rejected'")),
        Index("ix_push_tasks_due_at", "due_at"),
        CheckConstraint("(state = 'accepted') = (accepted_at IS NOT NULL)", name="accepted_has_time"),
    )

    task_id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str]
    user_id: Mapped[str] = mapped_column(String(200), index=True)
    installation_id: Mapped[UUID]
    device_id: Mapped[UUID] = mapped_column(ForeignKey("device_tokens.id"))  # the notification token, by reference
    provider: Mapped[str]
    app_id: Mapped[str | None]
    environment: Mapped[str]
    conversation_id: Mapped[UUID]
    message_id: Mapped[UUID]
    reminder_minutes: Mapped[int | None]
    collapse_key: Mapped[str]
    due_at: Mapped[datetime]
    attempt_count: Mapped[int]
    next_attempt_at: Mapped[datetime | None]
    state: Mapped[str]
    last_reason: Mapped[str | None]
    expires_at: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    accepted_at: Mapped[datetime | None]
    settled_at: Mapped[datetime | None]  # when its state became final
    again_at: Mapped[datetime | None]  # when it was redriven or revived, or meant to go out first: late since then
    held_up_by: Mapped[str | None]  # the last reason why it was not accepted at once; stays after acceptance
    held_by: Mapped[UUID | None]  # the worker in which it waits; null once it is claimed. Unindexed: an update in place
    opened_at: Mapped[datetime | None]
    synced_at: Mapped[datetime | None]
    validate_only: Mapped[bool] = mapped_column(server_default=text("false"))  # FCM checks it, no phone shows it


class PushAttempt(Table):
    """One provider call for a push task; `outcome` is null while it is under way."""

    __tablename__ = "push_attempts"
    __table_args__ = (
        UniqueConstraint("task_id", "number"),
        Index("ix_push_attempts_under_way", "task_id", unique=True, postgresql_where=text("outcome IS NULL")),
    )

    attempt_id: Mapped[UUID] = mapped_column(primary_key=True)  # APNs knows it as apns-id
    task_id: Mapped[UUID] = mapped_column(ForeignKey("push_tasks.task_id"))
    number: Mapped[int]
    started_at: Mapped[datetime]
    outcome: Mapped[str | None]  # accepted, rejected, unregistered, throttled, unavailable, misconfigured, unknown
    reason: Mapped[str | None]
    latency_ms: Mapped[int | None]
    provider_id: Mapped[str | None]
    retry_at: Mapped[datetime | None]  # the planned next attempt, or the end of the wait that the provider asked for
    silent_because: Mapped[str | None]  # quiet_hours or sounded_lately; null: with a sound


class CollapseGroup(Table):
    """The pushes of one conversation to one phone, which replace each other on its screen."""

    __tablename__ = "collapse_groups"

    installation_id: Mapped[UUID] = mapped_column(primary_key=True)
    collapse_key: Mapped[str] = mapped_column(primary_key=True)
    planned_at: Mapped[datetime | None]  # when its latest push was planned
    burst: Mapped[int] = mapped_column(server_default=text("0"))  # pushes planned, each within a minute of the last
    sounded_at: Mapped[datetime | None]  # when its latest push with a sound was begun, or ended


class WithheldPush(Table):
    """A decision not to push: to any phone of a user, or to one of them."""

    __tablename__ = "withheld_pushes"
    __table_args__ = (
        Index("ix_withheld_pushes_user_id_at", "user_id", "at"),
        UniqueConstraint(
            "message_id",
            "user_id",
            "installation_id",
            "reason",
            name="uq_withheld_pushes_decision",
            postgresql_nulls_not_distinct=True,
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    user_id: Mapped[str] = mapped_column(String(200))
    installation_id: Mapped[UUID | None]  # None: all of them
    kind: Mapped[str]
    conversation_id: Mapped[UUID]
    message_id: Mapped[UUID]
    reminder_minutes: Mapped[int | None]
    reason: Mapped[str]


class OutboxRow(Table):
    """A dispatch to Temporal that is still to be made."""

    __tablename__ = "outbox"
    __table_args__ = (
        Index("ix_outbox_next_attempt_at", "next_attempt_at"),
        Index("ix_outbox_subject_id", "subject_id"),
        Index("ix_outbox_fasts", "needed_at", "id", postgresql_where=text("subject_kind = 'fasting_session'")),
        Index("ix_outbox_others", "needed_at", "id", postgresql_where=text("subject_kind <> 'fasting_session'")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    subject_kind: Mapped[str]
    subject_id: Mapped[UUID]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    next_attempt_at: Mapped[datetime]
    needed_at: Mapped[datetime] = mapped_column(server_default=func.now())  # when Temporal has to know
    last_error: Mapped[str | None]
    traceparent: Mapped[str | None]  # W3C Trace Context of the request that wrote it
