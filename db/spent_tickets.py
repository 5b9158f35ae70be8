"""Sign-out tickets that were used, by their digests: a registration that names one comes from before the sign-out."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from db.models.table import SpentTicket

REMEMBERED = timedelta(hours=1)  # far longer than a server, or a proxy before it, holds on to a request


async def spend(db: AsyncSession, installation_id: UUID, digest: bytes) -> None:
    """Remember that the ticket with this digest was used on this installation."""
    values = {"installation_id": installation_id, "digest": digest, "expires_at": func.clock_timestamp() + REMEMBERED}
    added = insert(SpentTicket).values(values)
    await db.execute(
        added.on_conflict_do_update(
            index_elements=[SpentTicket.installation_id, SpentTicket.digest],
            set_={"expires_at": added.excluded.expires_at},
        )
    )


async def is_spent(db: AsyncSession, installation_id: UUID, digest: bytes) -> bool:
    """Tell whether the ticket with this digest was used on this installation a while ago at most."""
    query = select(SpentTicket.digest).where(
        SpentTicket.installation_id == installation_id,
        SpentTicket.digest == digest,
        SpentTicket.expires_at > func.clock_timestamp(),
    )
    return await db.scalar(query) is not None
