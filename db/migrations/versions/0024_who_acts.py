"""who acts: whether a person did it, or a service, an API key or a command line with the name of one."""

from collections.abc import Mapping

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

_COLUMNS = {
    "support_actions": "by_person",
    "console_codes": "by_person",
    "console_sessions": "by_person",
    "brakes": "resumed_by_person",
}

# Null in rows of the release before, which does not know: there the name decides, as it did.
_FUNCTION = """
    CREATE FUNCTION is_person_being_erased(who text, by_person boolean) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
    BEGIN
        RETURN by_person IS NOT FALSE AND is_being_erased(who)
            AND (by_person OR NOT EXISTS (SELECT FROM api_keys k WHERE k.name = who));
    END $$
"""
_BEFORE = {  # triggers of migration 0022, by table and number, and when each refuses a row
    ("console_codes", 5): "is_being_erased(NEW.user_id)",
    ("console_sessions", 6): "is_being_erased(NEW.user_id)",
    ("support_actions", 12): "is_being_erased(NEW.actor)",
}
_NOW = {
    ("console_codes", 5): "is_person_being_erased(NEW.user_id, NEW.by_person)",
    ("console_sessions", 6): "is_person_being_erased(NEW.user_id, NEW.by_person)",
    ("support_actions", 12): "is_person_being_erased(NEW.actor, NEW.by_person)",
}


def upgrade() -> None:
    """Apply."""
    for table, column in _COLUMNS.items():
        op.add_column(table, sa.Column(column, sa.Boolean(), nullable=True))
    op.execute(_FUNCTION)
    _replace_triggers(_NOW)


def downgrade() -> None:
    """Take back."""
    _replace_triggers(_BEFORE)
    op.execute("DROP FUNCTION is_person_being_erased(text, boolean)")
    for table, column in _COLUMNS.items():
        op.drop_column(table, column)


def _replace_triggers(conditions: Mapping[tuple[str, int], str]) -> None:
    for (table, number), condition in conditions.items():
        op.execute(f"DROP TRIGGER being_erased_{number} ON {table}")
        op.execute(
            f"CREATE TRIGGER being_erased_{number} BEFORE INSERT ON {table} FOR EACH ROW"
            f" WHEN ({condition}) EXECUTE FUNCTION refuse_being_erased()"
        )
