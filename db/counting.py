"""Counts in metrics what a transaction did, once it has committed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Row, event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from telemetry import metrics

Rows = Sequence[Row[*tuple[Any, ...]]]

_KEY = "counted once committed"


def once_committed(db: AsyncSession, count: Callable[[], None]) -> None:
    """Call `count` right after this transaction commits."""
    db.info.setdefault(_KEY, []).append(count)


def count_settled(db: AsyncSession, counts: Mapping[Any, int]) -> None:
    """Count push tasks that became final, by provider, kind, state and last reason."""
    if counts:
        once_committed(db, lambda: _count_settled(counts))


def count_synced(provider: str, kind: str, delay: float) -> None:
    """Count a push whose message was read this many seconds after acceptance (below 0: while the call lasted)."""
    metrics.pushes_synced.labels(provider, kind).inc()
    metrics.push_to_sync.labels(provider, kind).observe(max(delay, 0.0))


def _count_settled(counts: Mapping[Any, int]) -> None:
    for (provider, kind, state, reason), count in counts.items():
        metrics.pushes_settled.labels(provider, kind, state, metrics.reason(reason)).inc(count)
        if reason == "superseded":
            metrics.pushes_collapsed.labels(provider, kind, "before_acceptance").inc(count)


@event.listens_for(Session, "after_commit")
def _committed(session: Session) -> None:
    for count in session.info.pop(_KEY, ()):
        count()


@event.listens_for(Session, "after_rollback")
def _rolled_back(session: Session) -> None:
    session.info.pop(_KEY, None)
