"""Operations: whether the process lives, whether it can accept, and its metrics."""

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

from api.dependencies import Database, Told
from db.engine import is_ready
from telemetry.exposition import CONTENT_TYPE

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


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(told: Told) -> Response:
    """Tell the metrics of this process, for Prometheus."""
    return Response(told.text(), media_type=CONTENT_TYPE)
