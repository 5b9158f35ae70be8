"""late reminders."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    late_minutes = postgresql.ARRAY(sa.Integer(), as_tuple=True)
    op.add_column(
        "fasting_sessions",
        sa.Column("late_minutes", late_minutes, server_default=sa.text("'{}'"), nullable=False),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_column("fasting_sessions", "late_minutes")
