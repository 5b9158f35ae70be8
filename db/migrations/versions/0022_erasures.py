"""erasures: people who are erased, the triggers that keep them out meanwhile, and indexes that find their rows.

The indexes are built in moments, beside writers that wait: see docs/deployment.md, Upgrade.
"""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

# Volatile, so that each row is compared with what is committed by then, not with what its statement began with.
_FUNCTIONS = (
    """
    CREATE FUNCTION is_being_erased(who text) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
    BEGIN
        RETURN EXISTS (SELECT FROM erasures e WHERE e.user_id = who);
    END $$
    """,
    """
    CREATE FUNCTION refuse_being_erased() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'being erased' USING ERRCODE = 'FB409';
    END $$
    """,
    """
    CREATE FUNCTION skip_being_erased() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RETURN NULL;
    END $$
    """,
)

# A person's own writes are refused. Rows that others' work adds about a person are left out, so that nobody else fails.
_TRIGGERS = (
    ("refuse", "device_tokens", "INSERT OR UPDATE OF registered_at", "NEW.user_id"),
    ("refuse", "fasting_sessions", "INSERT OR UPDATE", "NEW.user_id"),
    ("refuse", "preferences", "INSERT OR UPDATE", "NEW.user_id"),
    ("refuse", "preference_codes", "INSERT", "NEW.user_id"),
    ("refuse", "preference_sessions", "INSERT", "NEW.user_id"),
    ("refuse", "console_codes", "INSERT", "NEW.user_id"),
    ("refuse", "console_sessions", "INSERT", "NEW.user_id"),
    ("refuse", "members", "INSERT", "NEW.user_id"),
    ("refuse", "messages", "INSERT", "NEW.sender_id"),
    ("refuse", "sync_positions", "INSERT OR UPDATE", "NEW.user_id"),
    ("refuse", "presences", "INSERT", "NEW.user_id"),
    ("refuse", "push_tasks", "UPDATE OF opened_at", "NEW.user_id"),
    ("refuse", "support_actions", "INSERT", "NEW.actor"),
    ("refuse", "support_actions", "INSERT", "NEW.detail ->> 'user_id'"),
    ("skip", "log_heads", "INSERT", "NEW.user_id"),
    ("skip", "push_tasks", "INSERT", "NEW.user_id"),
    ("skip", "withheld_pushes", "INSERT", "NEW.user_id"),
    ("skip", "unnumbered_events", "INSERT", "NEW.user_id"),
)

_OF_AN_ERASED = "(kind = 'message' AND number IS NOT NULL AND num_nulls(sender_id, body) IN (0, 2))"
_OF_NOBODY = "(kind <> 'message' AND num_nulls(number, sender_id, body) > 0)"
_POSTED_BEFORE = "(kind = 'message') = (num_nulls(number, sender_id, body) = 0)"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "erasures",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.String(length=200), nullable=True),
        sa.Column(
            "requested_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("num_nonnulls(user_id, done_at) = 1", name=op.f("ck_erasures_done_is_nameless")),
        sa.CheckConstraint("num_nonnulls(next_attempt_at, done_at) = 1", name=op.f("ck_erasures_done_or_due")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_erasures")),
    )
    op.create_index(
        "uq_erasures_running", "erasures", ["user_id"], unique=True, postgresql_where=sa.text("user_id IS NOT NULL")
    )
    op.create_index(
        "ix_erasures_due", "erasures", ["next_attempt_at"], postgresql_where=sa.text("next_attempt_at IS NOT NULL")
    )
    op.create_table(
        "erased_subjects",
        sa.Column("erasure_id", sa.Uuid(), nullable=False),
        sa.Column("subject_kind", sa.Text(), nullable=False),
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["erasure_id"], ["erasures.id"], name=op.f("fk_erased_subjects_erasure_id")),
        sa.PrimaryKeyConstraint("erasure_id", "subject_kind", "subject_id", name=op.f("pk_erased_subjects")),
    )
    op.create_index(
        "ix_messages_sender_id",
        "messages",
        ["sender_id", "id"],
        postgresql_where=sa.text("sender_id IS NOT NULL"),
        if_not_exists=True,
    )
    op.create_index(
        "ix_messages_of_fast",
        "messages",
        ["conversation_id"],
        postgresql_where=sa.text("kind = 'reminder'"),
        if_not_exists=True,
    )
    op.create_index(
        "ix_device_token_events_taken_by",
        "device_token_events",
        ["taken_by"],
        postgresql_where=sa.text("taken_by IS NOT NULL"),
        if_not_exists=True,
    )
    _replace_check(f"{_OF_AN_ERASED} OR {_OF_NOBODY}")
    for function in _FUNCTIONS:
        op.execute(function)
    for number, (what, table, event, who) in enumerate(_TRIGGERS):
        op.execute(
            f"CREATE TRIGGER being_erased_{number} BEFORE {event} ON {table} FOR EACH ROW"
            f" WHEN (is_being_erased({who})) EXECUTE FUNCTION {what}_being_erased()"
        )


def downgrade() -> None:
    """Take back; messages of erased people get an empty text and a nameless sender."""
    for number, (_, table, _, _) in enumerate(_TRIGGERS):
        op.execute(f"DROP TRIGGER being_erased_{number} ON {table}")
    for name in ("skip_being_erased()", "refuse_being_erased()", "is_being_erased(text)"):
        op.execute(f"DROP FUNCTION {name}")
    op.execute("UPDATE messages SET sender_id = '', body = '' WHERE kind = 'message' AND sender_id IS NULL")
    _replace_check(_POSTED_BEFORE)
    op.drop_index("ix_device_token_events_taken_by", table_name="device_token_events")
    op.drop_index("ix_messages_of_fast", table_name="messages")
    op.drop_index("ix_messages_sender_id", table_name="messages")
    op.drop_table("erased_subjects")
    op.drop_table("erasures")


def _replace_check(condition: str) -> None:
    op.execute("ALTER TABLE messages DROP CONSTRAINT ck_messages_posted_by_somebody")
    op.execute(f"ALTER TABLE messages ADD CONSTRAINT ck_messages_posted_by_somebody CHECK ({condition})")
