"""What a process says of itself: the front page at `/`, liveness, readiness, metrics."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import BaseModel, Field

from api.dependencies import MetricsText, Ready
from api.http.browsers import content_digest
from domain.naming import VERSION
from settings.environment import ServiceSettings
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


_POLICY = (
    "default-src 'none'; style-src '{digest}'; img-src data:; form-action 'none'; frame-ancestors 'none'; "
    "base-uri 'none'"
)


@dataclass(frozen=True, slots=True)
class LinkedPage:
    """A page that the front page leads to."""

    address: str
    name: str
    says: str


def front_page(settings: ServiceSettings) -> HTMLResponse:
    """Make the page. It is the same for everybody, and needs neither the database nor a sign-in."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    digest = content_digest(templates.get_template("front_page.css").render())
    headers = {"Content-Security-Policy": _POLICY.format(digest=digest), "Cache-Control": "no-cache"}
    shown = templates.get_template("front_page.html").render(pages=list(_pages(settings)))
    return HTMLResponse(shown, headers=headers)


def _pages(settings: ServiceSettings) -> Iterator[LinkedPage]:
    """List what exists. The page is public, so nothing on it names an address that only operators should know."""
    yield LinkedPage("/docs", "API documentation", "Every route, with examples. Its source is /openapi.json.")
    yield LinkedPage("/console/", "Console", "For operators and support: what needs a person, and why no push came.")
    if settings.phones_url is not None:
        yield LinkedPage(settings.phones_url, "Phones", "The simulated phones of this installation, and their screens.")
    yield LinkedPage("/readyz", "Status", "Whether this process accepts requests now: 200 if it does, 503 if not.")
