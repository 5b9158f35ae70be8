"""Leases; indexes by which retention finds what grew for ever. Each is built in moments, beside writers that wait."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "leases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Uuid(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("found", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_index(
        "ix_messages_reminders",
        "messages",
        ["created_at", "id"],
        unique=False,
        postgresql_where=sa.text("kind = 'reminder'"),
        if_not_exists=True,
    )
    op.create_index("ix_sync_positions_synced_at", "sync_positions", ["synced_at"], unique=False, if_not_exists=True)
    op.create_index(
        "ix_device_tokens_inactive",
        "device_tokens",
        ["last_seen_at"],
        unique=False,
        postgresql_where=sa.text("NOT active AND token <> ''"),
        if_not_exists=True,
    )
    op.create_index("ix_push_tasks_device_id", "push_tasks", ["device_id"], unique=False, if_not_exists=True)


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_push_tasks_device_id", table_name="push_tasks")
    op.drop_index("ix_device_tokens_inactive", table_name="device_tokens")
    op.drop_index("ix_sync_positions_synced_at", table_name="sync_positions")
    op.drop_index("ix_messages_reminders", table_name="messages")
    op.drop_table("leases")
