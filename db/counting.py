"""Counts what a transaction did once it has committed; what is rolled back never happened."""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Row, event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from telemetry import labels, metrics

Rows = Sequence[Row[*tuple[Any, ...]]]

_KEY = "counted once committed"


def once_committed(db: AsyncSession, count: Callable[[], None]) -> None:
    """Call `count` right after this transaction commits."""
    db.info.setdefault(_KEY, []).append(count)


def count_settled(db: AsyncSession, rows: Rows) -> None:
    """Count push tasks that became final: rows with provider, kind, state and last reason."""
    if rows:
        once_committed(db, lambda: _count_settled(rows))


def _count_settled(rows: Rows) -> None:
    for row in rows:
        metrics.pushes_settled.labels(row.provider, row.kind, row.state, labels.reason(row.last_reason)).inc()
        if row.last_reason == "superseded":
            metrics.pushes_collapsed.labels(row.provider, row.kind, "before_acceptance").inc()


@event.listens_for(Session, "after_commit")
def _committed(session: Session) -> None:
    for count in session.info.pop(_KEY, ()):
        count()


@event.listens_for(Session, "after_rollback")
def _rolled_back(session: Session) -> None:
    session.info.pop(_KEY, None)
