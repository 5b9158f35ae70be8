"""tokens that are none, and who took which.

What apps registered as `null` and the like is inactive, and asks for a refresh.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# The forms of domain/devices.py, as they were when this was written.
_INVALIDATE = """
    WITH gone AS (
        UPDATE device_tokens
           SET active = false, inactive_reason = 'invalidated'
         WHERE active
           AND (provider = 'apns' AND token !~ '^([0-9a-f]{2}){32,100}$'
                OR provider = 'fcm' AND token !~ '^[A-Za-z0-9_:.%-]{32,}$')
        RETURNING id
    )
    INSERT INTO device_token_events (device_id, event, reason)
    SELECT id, 'invalidated', 'MalformedDeviceToken' FROM gone
"""


def upgrade() -> None:
    """Apply."""
    op.add_column("device_token_events", sa.Column("taken_by", sa.String(length=200), nullable=True))
    op.create_index(
        "ix_device_token_events_taken",
        "device_token_events",
        ["at", "taken_by"],
        unique=False,
        postgresql_where=sa.text("taken_by IS NOT NULL"),
    )
    op.get_bind().exec_driver_sql(_INVALIDATE)


def downgrade() -> None:
    """Take back; an app whose token was none registers again when it is opened."""
    op.drop_index("ix_device_token_events_taken", table_name="device_token_events")
    op.drop_column("device_token_events", "taken_by")
