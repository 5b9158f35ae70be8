"""what held a push up."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("push_tasks", sa.Column("held_up_by", sa.Text(), nullable=True))


def downgrade() -> None:
    """Take back."""
    op.drop_column("push_tasks", "held_up_by")
