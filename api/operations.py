"""Operations: whether the process lives, whether it can accept, and its metrics."""

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, Field

from api.dependencies import Looking, Told
from telemetry.exposition import CONTENT_TYPE

router = APIRouter(tags=["operations"])


class Readiness(BaseModel):
    """Whether requests can be accepted."""

    database: bool
    cause: str | None = Field(default=None, description="Where it is known why the database is not ready.")


@router.get("/livez", status_code=204)
async def livez() -> Response:
    """Tell that the process answers."""
    return Response(status_code=204)


@router.get("/readyz", responses={503: {"model": Readiness}}, response_model_exclude_none=True)
async def readyz(looking: Looking, response: Response) -> Readiness:
    """Tell whether the process can accept: it needs its database, migrated. Temporal may be away meanwhile.

    The answer comes within 3 seconds, whatever the database does.
    """
    try:
        ready, cause = await looking.look(), None
    except TimeoutError:
        ready, cause = False, f"The database did not answer within {looking.within:g} s."
    response.status_code = 200 if ready else 503
    return Readiness(database=ready, cause=cause)


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(told: Told) -> Response:
    """Tell the metrics of this process, for Prometheus."""
    return Response(told.text(), media_type=CONTENT_TYPE)
