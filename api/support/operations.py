"""Analytics for support: send attempts, errors by reason, acceptance, opens and syncs, by kind, app and day."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from api.dependencies import Database
from api.fields import Body
from api.problems import responses
from db import analytics
from domain.analytics import MOST_DAYS, Analytics, Asked
from domain.kinds import Kind
from domain.push import APP_ID, LONGEST_APP_ID, Provider

router = APIRouter(prefix="/analytics")


class AskedIn(Body):
    """Which pushes are counted; what is left out matches any."""

    days: Annotated[int, Field(ge=1, le=MOST_DAYS, description="UTC days, the last one today.")] = 7
    kind: Kind | None = None
    provider: Provider | None = None
    app_id: Annotated[str | None, Field(max_length=LONGEST_APP_ID, pattern=APP_ID)] = None


@router.get("", responses=responses(403))
async def count(asked: Annotated[AskedIn, Query()], sessions: Database) -> Analytics:
    """Count pushes by the day on which they were due, by kind, provider and app."""
    return await analytics.by_day(sessions, Asked(**asked.model_dump()))
