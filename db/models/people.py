"""The tables. Invariants are constraints first, code second."""

from datetime import datetime, time
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Table(DeclarativeBase):
    """A table; every time is an aware instant, every enum a word."""

    metadata = MetaData(naming_convention=_NAMES)
    type_annotation_map = {  # noqa: RUF012 -- SQLAlchemy's own way of declaring it
        datetime: DateTime(timezone=True),
        str: Text(),
        tuple[int, ...]: ARRAY(Integer, as_tuple=True),
        dict[str, Any]: JSONB(),
    }


class DeviceToken(Table):
    """A provider's address for one app installation of one user; `active` rows are the only ones ever pushed to.

    Indexes hold a token's digest, since a B-tree takes no value as long as a token may be.
    """

    __tablename__ = "device_tokens"
    __table_args__ = (
        Index(
            "uq_device_tokens_active_token",
            "provider",
            text("md5(token)"),
            unique=True,
            postgresql_where=text("active"),
        ),
        Index("uq_device_tokens_active_installation", "installation_id", unique=True, postgresql_where=text("active")),
        Index("uq_device_tokens_row", "user_id", "installation_id", "provider", text("md5(token)"), unique=True),
        Index("ix_device_tokens_user_id_last_seen_at", "user_id", "last_seen_at"),
        Index("ix_device_tokens_inactive", "last_seen_at", postgresql_where=text("NOT active AND token <> ''")),
        Index("ix_device_tokens_active_of_user", "user_id", "last_seen_at", "id", postgresql_where=text("active")),
        CheckConstraint("active = (inactive_reason IS NULL)", name="inactive_has_reason"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    user_id: Mapped[str] = mapped_column(String(200))
    installation_id: Mapped[UUID]
    provider: Mapped[str]
    app_id: Mapped[str | None]
    environment: Mapped[str]
    token: Mapped[str]
    active: Mapped[bool]
    inactive_reason: Mapped[str | None]
    registered_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]
    locale: Mapped[str | None]
    time_zone: Mapped[str | None]
    app_version: Mapped[str | None]
    os_version: Mapped[str | None]
    permission: Mapped[str | None]
    sign_out_digest: Mapped[bytes | None]  # SHA-256 of the ticket that may end this registration
    public_key: Mapped[bytes | None]  # X25519; for apps whose pushes are sealed


class DeviceTokenEvent(Table):
    """What happened to a device token; never updated, never deleted by failures."""

    __tablename__ = "device_token_events"
    __table_args__ = (
        Index("ix_device_token_events_latest", "device_id", "id"),
        Index("ix_device_token_events_taken", "at", "taken_by", postgresql_where=text("taken_by IS NOT NULL")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    device_id: Mapped[UUID] = mapped_column(ForeignKey("device_tokens.id"), index=True)
    event: Mapped[str]  # registered, reactivated, rotated, transferred, signed_out, invalidated, permission_told
    reason: Mapped[str | None]
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    taken_by: Mapped[str | None] = mapped_column(String(200))  # transferred: the other user who has it since


class FastingSessionRow(Table):
    """One fast of one user."""

    __tablename__ = "fasting_sessions"
    __table_args__ = (
        Index("ix_fasting_sessions_user_id_started_at", "user_id", "started_at", "id"),
        Index("ix_fasting_sessions_active", "ends_at", "id", postgresql_where=text("status = 'active'")),
        Index("ix_fasting_sessions_active_of_user", "user_id", "ends_at", postgresql_where=text("status = 'active'")),
        CheckConstraint("ends_at > started_at", name="ends_after_start"),
        CheckConstraint("(status = 'active') = (ended_at IS NULL)", name="finished_has_end"),
        CheckConstraint("cardinality(reminder_minutes) <= 5", name="few_reminders"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(String(200))
    started_at: Mapped[datetime]
    ends_at: Mapped[datetime]
    status: Mapped[str]
    ended_at: Mapped[datetime | None]
    reminder_minutes: Mapped[tuple[int, ...]]
    scheduled_at: Mapped[datetime]
    late_minutes: Mapped[tuple[int, ...]] = mapped_column(server_default=text("'{}'"))
    follows_preferences: Mapped[bool] = mapped_column(server_default=text("false"))  # it has no minutes of its own
    started_with: Mapped[dict[str, Any]]  # the accepted start request, so that its repeat is known as one
    rev: Mapped[int]


class PreferencesRow(Table):
    """A person's notification preferences."""

    __tablename__ = "preferences"
    __table_args__ = (CheckConstraint("num_nulls(quiet_starts, quiet_ends) IN (0, 2)", name="quiet_hours_whole"),)

    user_id: Mapped[str] = mapped_column(String(200), primary_key=True)
    reminders: Mapped[bool]
    reminder_minutes: Mapped[tuple[int, ...]]
    messages: Mapped[bool]
    reminder_preview: Mapped[str]
    message_preview: Mapped[str]
    quiet_starts: Mapped[time | None]
    quiet_ends: Mapped[time | None]
    quiet_time_zone: Mapped[str | None]  # null beside quiet hours: wherever each phone is
    quiet_mode: Mapped[str | None]  # null beside quiet hours: stored by a release that knew only `withhold`
    rev: Mapped[int] = mapped_column(server_default=text("1"))  # grows with each change


class ConversationRow(Table):
    """A thread of messages; its row lock orders those who post to it."""

    __tablename__ = "conversations"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    last_number: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))  # of its latest message
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class Member(Table):
    """Somebody who reads and writes in a conversation."""

    __tablename__ = "members"

    conversation_id: Mapped[UUID] = mapped_column(ForeignKey("conversations.id"), primary_key=True)
    user_id: Mapped[str] = mapped_column(String(200), primary_key=True, index=True)


class MessageAllowance(Table):
    """What a member may still post in a conversation; a row of its own, which no check of a push ever locks."""

    __tablename__ = "message_allowances"
    __table_args__ = (
        ForeignKeyConstraint(
            ["conversation_id", "user_id"], ["members.conversation_id", "members.user_id"], ondelete="CASCADE"
        ),
    )

    conversation_id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(String(200), primary_key=True)
    full_at: Mapped[datetime]  # when all of MESSAGE_BURST is there again, if nothing is posted until then


class Message(Table):
    """A durable item; a reminder that came due is one too. Its id is computed for reminders, so it exists once."""

    __tablename__ = "messages"
    __table_args__ = (
        Index("uq_messages_number", "conversation_id", "number", unique=True, postgresql_where=text("number > 0")),
        Index(
            "ix_messages_not_handed_off",
            "created_at",
            "id",
            postgresql_where=text("kind = 'message' AND handed_off_at IS NULL"),
        ),
        Index("ix_messages_reminders", "created_at", "id", postgresql_where=text("kind = 'reminder'")),
        CheckConstraint("(kind = 'message') = (num_nulls(number, sender_id, body) = 0)", name="posted_by_somebody"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str]
    conversation_id: Mapped[UUID]  # of a reminder: its fasting session's thread, which has the session's id
    number: Mapped[int | None] = mapped_column(BigInteger)  # counts a conversation's messages from 1
    sender_id: Mapped[str | None] = mapped_column(String(200))
    body: Mapped[str | None]
    reminder_minutes: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    handed_off_at: Mapped[datetime | None]  # when it was decided for each phone how it is told


class LogHead(Table):
    """The last sequence number given out in a user's log; its row lock orders the writers of that log."""

    __tablename__ = "log_heads"
    __table_args__ = (Index("ix_log_heads_oldest_at", "oldest_at"),)

    user_id: Mapped[str] = mapped_column(String(200), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger)
    horizon: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))  # items up to here were let go
    oldest_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())  # no item is older


class LogItem(Table):
    """A message's place in a user's log."""

    __tablename__ = "log_items"
    __table_args__ = (UniqueConstraint("message_id", "user_id"),)

    user_id: Mapped[str] = mapped_column(String(200), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    message_id: Mapped[UUID] = mapped_column(ForeignKey("messages.id"))


class SyncPosition(Table):
    """How far an installation has read its user's log."""

    __tablename__ = "sync_positions"
    __table_args__ = (Index("ix_sync_positions_synced_at", "synced_at"),)

    user_id: Mapped[str] = mapped_column(String(200), primary_key=True)
    installation_id: Mapped[UUID] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger)
    settled_seq: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))  # its pushes up to here are settled
    synced_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class Presence(Table):
    """A stream that is open; counts until `expires_at`, which its API process keeps putting off."""

    __tablename__ = "presences"
    __table_args__ = (Index("ix_presences_installation_id", "installation_id"),)

    stream_id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(String(200))
    installation_id: Mapped[UUID]
    connected_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    expires_at: Mapped[datetime]


