"""fairness: the outbox by urgency, what one user has at a time, what a sender may still post."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "outbox",
        sa.Column("needed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    )
    for lane, kinds in (("fasts", "subject_kind = 'fasting_session'"), ("others", "subject_kind <> 'fasting_session'")):
        op.create_index(
            f"ix_outbox_{lane}", "outbox", ["needed_at", "id"], postgresql_where=sa.text(kinds), if_not_exists=True
        )
    op.create_index(
        "ix_fasting_sessions_active_of_user",
        "fasting_sessions",
        ["user_id", "ends_at"],
        postgresql_where=sa.text("status = 'active'"),
        if_not_exists=True,
    )
    op.create_index(
        "ix_device_tokens_active_of_user",
        "device_tokens",
        ["user_id", "last_seen_at", "id"],
        postgresql_where=sa.text("active"),
        if_not_exists=True,
    )
    op.create_index("ix_device_token_events_latest", "device_token_events", ["device_id", "id"], if_not_exists=True)
    op.create_table(
        "message_allowances",
        sa.Column("conversation_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.String(length=200), nullable=False),
        sa.Column("full_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["conversation_id", "user_id"],
            ["members.conversation_id", "members.user_id"],
            name=op.f("fk_message_allowances_conversation_id_user_id_members"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("conversation_id", "user_id", name=op.f("pk_message_allowances")),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("message_allowances")
    op.drop_index("ix_device_token_events_latest", table_name="device_token_events")
    op.drop_index("ix_device_tokens_active_of_user", table_name="device_tokens")
    op.drop_index("ix_fasting_sessions_active_of_user", table_name="fasting_sessions")
    for lane in ("others", "fasts"):
        op.drop_index(f"ix_outbox_{lane}", table_name="outbox")
    op.drop_column("outbox", "needed_at")
