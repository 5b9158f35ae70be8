"""Small charts as inline SVG: columns of up to two parts, each with its words on a closer look."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

_WIDTH, _HEIGHT, _GAP = 360.0, 64.0, 1.0


@dataclass(frozen=True, slots=True)
class Column:
    """One column: what it says, and its parts from below; the second one is hatched."""

    words: str
    lower: float
    upper: float = 0.0


def bars(columns: Sequence[Column], label: str, tone: str) -> Markup:
    """Draw columns to the scale of the highest; the tone says what the colours mean: see the style sheet."""
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
