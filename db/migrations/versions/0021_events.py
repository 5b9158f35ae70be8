"""events, the triggers that write them, and webhooks."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_TRIGGERS = {  # name -> table, event, names of the rows before and after
    "push_tasks_planned": ("push_tasks", "INSERT", "note_push_planned"),
    "push_tasks_changed": ("push_tasks", "UPDATE", "note_push_changed"),
    "withheld_pushes_noted": ("withheld_pushes", "INSERT", "note_reminder_withheld"),
    "device_token_events_noted": ("device_token_events", "INSERT", "note_device_token_event"),
    "fasting_sessions_started": ("fasting_sessions", "INSERT", "note_reminder_skipped_at_start"),
    "fasting_sessions_changed": ("fasting_sessions", "UPDATE", "note_reminder_skipped_by_change"),
}

_OF_PUSH = """
    INSERT INTO unnumbered_events (type, occurred_at, user_id, task_id, kind, session_id, conversation_id, message_id,
                                   installation_id, provider, reason, due_at)
    SELECT happened.type, coalesce(happened.at, clock_timestamp()), n.user_id, n.task_id, n.kind,
           CASE WHEN n.kind = 'reminder' THEN n.conversation_id END,
           CASE WHEN n.kind = 'message' THEN n.conversation_id END,
           n.message_id, n.installation_id, n.provider, happened.reason, n.due_at
"""
_FINAL = "n.state IN ('accepted', 'dead', 'withdrawn', 'expired', 'rejected', 'unregistered')"

_PUSH_PLANNED = f"""
    {_OF_PUSH}
      FROM rows_after AS n
     CROSS JOIN LATERAL (SELECT 'push.' || n.state AS type, n.settled_at AS at, n.last_reason AS reason) AS happened
     WHERE {_FINAL};
"""

_PUSH_CHANGED = f"""
    {_OF_PUSH}
      FROM rows_after AS n
      JOIN rows_before AS o ON o.task_id = n.task_id
     CROSS JOIN LATERAL (VALUES
        (1, 'push.' || n.state, n.settled_at, n.last_reason, n.state <> o.state AND {_FINAL}),
        (2, 'push.opened', n.opened_at, NULL, n.opened_at IS NOT NULL AND o.opened_at IS NULL),
        (3, 'push.synced', greatest(n.synced_at, n.accepted_at), NULL,
         n.state = 'accepted' AND n.synced_at IS NOT NULL
         AND NOT (o.state = 'accepted' AND o.synced_at IS NOT NULL))
     ) AS happened (place, type, at, reason, is_so)
     WHERE happened.is_so
     ORDER BY n.task_id, happened.place;
"""

# A reminder that was moved, or whose fast is over, was not withheld: the app itself did that.
_WITHHELD = """
    INSERT INTO unnumbered_events (type, occurred_at, user_id, kind, session_id, message_id, installation_id, reason,
                                   due_at)
    SELECT 'reminder.withheld', n.at, n.user_id, n.kind, n.conversation_id, n.message_id, n.installation_id, n.reason,
           s.ends_at - n.reminder_minutes * interval '1 minute'
      FROM rows_after AS n
      LEFT JOIN fasting_sessions AS s ON s.id = n.conversation_id
     WHERE n.kind = 'reminder' AND n.reason IN ('no_active_token', 'reminders_off', 'quiet_hours')
     ORDER BY n.id;
"""

_REGISTERED_OR_NOT = """
    INSERT INTO unnumbered_events (type, occurred_at, user_id, installation_id, provider, reason)
    SELECT 'device_token.' || CASE WHEN n.event = 'reactivated' THEN 'registered' ELSE n.event END,
           n.at, d.user_id, d.installation_id, d.provider, n.reason
      FROM rows_after AS n
      JOIN device_tokens AS d ON d.id = n.device_id
     WHERE n.event IN ('registered', 'reactivated', 'invalidated', 'transferred', 'signed_out')
     ORDER BY n.id;
"""

# As `is_skipped` in domain/fasts.py has it.
_SKIPPED = """
    INSERT INTO unnumbered_events (type, occurred_at, user_id, kind, session_id, reason, due_at)
    SELECT 'reminder.skipped', clock_timestamp(), n.user_id, 'reminder', n.id, 'too_late',
           n.ends_at - r.minutes * interval '1 minute'
      FROM rows_after AS n
     CROSS JOIN LATERAL (SELECT DISTINCT unnest(n.reminder_minutes) AS minutes) AS r
