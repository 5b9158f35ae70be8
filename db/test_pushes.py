"""Test pushes: push tasks of their own kind, what Temporal is owed, who asked; one transaction."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from domain.test_push import AskedTest, ShownTestPush


async def send(db: AsyncSession, asked: AskedTest, actor: str) -> ShownTestPush:
    """Plan a test push; the workers' sweepers send it once this is committed.

    Raises NotFound (the installation is not theirs), Conflict (no active token), InvalidField (nothing that can be
    validated), LimitReached.
    """
    raise NotImplementedError


async def shown(db: AsyncSession, test_push_id: UUID) -> ShownTestPush | None:
    """Show how a test push stands now; None where there is none."""
    raise NotImplementedError
