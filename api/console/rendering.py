"""Pages from templates: escaped whatever they show, with the words and figures that all of them share."""

import hashlib
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from api.console import charts, figures
from api.console.door import Visitor
from domain.devices import SHOWS_NOTHING

_HERE = Path(__file__).parent
STYLE = (_HERE / "style.css").read_bytes()
STYLE_VERSION = hashlib.sha256(STYLE).hexdigest()[:12]

_templates = Environment(
    loader=FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters.update(figures.FILTERS)
_templates.globals.update(style_version=STYLE_VERSION, bars=charts.bars, shows_nothing=SHOWS_NOTHING)


def page(
    request: Request,
    name: str,
    visitor: Visitor | None = None,
    *,
    status: int = 200,
    **shown: Any,  # noqa: ANN401 -- whatever a page shows
) -> HTMLResponse:
    """Render a page, for somebody who is signed in or for anybody."""
    template = _templates.get_template(f"{name}.html")
    return HTMLResponse(template.render(visitor=visitor, here=request.url.path, **shown), status)
