"""Operations for support: the state of each route, the end of a token-error cutoff, analytics."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import Database, RowWrites, Supporter
from api.fields import Body
from api.http.problem_types import responses
from db.views import analytics, gates
from db.views.analytics import MAX_DAYS, Analytics, AnalyticsQuery
from db.views.gates import ShownBrake, ShownGates
from domain.kinds import Kind
from domain.push import APP_ID, LONGEST_APP_ID, Provider
from operations.resume import resume as resume_route

router = APIRouter()


@router.get("/gates", responses=responses("not-allowed"))
async def list_gates(sessions: Database) -> ShownGates:
    """List the routes, their limiters in all live workers, their cutoffs, and unknown reasons of providers."""
    async with sessions() as db:
        return await gates.shown(db)


@router.post(
    "/brakes/{brake_id}/resume", responses=responses("not-allowed", "not-found", "brake-resumed", "being-erased")
)
async def resume_brake(brake_id: UUID, caller: Supporter, writes: RowWrites) -> ShownBrake:
    """End a token-error cutoff: its route sends again, and tokens that fail are deactivated again."""

    async def end_cutoff(db: AsyncSession) -> ShownBrake:
        return await resume_route(db, brake_id, caller.actor)

    return await writes.run(end_cutoff, f"brake/{brake_id}")


class AnalyticsIn(Body):
    """Which pushes to count. A field that is left out matches any."""

    days: Annotated[int, Field(ge=1, le=MAX_DAYS, description="UTC days, up to today.")] = 7
    kind: Kind | None = None
    provider: Provider | None = None
    app_id: Annotated[str | None, Field(max_length=LONGEST_APP_ID, pattern=APP_ID)] = None


@router.get("/analytics", responses=responses("not-allowed"))
async def count_pushes(query: Annotated[AnalyticsIn, Query()], sessions: Database) -> Analytics:
    """Count pushes by the day they were due, by kind, provider and app."""
    return await analytics.by_day(sessions, AnalyticsQuery(**query.model_dump()))
