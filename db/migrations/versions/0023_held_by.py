"""which worker holds a push, and when each worker showed life last."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("push_tasks", sa.Column("held_by", sa.Uuid(), nullable=True))
    op.add_column("workers", sa.Column("alive_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    """Take back."""
    op.drop_column("workers", "alive_at")
    op.drop_column("push_tasks", "held_by")
