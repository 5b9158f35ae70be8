"""an index of the outbox by subject: what looks for lost workflows asks about some subjects, and it may be long."""

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_index("ix_outbox_subject_id", "outbox", ["subject_id"], unique=False, if_not_exists=True)


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_outbox_subject_id", table_name="outbox")
