"""first tables."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "device_tokens",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("user_id", sa.String(length=200), nullable=False),
        sa.Column("installation_id", sa.Uuid(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("app_id", sa.Text(), nullable=True),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("inactive_reason", sa.Text(), nullable=True),
        sa.Column("registered_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("locale", sa.Text(), nullable=True),
        sa.Column("time_zone", sa.Text(), nullable=True),
        sa.Column("app_version", sa.Text(), nullable=True),
        sa.CheckConstraint("active = (inactive_reason IS NULL)", name=op.f("ck_device_tokens_inactive_has_reason")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_device_tokens")),
    )
    op.create_index("ix_device_tokens_user_id_last_seen_at", "device_tokens", ["user_id", "last_seen_at"], unique=False)
    op.create_index(
        "uq_device_tokens_active_installation",
        "device_tokens",
        ["installation_id"],
        unique=True,
        postgresql_where=sa.text("active"),
    )
    op.create_index(
        "uq_device_tokens_active_token",
        "device_tokens",
        ["provider", sa.literal_column("md5(token)")],
        unique=True,
        postgresql_where=sa.text("active"),
    )
    op.create_index(
        "uq_device_tokens_row",
        "device_tokens",
        ["user_id", "installation_id", "provider", sa.literal_column("md5(token)")],
        unique=True,
    )
    op.create_table(
        "fasting_sessions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.String(length=200), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reminder_minutes", postgresql.ARRAY(sa.Integer(), as_tuple=True), nullable=False),
        sa.Column("scheduled_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_with", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("rev", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "(status = 'active') = (ended_at IS NULL)", name=op.f("ck_fasting_sessions_finished_has_end")
        ),
        sa.CheckConstraint("cardinality(reminder_minutes) <= 5", name=op.f("ck_fasting_sessions_few_reminders")),
        sa.CheckConstraint("ends_at > started_at", name=op.f("ck_fasting_sessions_ends_after_start")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_fasting_sessions")),
    )
    op.create_index(
        "ix_fasting_sessions_user_id_started_at", "fasting_sessions", ["user_id", "started_at", "id"], unique=False
    )
    op.create_table(
        "log_heads",
        sa.Column("user_id", sa.String(length=200), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_log_heads")),
    )
    op.create_table(
        "messages",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("conversation_id", sa.Uuid(), nullable=False),
        sa.Column("reminder_minutes", sa.Integer(), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_messages")),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("subject_kind", sa.Text(), nullable=False),
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    op.create_index("ix_outbox_next_attempt_at", "outbox", ["next_attempt_at"], unique=False)
    op.create_table(
        "preferences",
        sa.Column("user_id", sa.String(length=200), nullable=False),
        sa.Column("reminders", sa.Boolean(), nullable=False),
        sa.Column("reminder_minutes", postgresql.ARRAY(sa.Integer(), as_tuple=True), nullable=False),
        sa.Column("messages", sa.Boolean(), nullable=False),
        sa.Column("reminder_preview", sa.Text(), nullable=False),
        sa.Column("message_preview", sa.Text(), nullable=False),
        sa.Column("quiet_starts", sa.Time(), nullable=True),
        sa.Column("quiet_ends", sa.Time(), nullable=True),
        sa.Column("quiet_time_zone", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "num_nulls(quiet_starts, quiet_ends, quiet_time_zone) IN (0, 3)",
            name=op.f("ck_preferences_quiet_hours_whole"),
        ),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_preferences")),
    )
    op.create_table(
        "device_token_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("device_id", sa.Uuid(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["device_tokens.id"], name=op.f("fk_device_token_events_device_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_device_token_events")),
    )
    op.create_index(op.f("ix_device_token_events_device_id"), "device_token_events", ["device_id"], unique=False)
    op.create_table(
        "log_items",
        sa.Column("user_id", sa.String(length=200), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["message_id"], ["messages.id"], name=op.f("fk_log_items_message_id")),
        sa.PrimaryKeyConstraint("user_id", "seq", name=op.f("pk_log_items")),
        sa.UniqueConstraint("message_id", "user_id", name=op.f("uq_log_items_message_id_user_id")),
    )
    op.create_table(
        "push_tasks",
        sa.Column("task_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("user_id", sa.String(length=200), nullable=False),
        sa.Column("installation_id", sa.Uuid(), nullable=False),
        sa.Column("device_id", sa.Uuid(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("conversation_id", sa.Uuid(), nullable=False),
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.Column("reminder_minutes", sa.Integer(), nullable=True),
        sa.Column("collapse_key", sa.Text(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempt_count", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("last_reason", sa.Text(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("synced_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'accepted') = (accepted_at IS NOT NULL)", name=op.f("ck_push_tasks_accepted_has_time")
        ),
        sa.ForeignKeyConstraint(["device_id"], ["device_tokens.id"], name=op.f("fk_push_tasks_device_id")),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_push_tasks")),
        sa.UniqueConstraint("message_id", "installation_id", name=op.f("uq_push_tasks_message_id_installation_id")),
    )
    op.create_index("ix_push_tasks_conversation_id", "push_tasks", ["conversation_id"], unique=False)
    op.create_index(op.f("ix_push_tasks_user_id"), "push_tasks", ["user_id"], unique=False)
    op.create_table(
        "push_attempts",
        sa.Column("attempt_id", sa.Uuid(), nullable=False),
        sa.Column("task_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("latency_ms", sa.Integer(), nullable=True),
        sa.Column("provider_id", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["task_id"], ["push_tasks.task_id"], name=op.f("fk_push_attempts_task_id")),
        sa.PrimaryKeyConstraint("attempt_id", name=op.f("pk_push_attempts")),
        sa.UniqueConstraint("task_id", "number", name=op.f("uq_push_attempts_task_id_number")),
    )
    op.create_index(
        "ix_push_attempts_under_way",
        "push_attempts",
        ["task_id"],
        unique=True,
        postgresql_where=sa.text("outcome IS NULL"),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_push_attempts_under_way", table_name="push_attempts", postgresql_where=sa.text("outcome IS NULL"))
    op.drop_table("push_attempts")
    op.drop_index(op.f("ix_push_tasks_user_id"), table_name="push_tasks")
    op.drop_index("ix_push_tasks_conversation_id", table_name="push_tasks")
    op.drop_table("push_tasks")
    op.drop_table("log_items")
    op.drop_index(op.f("ix_device_token_events_device_id"), table_name="device_token_events")
    op.drop_table("device_token_events")
    op.drop_table("preferences")
    op.drop_index("ix_outbox_next_attempt_at", table_name="outbox")
    op.drop_table("outbox")
    op.drop_table("messages")
    op.drop_table("log_heads")
    op.drop_index("ix_fasting_sessions_user_id_started_at", table_name="fasting_sessions")
    op.drop_table("fasting_sessions")
    op.drop_index("uq_device_tokens_row", table_name="device_tokens")
    op.drop_index("uq_device_tokens_active_token", table_name="device_tokens", postgresql_where=sa.text("active"))
    op.drop_index(
        "uq_device_tokens_active_installation", table_name="device_tokens", postgresql_where=sa.text("active")
    )
    op.drop_index("ix_device_tokens_user_id_last_seen_at", table_name="device_tokens")
    op.drop_table("device_tokens")