"""
_IS_SKIPPED = """
     {row}.status = 'active' AND r.minutes = ANY({row}.reminder_minutes)
       AND (r.minutes = ANY({row}.late_minutes)
            OR {row}.ends_at - r.minutes * interval '1 minute' <= {row}.scheduled_at)
"""
_SKIPPED_AT_START = f"{_SKIPPED} WHERE {_IS_SKIPPED.format(row='n')} ORDER BY n.id, r.minutes DESC;"
_SKIPPED_BY_CHANGE = f"""
    {_SKIPPED}
      JOIN rows_before AS o ON o.id = n.id
     WHERE {_IS_SKIPPED.format(row="n")}
       AND NOT (o.ends_at = n.ends_at AND {_IS_SKIPPED.format(row="o")})
     ORDER BY n.id, r.minutes DESC;
"""

_FUNCTIONS = {
    "note_push_planned": _PUSH_PLANNED,
    "note_push_changed": _PUSH_CHANGED,
    "note_reminder_withheld": _WITHHELD,
    "note_device_token_event": _REGISTERED_OR_NOT,
    "note_reminder_skipped_at_start": _SKIPPED_AT_START,
    "note_reminder_skipped_by_change": _SKIPPED_BY_CHANGE,
}


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "unnumbered_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        *_event_columns(),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_unnumbered_events")),
    )
    op.create_table(
        "events",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        *_event_columns(),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_events")),
    )
    op.create_index("ix_events_user_id_number", "events", ["user_id", "number"], unique=False)
    op.create_table(
        "event_feed",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("head", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("horizon", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_event_feed_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event_feed")),
    )
    op.execute("INSERT INTO event_feed (id) VALUES (1)")
    _create_webhooks()
    for name, body in _FUNCTIONS.items():
        op.execute(f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NULL; END $$")
    for name, (table, event, function) in _TRIGGERS.items():
        before = "OLD TABLE AS rows_before " if event == "UPDATE" else ""
        op.execute(
            f"CREATE TRIGGER {name} AFTER {event} ON {table} REFERENCING {before}NEW TABLE AS rows_after"
            f" FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
        )


def downgrade() -> None:
    """Take back."""
    for name, (table, _, _) in _TRIGGERS.items():
        op.execute(f"DROP TRIGGER {name} ON {table}")
    for name in _FUNCTIONS:
        op.execute(f"DROP FUNCTION {name}()")
    for table in ("webhook_deliveries", "webhooks", "event_feed", "events", "unnumbered_events"):
        op.drop_table(table)


def _event_columns() -> list[sa.Column[Any]]:
    uuids = ("session_id", "conversation_id", "message_id", "installation_id")
    return [
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("user_id", sa.String(length=200), nullable=True),
        sa.Column("task_id", sa.Uuid(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=True),
        *(sa.Column(name, sa.Uuid(), nullable=True) for name in uuids),
        sa.Column("provider", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("webhook_id", sa.Uuid(), nullable=True),
    ]


def _create_webhooks() -> None:
    at = sa.DateTime(timezone=True)
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("types", postgresql.ARRAY(sa.String()), nullable=True),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("former_secret", sa.Text(), nullable=True),
        sa.Column("former_expires_at", at, nullable=True),
        sa.Column("created_at", at, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("starts_at", at, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("failing_since", at, nullable=True),
        sa.Column("last_accepted_at", at, nullable=True),
        sa.Column("followed_at", at, nullable=True),
        sa.Column("rests_until", at, nullable=True),
        sa.Column("missed", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("disabled_at", at, nullable=True),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("webhook_id", sa.Uuid(), nullable=False),
        sa.Column("event_number", sa.BigInteger(), nullable=True),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", at, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("next_attempt_at", at, nullable=True),
        sa.Column("gives_up_at", at, nullable=False),
        sa.Column("last_attempt_at", at, nullable=True),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("latency_ms", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["webhook_id"],
            ["webhooks.id"],
            name=op.f("fk_webhook_deliveries_webhook_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
        sa.UniqueConstraint("webhook_id", "event_number", name=op.f("uq_webhook_deliveries_webhook_id_event_number")),
    )
    create = {
        "latest": (["webhook_id", "created_at", "id"], None),
        "pending": (["webhook_id", "next_attempt_at"], sa.text("state = 'pending'")),
        "dead": (["webhook_id", "created_at"], sa.text("state = 'dead'")),
        "created_at": (["created_at"], None),
    }
    for name, (columns, where) in create.items():
        op.create_index(f"ix_webhook_deliveries_{name}", "webhook_deliveries", columns, postgresql_where=where)
