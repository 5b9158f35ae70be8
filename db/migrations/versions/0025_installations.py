"""an index of all registrations of an installation: each sync reads them, the ended ones too."""

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_index(
        "ix_device_tokens_installation_id", "device_tokens", ["installation_id"], unique=False, if_not_exists=True
    )


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_device_tokens_installation_id", table_name="device_tokens")