class PushTask(Table):
    """One message on its way to one device token of one installation."""

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
    again_at: Mapped[datetime | None]  # when it was redriven or revived, or was meant to go out first: late since
    held_up_by: Mapped[str | None]  # the last reason why it was not sent or taken at once; stays once it is accepted
    opened_at: Mapped[datetime | None]
    synced_at: Mapped[datetime | None]
    validate_only: Mapped[bool] = mapped_column(server_default=text("false"))  # FCM is asked, no phone is told


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
    retry_at: Mapped[datetime | None]  # when the next attempt was planned, or as late as the provider asked for it
    silent_because: Mapped[str | None]  # quiet_hours or sounded_lately; null: the phone was to ring


class CollapseGroup(Table):
    """The pushes of messages that share one line on one phone's screen: when it was last pushed to, and last rang."""

    __tablename__ = "collapse_groups"

    installation_id: Mapped[UUID] = mapped_column(primary_key=True)
    collapse_key: Mapped[str] = mapped_column(primary_key=True)
    planned_at: Mapped[datetime | None]  # when its latest push was planned
    burst: Mapped[int] = mapped_column(server_default=text("0"))  # pushes planned, each within a minute of the last
    sounded_at: Mapped[datetime | None]  # when its latest push with a sound was begun, or ended


