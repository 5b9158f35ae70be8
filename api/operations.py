"""Operations: liveness, readiness, metrics."""

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, Field

from api.dependencies import MetricsText, Ready
from domain.naming import VERSION
from telemetry.exposition import CONTENT_TYPE

router = APIRouter(tags=["operations"])

_VERSION = {"Fastbell-Version": VERSION}


class Readiness(BaseModel):
    """Whether requests can be accepted."""

    database: bool
    cause: str | None = Field(default=None, description="Why the database is not ready, if known.")


@router.get("/livez", status_code=204)
async def check_liveness() -> Response:
    """Answer: the process is alive."""
    return Response(status_code=204, headers=_VERSION)


@router.get("/readyz", responses={503: {"model": Readiness}}, response_model_exclude_none=True)
async def check_readiness(readiness: Ready, response: Response) -> Readiness:
    """Tell whether the process can accept requests. That needs the database and its newest migration, but not Temporal.

    A database that a newer release has migrated is fine. The answer comes within 3 seconds.
    """
    try:
        ready, cause = await readiness.check()
    except TimeoutError:
        ready, cause = False, f"The database did not answer within {readiness.within:g} s."
    response.status_code = 200 if ready else 503
    response.headers.update(_VERSION)
    return Readiness(database=ready, cause=cause)


@router.get("/metrics", response_class=PlainTextResponse)
def read_metrics(exposition: MetricsText) -> Response:
    """Give the metrics of this process, in Prometheus' text format."""
    return Response(exposition.text(), media_type=CONTENT_TYPE)
