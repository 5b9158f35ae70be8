"""How an app's notifications look: link, badge, sound, channel, level, and texts in each language.

A text is written with values put in, and none of a value's power to disturb it.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from domain.kinds import RULES, Kind
from domain.locales import duration, fallbacks, is_right_to_left, plural_form
from domain.preferences import Preview

# Letters that turn the direction of all that follows, up to a pendant that may be missing.
DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_LINES = frozenset("\n\t")
_UNSEEN = {"Cf", "Mn", "Zs", "Zl", "Zp", "Cc"}  # Unicode's categories: joiners, marks and blanks, which make no word
_BLANK_LETTERS = frozenset("\u115f\u1160\u2800\u3164\uffa0")  # Hangul fillers, and Braille without a dot
_COMMAS = r",;:·•\u060c\u3001\uff0c\uff1a"  # Latin, Arabic and wide ones; in front of them and behind may be a blank
_BEFORE = re.compile(rf"(?:\s*[{_COMMAS}]|\s+[-\u2013\u2014])\s*$")  # sets a last part of a clause off
_AFTER = re.compile(rf"^\s*(?:[{_COMMAS}]|[-\u2013\u2014]\s)\s*")
_ENDS = re.compile(rf"^\s*(?:[.!?)\u2026\u3002\uff01\uff1f\u061f{_COMMAS}]|$)")


class Badge(StrEnum):
    """What the number on an app's icon counts."""

    NONE = "none"  # pushes do not set it
    UNREAD = "unread"  # items of the log that this installation has not synced


class InterruptionLevel(StrEnum):
    """Apple's interruption level of a notification that may sound."""

    PASSIVE = "passive"
    ACTIVE = "active"
    TIME_SENSITIVE = "time-sensitive"


class DeliveryPriority(StrEnum):
    """How urgently Google delivers to a sleeping phone."""

    HIGH = "high"
    NORMAL = "normal"


@dataclass(frozen=True, slots=True)
class Look:
    """How phones show one kind of notification, beside its text."""

    sound: str = "default"  # or a file of the app; empty: none
    channel: str | None = None  # Android's; None, or one that the app lacks: its default channel
    quiet_channel: str = "quiet"  # Android's, of low importance, for a push without a sound
    category: str | None = None  # APNs
    level: InterruptionLevel | None = None  # APNs; None: Apple's default, active
    relevance: float | None = None  # APNs, 0 to 1
    thread: str | None = None  # APNs; `{id}` is the fast or conversation. None: each of them by itself
    priority: DeliveryPriority = DeliveryPriority.HIGH  # Android
    icon: str | None = None  # Android: a drawable of the app
    color: str | None = None  # Android: #rrggbb


@dataclass(frozen=True, slots=True)
class Gap:
    """Where a text has a value: left, text, or label.NAME."""

    name: str


Template = tuple[str | Gap, ...]  # literal text and gaps; values are put in as they are, never read as templates
Forms = Mapping[str, Template]  # by CLDR's plural category; `other` is always there


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts of one kind in one locale."""

    title: Forms
    body: Forms
    now: Forms | None = None  # body of a reminder at the end itself; None: `body`


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The texts of one kind in all locales."""

    of: Mapping[str, Texts]  # by BCP 47 tag in lower case
    default: str  # the tag for phones that none of them serves

    def serving(self, locale: str | None) -> tuple[str, Texts]:
        """Find the texts for a phone's locale, and their tag."""
        tag = next((each for each in fallbacks(locale) if each in self.of), self.default)
        return tag, self.of[tag]


@dataclass(frozen=True, slots=True)
class Presentation:
    """All of one app's presentation, as one version of its file has it."""

    link: str  # with `{path}`
    badge: Badge
    looks: Mapping[Kind, Look]
    texts: Mapping[tuple[Kind, Preview], Catalogue]
    own: frozenset[str] = field(default=frozenset(), compare=False)  # keys of texts that the app's file has

    def url(self, kind: Kind, conversation_id: UUID) -> str:
        """Give the deep link that a tap opens."""
        return self.link.replace("{path}", RULES[kind].path_to(conversation_id))

    def thread_id(self, kind: Kind, conversation_id: UUID, default: str) -> str:
        """Name the group of notifications on an iPhone's lock screen."""
        thread = self.looks[kind].thread
        return default if thread is None else thread.replace("{id}", str(conversation_id))


class Presentations:
    """The presentation of each app. A file that changes replaces its app's presentation as a whole."""

    def __init__(self, default: Presentation, named: Mapping[str, Presentation] | None = None) -> None:
        """`named` are the apps of APPS_FILE; None: all phones belong to the default app."""
        self._default, self._named = default, named

    def of(self, app_id: str | None) -> Presentation:
        """Find an app's presentation; that of the default app where no app has its own."""
        return self._default if self._named is None or app_id is None else self._named.get(app_id, self._default)

    def at_present(self) -> "Presentations":
        """Give these as they are now, whatever changes afterwards."""
        return Presentations(self._default, self._named)

    def replace(self, default: Presentation, named: Mapping[str, Presentation] | None) -> None:
        """Use these from now on."""
        self._default, self._named = default, named


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
