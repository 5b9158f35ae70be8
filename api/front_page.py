"""The front page at `/`: it leads to the pages that this installation has."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from api.http.browsers import content_digest
from settings.environment import ServiceSettings

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
