"""settled positions: how far the pushes of what an installation has read are settled."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "sync_positions", sa.Column("settled_seq", sa.BigInteger(), server_default=sa.text("0"), nullable=False)
    )
    op.execute("UPDATE sync_positions SET settled_seq = seq")  # the release before settled all at once


def downgrade() -> None:
    """Take back."""
    op.drop_column("sync_positions", "settled_seq")
