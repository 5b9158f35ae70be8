"""refusals."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("push_tasks", sa.Column("again_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_push_tasks_rejected", "push_tasks", ["due_at"], postgresql_where=sa.text("state = 'rejected'"))


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_push_tasks_rejected", table_name="push_tasks")
    op.drop_column("push_tasks", "again_at")
