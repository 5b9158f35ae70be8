"""Pages from templates, always escaped: how they write numbers, instants, routes and words, and draw charts."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from api.console.session import Operator
from api.http.browsers import content_digest
from db.views.gates import ROUTE_STATES
from db.views.search import MAX_FOUND
from domain.devices import SHOWS_NOTHING, Permission
from domain.preferences import in_words
from domain.push import Provider
from domain.reasons import is_unclear, why, why_not, why_so, why_then

_SPACE = "\N{NARROW NO-BREAK SPACE}"
_NONE = "\N{EN DASH}"
_NOTHING = Markup("\N{EN DASH}")
_WRITTEN = re.compile(r"(\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC)")
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))
PROVIDER_NAMES = {Provider.APNS: "APNs", Provider.FCM: "FCM"}


_PERMISSIONS = {
    Permission.UNDETERMINED: "not asked yet",
    Permission.GRANTED: "allowed",
    Permission.PROVISIONAL: "allowed provisionally: in the list, without sound",
    Permission.DENIED: "switched off",
}


class _OnRoute(Protocol):
    @property
    def provider(self) -> Provider: ...

    @property
    def app_id(self) -> str | None: ...


class _Outcome(Protocol):
    @property
    def outcome(self) -> str | None: ...

    @property
    def reason(self) -> str | None: ...


class _Call(Protocol):
    @property
    def provider(self) -> Provider: ...

    @property
    def reason(self) -> str | None: ...


def count(number: float | None) -> str:
    """Write a number with its thousands separated."""
    return _NONE if number is None else f"{number:,.0f}".replace(",", _SPACE)


def seconds(duration: float | timedelta | None) -> str:
    """Write a duration in a suitable unit."""
    if duration is None:
        return _NONE
    value = duration.total_seconds() if isinstance(duration, timedelta) else float(duration)
    size = abs(value)
    if size < 0.9995:
        return f"{value * 1000:.0f}{_SPACE}ms"
    if size < 120:
        return f"{value:.1f}{_SPACE}s" if size < 10 else f"{value:.0f}{_SPACE}s"
    divisor, unit = next((each for each in _UNITS if size >= 2 * each[0]), _UNITS[-1])
    return f"{value / divisor:.0f}{_SPACE}{unit}"


def share(part: float, whole: float) -> str:
    """Write a share in percent. Only all is 100 %, and only none is 0 %."""
    if not whole:
        return _NONE
    percent = 100 * part / whole
    if 99.9 < percent < 100:
        percent = 99.9
    if 0 < percent < 0.1:
        percent = 0.1
    return f"{percent:.0f}{_SPACE}%" if percent in {0, 100} else f"{percent:.1f}{_SPACE}%"


def ago(at: datetime | None) -> Markup:
    """Write how long ago an instant was, or how soon it is; its title has the instant."""
    if at is None:
        return _NOTHING
    passed = (datetime.now(UTC) - at).total_seconds()
    if abs(passed) < 1:
        words = "now"
    else:
        words = f"{seconds(round(passed))} ago" if passed > 0 else f"in {seconds(round(-passed))}"
    return _time(at, words.replace(f".0{_SPACE}", _SPACE), "ago")


def instant(at: datetime | None, zone: ZoneInfo | None = None) -> Markup:
    """Write an instant to the second, in UTC; without its day if that is today. `zone`: write its clock beside it.

    The console's script writes it in the zone of the browser instead.
    """
    if at is None:
        return _NOTHING
    today = at.astimezone(UTC).date() == datetime.now(UTC).date()
    written = _time(at, f"{at.astimezone(UTC):{'%H:%M:%S' if today else '%Y-%m-%d %H:%M:%S'}} UTC", "instant")
    return written + _theirs(at, zone)


def sentence(text: str, zone: ZoneInfo | None = None) -> Markup:
    """Write a sentence of a timeline; the script writes its instants, too, in the zone of the browser."""
    parts, written = _WRITTEN.split(text), Markup()
    for place, part in enumerate(parts):
        at = _read(part) if place % 2 else None
        written += escape(part) if at is None else _time(at, part, "instant") + _theirs(at, zone)
    return written


def clock(at: datetime) -> Markup:
    """Write a time of day, in UTC."""
    return _time(at, f"{at.astimezone(UTC):%H:%M}", "clock")


def city(zone: ZoneInfo) -> str:
    """Name a time zone shortly."""
    return in_words(zone.key).rpartition("/")[2].replace("_", " ")


def filled(fields: Mapping[str, object]) -> dict[str, object]:
    """Leave out empty fields."""
    return {name: value for name, value in fields.items() if value}


def route(of: _OnRoute) -> str:
    """Name a route; its environment only if it is not production."""
    environment = getattr(of, "environment", "production")
    parts = (PROVIDER_NAMES[of.provider], of.app_id, None if environment == "production" else environment)
    return " · ".join(filter(None, parts))


def words(name: str | None) -> str:
    """Write an enum value as words."""
    return _NONE if name is None else str(name).replace("_", " ")


def permission(state: Permission | None) -> str:
    """Say whether a phone's system lets the app show notifications."""
    return _NONE if state is None else _PERMISSIONS[state]


def because(of: _Call) -> str:
    """Say what a provider's reason means, or why a push has its state."""
    state = getattr(of, "state", None)
    return why(of.reason, of.provider) if state is None else why_so(state, of.reason, of.provider)


def outcome(of: _Outcome) -> str | None:
    """Name the outcome of a call; `unknown` only if the provider may have taken the push."""
    return "unavailable" if of.outcome == "unknown" and not is_unclear(of.outcome, of.reason) else of.outcome


def _time(at: datetime, text: str, form: str) -> Markup:
    """Write an element; `form` says how the script writes it."""
    exact = at.astimezone(UTC)
    title = f"{exact:%Y-%m-%d %H:%M:%S}.{exact.microsecond // 1000:03} UTC"
    element = Markup('<time datetime="{}" title="{}" data-as="{}">{}</time>')
    return element.format(exact.isoformat(timespec="milliseconds"), title, form, text)


def _theirs(at: datetime, zone: ZoneInfo | None) -> Markup:
    """Write a person's clock beside an instant, unless it shows UTC."""
    if zone is None or not (offset := at.astimezone(zone).utcoffset()):
        return Markup()
    theirs = (at.astimezone(UTC) + offset).replace(tzinfo=None)
    element = Markup('<span class="theirs" data-clock="{}"> ({}, {})</span>')
    return element.format(f"{theirs:%Y-%m-%d %H:%M:%S}", f"{theirs:%a %H:%M:%S}", city(zone))


def _read(written: str) -> datetime | None:
    try:
        return datetime.fromisoformat(written.removesuffix(" UTC")).replace(tzinfo=UTC)
    except ValueError:
        return None


FILTERS: Mapping[str, Callable[..., Any]] = {
    "clock": clock,
    "count": count,
    "filled": filled,
    "provider": PROVIDER_NAMES.__getitem__,
    "seconds": seconds,
    "share": share,
    "ago": ago,
    "because": because,
    "instant": instant,
    "sentence": sentence,
    "city": city,
    "outcome": outcome,
    "permission": permission,
    "route": route,
    "why": why,
    "why_not": why_not,
    "why_so": why_so,
    "why_then": why_then,
    "words": words,
    "zone": in_words,
    "sending": ROUTE_STATES.__getitem__,
}


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

_templates.filters.update(FILTERS)

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