class WithheldPush(Table):
    """A decision not to push: to any phone of somebody, or to one of them."""

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


class WorkerRow(Table):
    """A worker process that was seen lately, and how its gates stand."""

    __tablename__ = "workers"

    worker_id: Mapped[UUID] = mapped_column(primary_key=True)
    started_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    seen_at: Mapped[datetime]
    gates: Mapped[dict[str, Any]]


class Lease(Table):
    """What one of several processes does at a time: who does until when, and what it found."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[UUID]
    expires_at: Mapped[datetime]
    found: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))


class BrakeRow(Table):
    """A mass of token errors on one route: no token is deactivated and nothing is sent until a person resumes."""

    __tablename__ = "brakes"
    __table_args__ = (
        Index(
            "uq_brakes_engaged",
            "provider",
            text("coalesce(app_id, '')"),
            "environment",
            unique=True,
            postgresql_where=text("resumed_at IS NULL"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    provider: Mapped[str]
    app_id: Mapped[str | None]
    environment: Mapped[str]
    reason: Mapped[str]  # the most frequent one
    token_errors: Mapped[int]
    answers: Mapped[int]
    engaged_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    resumed_at: Mapped[datetime | None]
    resumed_by: Mapped[str | None]


class SupportAction(Table):
    """What a person did to pushes or gates; never updated."""

    __tablename__ = "support_actions"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    actor: Mapped[str] = mapped_column(String(200))
    action: Mapped[str]  # redrive, resume, test_push, sign_in, sign_out
    subject_kind: Mapped[str]  # push_task, brake, test_push, console_session
    subject_id: Mapped[UUID] = mapped_column(index=True)
    detail: Mapped[dict[str, Any]]


class ConsoleSession(Table):
    """Somebody signed in to the console; the cookie's value is known by its digest alone."""

    __tablename__ = "console_sessions"
    __table_args__ = (Index("ix_console_sessions_expires_at", "expires_at"),)

    digest: Mapped[bytes] = mapped_column(primary_key=True)  # SHA-256
    user_id: Mapped[str] = mapped_column(String(200))
    csrf_token: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    expires_at: Mapped[datetime]


class ConsoleCode(Table):
    """A code that signs somebody in to the console, once; known by its digest alone."""

    __tablename__ = "console_codes"
    __table_args__ = (Index("ix_console_codes_expires_at", "expires_at"),)

    digest: Mapped[bytes] = mapped_column(primary_key=True)  # SHA-256
    user_id: Mapped[str] = mapped_column(String(200))
    expires_at: Mapped[datetime]


class SpentTicket(Table):
    """A sign-out ticket that was used; kept for as long as a registration that names it may still be under way."""

    __tablename__ = "spent_tickets"
    __table_args__ = (Index("ix_spent_tickets_expires_at", "expires_at"),)

    installation_id: Mapped[UUID] = mapped_column(primary_key=True)
    digest: Mapped[bytes] = mapped_column(primary_key=True)  # SHA-256
    expires_at: Mapped[datetime]


class PreferenceCode(Table):
    """A link to the preference page, which opens it once; known by its code's digest alone."""

    __tablename__ = "preference_codes"
    __table_args__ = (
        Index("ix_preference_codes_of_user", "user_id", "kind", "created_at"),
        Index("ix_preference_codes_expires_at", "expires_at"),
    )

    digest: Mapped[bytes] = mapped_column(primary_key=True)  # SHA-256
    user_id: Mapped[str] = mapped_column(String(200))
    kind: Mapped[str]  # app, email
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    expires_at: Mapped[datetime]


class PreferenceSession(Table):
    """A browser in which the preference page is open; the cookie's value is known by its digest alone."""

    __tablename__ = "preference_sessions"
    __table_args__ = (
        Index("ix_preference_sessions_of_user", "user_id", "created_at"),
        Index("ix_preference_sessions_expires_at", "expires_at"),
    )

    digest: Mapped[bytes] = mapped_column(primary_key=True)  # SHA-256
    user_id: Mapped[str] = mapped_column(String(200))
    csrf_token: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    expires_at: Mapped[datetime]  # put off by each visit, up to a bound after `created_at`


class OutboxRow(Table):
    """What the database still owes Temporal."""

    __tablename__ = "outbox"
    __table_args__ = (
        Index("ix_outbox_next_attempt_at", "next_attempt_at"),
        Index("ix_outbox_fasts", "needed_at", "id", postgresql_where=text("subject_kind = 'fasting_session'")),
        Index("ix_outbox_others", "needed_at", "id", postgresql_where=text("subject_kind <> 'fasting_session'")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    subject_kind: Mapped[str]
    subject_id: Mapped[UUID]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    next_attempt_at: Mapped[datetime]
    needed_at: Mapped[datetime] = mapped_column(server_default=func.now())  # by when Temporal has to know
    last_error: Mapped[str | None]
    traceparent: Mapped[str | None]  # W3C Trace Context of the request that wrote it
