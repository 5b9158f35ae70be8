"""messages."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "conversations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("last_number", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_conversations")),
    )
    op.create_table(
        "members",
        sa.Column("conversation_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.String(length=200), nullable=False),
        sa.ForeignKeyConstraint(["conversation_id"], ["conversations.id"], name=op.f("fk_members_conversation_id")),
        sa.PrimaryKeyConstraint("conversation_id", "user_id", name=op.f("pk_members")),
    )
    op.create_index(op.f("ix_members_user_id"), "members", ["user_id"], unique=False)
    op.add_column("messages", sa.Column("number", sa.BigInteger(), nullable=True))
    op.add_column("messages", sa.Column("sender_id", sa.String(length=200), nullable=True))
    op.add_column("messages", sa.Column("body", sa.Text(), nullable=True))
    op.create_check_constraint(
        op.f("ck_messages_posted_by_somebody"),
        "messages",
        "(kind = 'message') = (num_nulls(number, sender_id, body) = 0)",
    )
    op.create_index(
        "uq_messages_number",
        "messages",
        ["conversation_id", "number"],
        unique=True,
        postgresql_where=sa.text("number > 0"),
    )
    op.add_column("messages", sa.Column("handed_off_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_messages_not_handed_off",
        "messages",
        ["created_at", "id"],
        unique=False,
        postgresql_where=sa.text("kind = 'message' AND handed_off_at IS NULL"),
    )
    op.add_column("log_heads", sa.Column("horizon", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column(
        "log_heads",
        sa.Column("oldest_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
    )
    op.create_index("ix_log_heads_oldest_at", "log_heads", ["oldest_at"], unique=False)
    op.create_table(
        "sync_positions",
        sa.Column("user_id", sa.String(length=200), nullable=False),
        sa.Column("installation_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("synced_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "installation_id", name=op.f("pk_sync_positions")),
    )
    op.create_table(
        "presences",
        sa.Column("stream_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.String(length=200), nullable=False),
        sa.Column("installation_id", sa.Uuid(), nullable=False),
        sa.Column(
            "connected_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("stream_id", name=op.f("pk_presences")),
    )
    op.create_index("ix_presences_installation_id", "presences", ["installation_id"], unique=False)
    op.create_index(
        "ix_push_tasks_line",
        "push_tasks",
        ["installation_id", "collapse_key", "due_at"],
        unique=False,
        postgresql_where=sa.text("synced_at IS NULL"),
    )
    op.create_index("ix_push_tasks_due_at", "push_tasks", ["due_at"], unique=False)
    op.create_index(
        "ix_push_tasks_pending",
        "push_tasks",
        ["due_at", "task_id"],
        unique=False,
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        "ix_fasting_sessions_active",
        "fasting_sessions",
        ["ends_at", "id"],
        unique=False,
        postgresql_where=sa.text("status = 'active'"),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_index(
        "ix_fasting_sessions_active", table_name="fasting_sessions", postgresql_where=sa.text("status = 'active'")
    )
    op.drop_index("ix_push_tasks_pending", table_name="push_tasks", postgresql_where=sa.text("state = 'pending'"))
    op.drop_index("ix_push_tasks_due_at", table_name="push_tasks")
    op.drop_index("ix_push_tasks_line", table_name="push_tasks", postgresql_where=sa.text("synced_at IS NULL"))
    op.drop_index("ix_presences_installation_id", table_name="presences")
    op.drop_table("presences")
    op.drop_table("sync_positions")
    op.drop_index("ix_log_heads_oldest_at", table_name="log_heads")
    for column in ("oldest_at", "horizon"):
        op.drop_column("log_heads", column)
    op.drop_index(
        "ix_messages_not_handed_off",
        table_name="messages",
        postgresql_where=sa.text("kind = 'message' AND handed_off_at IS NULL"),
    )
    op.drop_column("messages", "handed_off_at")
    op.drop_index("uq_messages_number", table_name="messages", postgresql_where=sa.text("number > 0"))
    op.drop_constraint(op.f("ck_messages_posted_by_somebody"), "messages", type_="check")
    for column in ("body", "sender_id", "number"):
        op.drop_column("messages", column)
    op.drop_index(op.f("ix_members_user_id"), table_name="members")
    op.drop_table("members")
    op.drop_table("conversations")
