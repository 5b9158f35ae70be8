"""collapse groups."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "collapse_groups",
        sa.Column("installation_id", sa.Uuid(), nullable=False),
        sa.Column("collapse_key", sa.Text(), nullable=False),
        sa.Column("planned_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("burst", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("sounded_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("installation_id", "collapse_key", name=op.f("pk_collapse_groups")),
    )
    op.create_index(
        "ix_push_tasks_waiting",
        "push_tasks",
        ["installation_id", "collapse_key"],
        postgresql_where=sa.text("state = 'pending'"),
        if_not_exists=True,
    )


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_push_tasks_waiting", table_name="push_tasks", postgresql_where=sa.text("state = 'pending'"))
    op.drop_table("collapse_groups")
