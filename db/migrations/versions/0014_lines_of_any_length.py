"""Lines of any length: a check of a push walks an index to its answer, however many pushes its line ever had."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_LINE = ["installation_id", "collapse_key"]
_MISSED = (
    "synced_at IS NULL AND (state = 'unregistered'"
    " OR state = 'withdrawn' AND last_reason IN ('no_active_token', 'token_changed'))"
)
_INDEXES = {
    "ix_push_tasks_line_settled": ([*_LINE, "settled_at"], "synced_at IS NULL"),
    "ix_push_tasks_line_accepted": ([*_LINE, "due_at"], "state = 'accepted' AND synced_at IS NULL"),
    "ix_push_tasks_line_waiting": ([*_LINE, "due_at"], "state = 'pending'"),
    "ix_push_tasks_missed": (["installation_id"], _MISSED),
}


def upgrade() -> None:
    """Apply; what the release before looks up by the indexes that go, it finds by the start of those that come."""
    for name, (columns, where) in _INDEXES.items():
        op.create_index(name, "push_tasks", columns, postgresql_where=sa.text(where), if_not_exists=True)
    op.drop_index("ix_push_tasks_line", table_name="push_tasks")
    op.drop_index("ix_push_tasks_waiting", table_name="push_tasks")


def downgrade() -> None:
    """Take back."""
    op.create_index("ix_push_tasks_waiting", "push_tasks", _LINE, postgresql_where=sa.text("state = 'pending'"))
    op.create_index(
        "ix_push_tasks_line", "push_tasks", [*_LINE, "due_at"], postgresql_where=sa.text("synced_at IS NULL")
    )
    for name in _INDEXES:
        op.drop_index(name, table_name="push_tasks")
