"""operations."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("outbox", sa.Column("traceparent", sa.Text(), nullable=True))
    op.add_column("push_attempts", sa.Column("retry_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("push_tasks", sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column(
        "push_tasks", sa.Column("validate_only", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )
    op.create_table(
        "withheld_pushes",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("user_id", sa.String(length=200), nullable=False),
        sa.Column("installation_id", sa.Uuid(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("conversation_id", sa.Uuid(), nullable=False),
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.Column("reminder_minutes", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_withheld_pushes")),
        sa.UniqueConstraint(
            "message_id",
            "user_id",
            "installation_id",
            "reason",
            name="uq_withheld_pushes_decision",
            postgresql_nulls_not_distinct=True,
        ),
    )
    op.create_index("ix_withheld_pushes_user_id_at", "withheld_pushes", ["user_id", "at"], unique=False)
    op.create_table(
        "console_sessions",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.String(length=200), nullable=False),
        sa.Column("csrf_token", sa.Text(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_console_sessions")),
    )
    op.create_index("ix_console_sessions_expires_at", "console_sessions", ["expires_at"], unique=False)
    op.create_table(
        "console_codes",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.String(length=200), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_console_codes")),
    )
    op.create_index("ix_console_codes_expires_at", "console_codes", ["expires_at"], unique=False)


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_console_codes_expires_at", table_name="console_codes")
    op.drop_table("console_codes")
    op.drop_index("ix_console_sessions_expires_at", table_name="console_sessions")
    op.drop_table("console_sessions")
    op.drop_index("ix_withheld_pushes_user_id_at", table_name="withheld_pushes")
    op.drop_table("withheld_pushes")
    op.drop_column("push_tasks", "validate_only")
    op.drop_column("push_tasks", "settled_at")
    op.drop_column("push_attempts", "retry_at")
    op.drop_column("outbox", "traceparent")
