"""The service for support: how each route stands, the end of a cutoff, and analytics."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import Database, RowWrites, Supporter
from api.fields import Body
from api.http.problems import responses
from db.views import analytics, gates
from db.views.analytics import MAX_DAYS, Analytics, AnalyticsQuery
from db.views.gates import ShownBrake, ShownGates
from domain.kinds import Kind
from domain.push import APP_ID, LONGEST_APP_ID, Provider
from operations.resume import resume as resume_route

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
        return await resume_route(db, brake_id, caller.user_id)

    return await writes.run(let_go, f"brake/{brake_id}")


class AskedIn(Body):
    """Which pushes are counted; what is left out matches any."""

    days: Annotated[int, Field(ge=1, le=MAX_DAYS, description="UTC days, the last one today.")] = 7
    kind: Kind | None = None
    provider: Provider | None = None
    app_id: Annotated[str | None, Field(max_length=LONGEST_APP_ID, pattern=APP_ID)] = None


@router.get("/analytics", responses=responses(403))
async def count(asked: Annotated[AskedIn, Query()], sessions: Database) -> Analytics:
    """Count pushes by the day on which they were due, by kind, provider and app."""
    return await analytics.by_day(sessions, AnalyticsQuery(**asked.model_dump()))
