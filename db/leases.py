"""Leases: which process does what one of several has to do. Rows, so that no session has to live as long."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import Lease

_LONGEST = timedelta(minutes=5)  # a lease that ends later than any is granted for is odd, and nobody's


async def take(db: AsyncSession, name: str, holder: UUID, lasts: timedelta) -> datetime | None:
    """Take or renew a lease; the database's clock, or None while another one holds it."""
    now = func.clock_timestamp()
    row = insert(Lease).values(name=name, holder=holder, expires_at=now + lasts)
    taken = row.on_conflict_do_update(
        index_elements=["name"],
        set_={"holder": row.excluded.holder, "expires_at": row.excluded.expires_at},
        where=or_(Lease.holder == holder, Lease.expires_at < now, Lease.expires_at > now + _LONGEST),
    )
    at: datetime | None = await db.scalar(taken.returning(now))
    return at


async def report(db: AsyncSession, name: str, holder: UUID, found: Mapping[str, Any]) -> None:
    """Tell what the holder found at last."""
    mine = update(Lease).where(Lease.name == name, Lease.holder == holder)
    await db.execute(mine.values(found=found), execution_options={"synchronize_session": False})


async def reported(db: AsyncSession, name: str) -> Mapping[str, Any]:
    """Read what was found at last; empty where nobody has looked yet, or a newer release tells it in another way."""
    found: Any = await db.scalar(select(Lease.found).where(Lease.name == name))
    return found if isinstance(found, dict) else {}


async def give_up(db: AsyncSession, name: str, holder: UUID) -> None:
    """Let another one take it at once; what was found stays."""
    mine = update(Lease).where(Lease.name == name, Lease.holder == holder)
    await db.execute(mine.values(expires_at=func.clock_timestamp()), execution_options={"synchronize_session": False})
