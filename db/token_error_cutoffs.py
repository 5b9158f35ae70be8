"""The token-error cutoff: engaged by a worker, ended by a person.

A transaction that deactivates tokens of a route holds the route's lock in shared mode, and checks for a cutoff first.
One that engages a cutoff holds the lock exclusively. So no token is deactivated once the cutoff is engaged.
"""

from collections.abc import Collection
from dataclasses import asdict
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from db.engine import hold_names
from db.models.operations import TokenErrorCutoffRow
from db.support_actions import Actor
from db.unreadable import route_of
from domain.mass_failure import MassFailure
from domain.push import Route


async def engaged(db: AsyncSession) -> dict[Route, TokenErrorCutoffRow]:
    """Find the engaged cutoffs."""
    rows = await db.scalars(select(TokenErrorCutoffRow).where(TokenErrorCutoffRow.resumed_at.is_(None)))
    return {route: row for row in rows if (route := route_of(row, "brakes")) is not None}


async def between(db: AsyncSession, since: datetime, until: datetime) -> list[TokenErrorCutoffRow]:
    """List the cutoffs that were engaged at some instant between these, the latest first."""
    query = select(TokenErrorCutoffRow).where(
        TokenErrorCutoffRow.engaged_at <= until, func.coalesce(TokenErrorCutoffRow.resumed_at, until) >= since
    )
    return list(await db.scalars(query.order_by(TokenErrorCutoffRow.engaged_at.desc())))


async def engaged_among(db: AsyncSession, routes: Collection[Route]) -> set[Route]:
    """Find the routes with an engaged cutoff; none can be engaged on the others before the transaction ends."""
    if not routes:
        return set()
    for name in sorted(map(_lock, routes)):
        await db.execute(select(func.pg_advisory_xact_lock_shared(func.hashtextextended(name, 0))))
    return set(routes) & (await engaged(db)).keys()


async def engage(db: AsyncSession, route: Route, failure: MassFailure) -> bool:
    """Engage a route's cutoff, with its lock until the transaction ends; False when it is already engaged."""
    await hold_names(db, [_lock(route)])
    values = asdict(route) | asdict(failure)
    engaged = insert(TokenErrorCutoffRow).values(values).on_conflict_do_nothing().returning(TokenErrorCutoffRow.id)
    return await db.scalar(engaged) is not None


async def release(db: AsyncSession, cutoff_id: UUID, actor: Actor) -> bool:
    """End a cutoff; False when there is no such cutoff, or it has ended before."""
    query = (
        update(TokenErrorCutoffRow)
        .where(TokenErrorCutoffRow.id == cutoff_id, TokenErrorCutoffRow.resumed_at.is_(None))
        .values(resumed_at=func.clock_timestamp(), resumed_by=actor.name, resumed_by_person=actor.is_person)
        .returning(TokenErrorCutoffRow.id)
    )
    return await db.scalar(query) is not None


def _lock(route: Route) -> str:
    return f"brake/{route.provider}/{route.app_id or ''}/{route.environment}"
