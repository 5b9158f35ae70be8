"""apps, gates, support."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("device_tokens", sa.Column("public_key", sa.LargeBinary(), nullable=True))
    op.add_column("push_tasks", sa.Column("app_id", sa.Text(), nullable=True))
    # what may still be sent or redriven: the last check compares its app with the phone's
    op.execute(
        "UPDATE push_tasks SET app_id = device_tokens.app_id FROM device_tokens"
        " WHERE device_tokens.id = push_tasks.device_id AND device_tokens.app_id IS NOT NULL"
        " AND push_tasks.state IN ('pending', 'dead') AND push_tasks.expires_at > statement_timestamp()"
    )
    op.create_index(
        "ix_push_tasks_dead", "push_tasks", ["due_at", "task_id"], postgresql_where=sa.text("state = 'dead'")
    )
    op.create_table(
        "workers",
        sa.Column("worker_id", sa.Uuid(), nullable=False),
        sa.Column(
            "started_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("gates", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("worker_id", name=op.f("pk_workers")),
    )
    op.create_table(
        "brakes",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("app_id", sa.Text(), nullable=True),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("token_errors", sa.Integer(), nullable=False),
        sa.Column("answers", sa.Integer(), nullable=False),
        sa.Column(
            "engaged_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("resumed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("resumed_by", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_brakes")),
    )
    op.create_index(
        "uq_brakes_engaged",
        "brakes",
        ["provider", sa.literal_column("coalesce(app_id, '')"), "environment"],
        unique=True,
        postgresql_where=sa.text("resumed_at IS NULL"),
    )
    op.create_table(
        "support_actions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject_kind", sa.Text(), nullable=False),
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.Column("detail", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_support_actions")),
    )
    op.create_index(op.f("ix_support_actions_subject_id"), "support_actions", ["subject_id"], unique=False)


def downgrade() -> None:
    """Undo."""
    op.drop_index(op.f("ix_support_actions_subject_id"), table_name="support_actions")
    op.drop_table("support_actions")
    op.drop_index("uq_brakes_engaged", table_name="brakes", postgresql_where=sa.text("resumed_at IS NULL"))
    op.drop_table("brakes")
    op.drop_table("workers")
    op.drop_index("ix_push_tasks_dead", table_name="push_tasks", postgresql_where=sa.text("state = 'dead'"))
    op.drop_column("push_tasks", "app_id")
    op.drop_column("device_tokens", "public_key")
