"""preference page: its links and sessions; which fasts have the reminder minutes of their person's preferences."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

# The release before did not tell whose minutes a fast has: its start named none, and they are still the person's.
_FOLLOW = """
    UPDATE fasting_sessions s
       SET follows_preferences = true
     WHERE s.status = 'active' AND NOT s.started_with ? 'reminder_minutes'
       AND s.reminder_minutes = coalesce((SELECT p.reminder_minutes FROM preferences p WHERE p.user_id = s.user_id),
                                         '{30}')
"""


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "fasting_sessions",
        sa.Column("follows_preferences", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.execute(_FOLLOW)
    op.create_table(
        "preference_codes",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_preference_codes")),
    )
    op.create_index("ix_preference_codes_of_user", "preference_codes", ["user_id", "kind", "created_at"], unique=False)
    op.create_index("ix_preference_codes_expires_at", "preference_codes", ["expires_at"], unique=False)
    op.create_table(
        "preference_sessions",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.String(length=200), nullable=False),
        sa.Column("csrf_token", sa.Text(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_preference_sessions")),
    )
    op.create_index("ix_preference_sessions_of_user", "preference_sessions", ["user_id", "created_at"], unique=False)
    op.create_index("ix_preference_sessions_expires_at", "preference_sessions", ["expires_at"], unique=False)


def downgrade() -> None:
    """Take back."""
    op.drop_table("preference_sessions")
    op.drop_table("preference_codes")
    op.drop_column("fasting_sessions", "follows_preferences")
