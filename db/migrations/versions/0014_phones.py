"""phones: what an app tells of its phone, and the digest of the ticket that signs it out."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("device_tokens", sa.Column("os_version", sa.Text(), nullable=True))
    op.add_column("device_tokens", sa.Column("permission", sa.Text(), nullable=True))
    op.add_column("device_tokens", sa.Column("sign_out_digest", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    """Take back."""
    for column in ("sign_out_digest", "permission", "os_version"):
        op.drop_column("device_tokens", column)
