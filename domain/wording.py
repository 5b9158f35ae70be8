"""Writes a notification: a presentation's texts with values put in, and none of a value's power to disturb them."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

from domain.kinds import Kind
from domain.locales import duration, is_right_to_left, plural_form
from domain.preferences import Preview
from domain.presentation import Forms, Presentation, Template

# Letters that turn the direction of all that follows, up to a pendant that may be missing.
DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_LINES = frozenset("\n\t")
_UNSEEN = {"Cf", "Mn", "Zs", "Zl", "Zp", "Cc"}  # Unicode's categories: joiners, marks and blanks, which make no word
_BLANK_LETTERS = frozenset("\u115f\u1160\u2800\u3164\uffa0")  # Hangul fillers, and Braille without a dot
_COMMAS = r",;:·•\u060c\u3001\uff0c\uff1a"  # Latin, Arabic and wide ones; in front of them and behind may be a blank
_BEFORE = re.compile(rf"(?:\s*[{_COMMAS}]|\s+[-\u2013\u2014])\s*$")  # sets a last part of a clause off
_AFTER = re.compile(rf"^\s*(?:[{_COMMAS}]|[-\u2013\u2014]\s)\s*")
_ENDS = re.compile(rf"^\s*(?:[.!?)\u2026\u3002\uff01\uff1f\u061f{_COMMAS}]|$)")


@dataclass(frozen=True, slots=True)
class Content:
    """What the text of a notification may contain."""

    minutes_left: int = 0  # until the fast's end
    body: str = field(default="", repr=False)  # of the message
    labels: Mapping[str, str] = field(default_factory=dict, repr=False)  # of the fast


@dataclass(frozen=True, slots=True)
class Words:
    """Title and body of a notification."""

    title: str
    body: str


def worded(presentation: Presentation, kind: Kind, locale: str | None, preview: Preview, content: Content) -> Words:
    """Give the text for a phone's locale (BCP 47).

    A title or body is the generic one where a label inside one of its clauses is missing.
    """
    generic = _words(presentation, (kind, Preview.GENERIC), locale, content)
    full = generic if preview is Preview.GENERIC else _words(presentation, (kind, preview), locale, content)
    return Words(full[0] or generic[0] or "", full[1] or generic[1] or "")


def clean(text: str) -> str:
    """Take away what disturbs the text around it: controls of direction, and control characters but line breaks."""
    if text.isprintable():
        return text
    kept = (each for each in text if each not in DIRECTIONS)
    return "".join(" " if unicodedata.category(each) == "Cc" and each not in _LINES else each for each in kept)


def is_seen(text: str) -> bool:
    """Tell whether a reader sees anything of a text."""
    return any(unicodedata.category(each) not in _UNSEEN and each not in _BLANK_LETTERS for each in text)


def _words(
    presentation: Presentation, which: tuple[Kind, Preview], locale: str | None, content: Content
) -> tuple[str | None, str | None]:
    tag, texts = presentation.texts[which].serving(locale)
    left = max(content.minutes_left, 0)
    values = {f"label.{name}": _one_line(value, tag) for name, value in content.labels.items()}
    values |= {"left": duration(left, tag), "text": clean(content.body)}
    body = texts.body if left > 0 or texts.now is None else texts.now
    title, text = (_filled(_form(each, left, tag), values) for each in (texts.title, body))
    return title, text


def _one_line(label: str, tag: str) -> str:
    """Write a label into a text of a locale; one that runs the other way is isolated (Unicode's annex 9)."""
    line = " ".join(clean(label).split())
    if not is_seen(line):
        return ""
    other = {"L"} if is_right_to_left(tag) else {"R", "AL"}
    return f"\u2068{line}\u2069" if any(unicodedata.bidirectional(each) in other for each in line) else line


def _form(forms: Forms, left: int, tag: str) -> Template:
    return forms["other"] if len(forms) == 1 else forms.get(plural_form(left, tag), forms["other"])


def _filled(template: Template, values: Mapping[str, str]) -> str | None:
    """Put the values in; None where a label is missing that cannot be left out.

    A missing label leaves with the comma, colon or dash that sets it off.
    """
    written, rest = "", list(template)
    while rest:
        part = rest.pop(0)
        if isinstance(part, str):
            written += part
            continue
        value = values.get(part.name, "")
        if value or not part.name.startswith("label."):
            written += value
            continue
        follows = rest[0] if rest and isinstance(rest[0], str) else ""
        set_off = _BEFORE.search(written)
        if set_off and _ENDS.match(follows) and (follows or not rest):
            written = written[: set_off.start()]
        elif not written and (after := _AFTER.match(follows)):
            rest[0] = follows[after.end() :]
        else:
            return None
    return written
