"""Gates and brakes for support: how each route stands, and the end of a brake."""

from uuid import UUID

from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import Database, RowWrites, Supporter
from api.problems import responses
from db import gates
from domain.support import ShownBrake, ShownGates

router = APIRouter()


@router.get("/gates", responses=responses(403))
async def list_gates(sessions: Database) -> ShownGates:
    """List the routes to phones with the gates of all live workers, the brakes, and refusals that no table knows."""
    async with sessions() as db:
        return await gates.shown(db)


@router.post("/brakes/{brake_id}/resume", responses=responses(403, 404, 409))
async def resume(brake_id: UUID, caller: Supporter, writes: RowWrites) -> ShownBrake:
    """Let go of a brake: its route sends again, and dead tokens are deactivated again."""

    async def let_go(db: AsyncSession) -> ShownBrake:
        return await gates.resume(db, brake_id, caller.user_id)

    return await writes.run(let_go, f"brake/{brake_id}")
