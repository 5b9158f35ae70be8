"""preferences: a revision, what becomes of pushes in quiet hours, wherever each phone is; why a call was silent."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_WHOLE = "ck_preferences_quiet_hours_whole"


def upgrade() -> None:
    """Apply; quiet hours without a mode are those of the release before: pushes are withheld."""
    op.add_column("preferences", sa.Column("quiet_mode", sa.Text(), nullable=True))
    op.add_column("preferences", sa.Column("rev", sa.Integer(), server_default=sa.text("1"), nullable=False))
    op.drop_constraint(op.f(_WHOLE), "preferences", type_="check")
    op.create_check_constraint(op.f(_WHOLE), "preferences", "num_nulls(quiet_starts, quiet_ends) IN (0, 2)")
    op.add_column("push_attempts", sa.Column("silent_because", sa.Text(), nullable=True))


def downgrade() -> None:
    """Take back; quiet hours wherever the phone is become those of UTC."""
    op.drop_column("push_attempts", "silent_because")
    op.execute(
        "UPDATE preferences SET quiet_time_zone = 'UTC' WHERE quiet_starts IS NOT NULL AND quiet_time_zone IS NULL"
    )
    op.drop_constraint(op.f(_WHOLE), "preferences", type_="check")
    op.create_check_constraint(
        op.f(_WHOLE), "preferences", "num_nulls(quiet_starts, quiet_ends, quiet_time_zone) IN (0, 3)"
    )
    op.drop_column("preferences", "rev")
    op.drop_column("preferences", "quiet_mode")
