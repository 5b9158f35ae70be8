"""sign-out tickets that were used."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "spent_tickets",
        sa.Column("installation_id", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("installation_id", "digest", name=op.f("pk_spent_tickets")),
    )
    op.create_index("ix_spent_tickets_expires_at", "spent_tickets", ["expires_at"], unique=False)


def downgrade() -> None:
    """Take back."""
    op.drop_table("spent_tickets")
