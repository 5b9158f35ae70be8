"""Pages from templates, always escaped, with the charts and filters that they share."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from api.console import figures
from api.console.session import Operator
from api.http.browsers import content_digest
from db.views.search import MAX_FOUND
from domain.devices import SHOWS_NOTHING

_WIDTH, _HEIGHT, _GAP = 360.0, 64.0, 1.0


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a chart: its title, and its parts from below; the upper one is hatched."""

    words: str
    lower: float
    upper: float = 0.0


def bars(columns: Sequence[Column], label: str, tone: str) -> Markup:
    """Draw columns, scaled to the highest. `tone` is a class of the style sheet."""
    highest = max((column.lower + column.upper for column in columns), default=0.0) or 1.0
    width = _WIDTH / max(len(columns), 1)
    drawn = Markup("").join(
        _column(column, place * width, width - _GAP, highest) for place, column in enumerate(columns)
    )
    return _CHART.format(tone=tone, label=label, width=_WIDTH, height=_HEIGHT, base=_HEIGHT - 0.5, columns=drawn)


def _column(column: Column, x: float, width: float, highest: float) -> Markup:
    lower, upper = (_HEIGHT * part / highest for part in (column.lower, column.upper))
    parts = Markup("")
    if lower:
        parts += _PART.format(name="lower", x=x, y=_HEIGHT - max(lower, 1.5), width=width, height=max(lower, 1.5))
    if upper:
        top = _HEIGHT - lower - max(upper, 1.5)
        for name in ("upper", "hatch"):
            parts += _PART.format(name=name, x=x, y=top, width=width, height=max(upper, 1.5))
    return _COLUMN.format(words=column.words, x=x, width=width, height=_HEIGHT, parts=parts)


_CHART = Markup(
    '<svg class="chart {tone}" role="img" aria-label="{label}" viewBox="0 0 {width:g} {height:g}"'
    ' preserveAspectRatio="none">'
    '<line class="base" x1="0" x2="{width:g}" y1="{base:g}" y2="{base:g}"/>{columns}</svg>'
)

_COLUMN = Markup(
    '<g class="column"><title>{words}</title>'
    '<rect class="room" x="{x:.2f}" y="0" width="{width:.2f}" height="{height:g}"/>{parts}</g>'
)

_PART = Markup('<rect class="{name}" x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}"/>')
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

SCRIPT = content_digest(_templates.get_template("times.js").render())
_templates.globals.update(style_version=STYLE_VERSION, bars=bars, shows_nothing=SHOWS_NOTHING, most_found=MAX_FOUND)


def page(
    request: Request,
    name: str,
    operator: Operator | None = None,
    *,
    status: int = 200,
    **shown: Any,  # noqa: ANN401 -- each page shows its own
) -> HTMLResponse:
    """Render a page, with the navigation if somebody is signed in."""
    template = _templates.get_template(f"{name}.html")
    return HTMLResponse(template.render(operator=operator, here=request.url.path, **shown), status)


router = APIRouter()


@router.get("/style.css")
async def style() -> Response:
    """Give the style sheet. Its address changes with its content, so it may be cached."""
    return Response(STYLE, media_type="text/css", headers={"Cache-Control": "private, max-age=31536000, immutable"})
