"""Tables of what people have: phones, fasts, preferences, conversations, messages, logs."""

from datetime import datetime, time
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    String,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from db.models.table import Table


class DeviceToken(Table):
    """A provider's address for one app installation of one user; only `active` rows are pushed to.

    Indexes hold a token's digest, since a token may be too long for a B-tree.
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
        Index("ix_device_tokens_installation_id", "installation_id"),
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
    sequence: Mapped[int | None] = mapped_column(BigInteger)  # of the app; grows among those with the same digest
    public_key: Mapped[bytes | None]  # X25519; for apps whose pushes are sealed


class DeviceTokenEvent(Table):
    """What happened to a device token; never updated."""

    __tablename__ = "device_token_events"
    __table_args__ = (
        Index("ix_device_token_events_latest", "device_id", "id"),
        Index("ix_device_token_events_taken", "at", "taken_by", postgresql_where=text("taken_by IS NOT NULL")),
        Index("ix_device_token_events_taken_by", "taken_by", postgresql_where=text("taken_by IS NOT NULL")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    device_id: Mapped[UUID] = mapped_column(ForeignKey("device_tokens.id"), index=True)
    event: Mapped[str]  # registered, reactivated, rotated, transferred, signed_out, invalidated, permission_told
    reason: Mapped[str | None]
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    taken_by: Mapped[str | None] = mapped_column(String(200))  # transferred: the user who has it now


class SpentTicket(Table):
    """A used sign-out ticket; kept as long as a registration that names it may be pending."""

    __tablename__ = "spent_tickets"
    __table_args__ = (Index("ix_spent_tickets_expires_at", "expires_at"),)

    installation_id: Mapped[UUID] = mapped_column(primary_key=True)
    digest: Mapped[bytes] = mapped_column(primary_key=True)  # SHA-256
    expires_at: Mapped[datetime]


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
    follows_preferences: Mapped[bool] = mapped_column(server_default=text("false"))  # without minutes of its own
    labels: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))  # name -> text, of the app's own texts
    started_with: Mapped[dict[str, Any]]  # the accepted start request, to recognize a repeat
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
    quiet_time_zone: Mapped[str | None]  # null with quiet hours: by each phone's clock
    quiet_mode: Mapped[str | None]  # null with quiet hours: stored by a release with `withhold` only
    rev: Mapped[int] = mapped_column(server_default=text("1"))  # grows with each change


class ConversationRow(Table):
    """A thread of messages; its row lock orders the posts."""

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
    """What a member may still post in a conversation; a row of its own, which no check of a push locks."""

    __tablename__ = "message_allowances"
    __table_args__ = (
        ForeignKeyConstraint(
            ["conversation_id", "user_id"], ["members.conversation_id", "members.user_id"], ondelete="CASCADE"
        ),
    )

    conversation_id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(String(200), primary_key=True)
    full_at: Mapped[datetime]  # when all of MESSAGE_BURST is available again, if nothing is posted until then


class MessageRow(Table):
    """A message, or a reminder that was due. The id of a reminder is computed, so it exists once."""

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
        Index("ix_messages_sender_id", "sender_id", "id", postgresql_where=text("sender_id IS NOT NULL")),
        Index("ix_messages_of_fast", "conversation_id", postgresql_where=text("kind = 'reminder'")),
        CheckConstraint(
            "(kind = 'message' AND number IS NOT NULL AND num_nulls(sender_id, body) IN (0, 2))"
            " OR (kind <> 'message' AND num_nulls(number, sender_id, body) > 0)",
            name="posted_by_somebody",
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str]
    conversation_id: Mapped[UUID]  # of a reminder: its fasting session's thread, which has the session's id
    number: Mapped[int | None] = mapped_column(BigInteger)  # counts a conversation's messages from 1
    sender_id: Mapped[str | None] = mapped_column(String(200))  # null with the body: its sender was erased
    body: Mapped[str | None]
    reminder_minutes: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    handed_off_at: Mapped[datetime | None]  # when its delivery was decided for each phone


class LogHead(Table):
    """The last sequence number of a user's log; its row lock orders the log's writers."""

    __tablename__ = "log_heads"
    __table_args__ = (Index("ix_log_heads_oldest_at", "oldest_at"),)

    user_id: Mapped[str] = mapped_column(String(200), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger)
    horizon: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))  # items up to here were deleted
    oldest_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())  # no item is older


class LogItemRow(Table):
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
    """An open stream; counts until `expires_at`, which its API process keeps extending."""

    __tablename__ = "presences"
    __table_args__ = (Index("ix_presences_installation_id", "installation_id"),)

    stream_id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(String(200))
    installation_id: Mapped[UUID]
    connected_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    expires_at: Mapped[datetime]
