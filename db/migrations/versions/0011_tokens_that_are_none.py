"""tokens that are none: what apps registered as `null` and the like is inactive, and asks for a refresh."""

from alembic import op

revision = "0011"
down_revision = "0006"
branch_labels = None
depends_on = None

# The forms of domain/registration.py, as they were when this was written.
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
    op.get_bind().exec_driver_sql(_INVALIDATE)


def downgrade() -> None:
    """Take back: nothing, since an app that is opened registers again."""
