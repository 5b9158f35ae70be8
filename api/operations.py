"""Operations: whether the process lives, and whether it can accept."""

from fastapi import APIRouter, Response
from pydantic import BaseModel

from api.dependencies import Database
from db.engine import is_ready

router = APIRouter(tags=["operations"])


class Readiness(BaseModel):
    """Whether requests can be accepted."""

    database: bool


@router.get("/livez", status_code=204)
async def livez() -> Response:
    """Tell that the process answers."""
    return Response(status_code=204)


@router.get("/readyz", responses={503: {"model": Readiness}})
async def readyz(sessions: Database, response: Response) -> Readiness:
    """Tell whether the process can accept: it needs its database, migrated. Temporal may be away meanwhile."""
    ready = await is_ready(sessions)
    response.status_code = 200 if ready else 503
    return Readiness(database=ready)
