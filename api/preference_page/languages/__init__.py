"""The languages of the page: one TOML file for each, named by its locale, with the texts of `PageWords`.

To add a language, add its file. Babel brings plurals, lists, times and writing directions.
"""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files

from babel import Locale

from api.preference_page.words import PageWords
from domain.locales import FALLBACK, conventions, fallbacks, locale


def _catalogue() -> Iterator[tuple[str, PageWords]]:
    for file in sorted(files(__package__).iterdir(), key=lambda each: each.name):
        if file.name.endswith(".toml"):
            yield file.name.removesuffix(".toml"), PageWords(**tomllib.loads(file.read_text(encoding="utf-8")))


CATALOGUE = dict(_catalogue())  # by locale; tests add to it


@dataclass(frozen=True, slots=True)
class Speech:
    """A language: its words and its conventions."""

    tag: str  # BCP 47, for `lang`
    direction: str  # ltr or rtl
    words: PageWords
    locale: Locale  # for times, lengths, lists


def speech(wanted: str | None) -> Speech:
    """Find the language for a locale (BCP 47); English if none in the catalogue serves it."""
    tag, words = locale(wanted) or FALLBACK, _serving(wanted)
    if words is None:
        tag, words = FALLBACK, CATALOGUE[FALLBACK]
    spoken = conventions(tag) or Locale(FALLBACK)
    return Speech(tag, spoken.text_direction, words, spoken)


def _serving(wanted: str | None) -> PageWords | None:
    catalogue = {tag.lower(): words for tag, words in CATALOGUE.items()}
    return next((catalogue[each] for each in fallbacks(wanted) if each in catalogue), None)


_MAX_ACCEPTED = 20


def chosen(header: str | None, phone: str | None = None) -> str:
    """Choose the preferred locale (BCP 47) that has a catalogue; English if there is none.

    `header`: Accept-Language (RFC 9110, 12.5.4), unchecked. `phone`: the locale of the user's phone.
    """
    preferred = [*_accepted(header or ""), locale(phone)]
    return next((each for each in preferred if each and _serving(each)), FALLBACK)


def _accepted(header: str) -> Iterator[str]:
    weighed: list[tuple[float, str]] = []
    for each in header.split(",")[:_MAX_ACCEPTED]:
        tag, _, parameter = each.partition(";")
        known, weight = locale(tag), _weight(parameter)
        if known is not None and weight > 0:
            weighed.append((weight, known))
    yield from (tag for _, tag in sorted(weighed, key=lambda one: -one[0]))


def _weight(parameter: str) -> float:
    name, _, value = parameter.strip().partition("=")
    try:
        return float(value) if name.strip().lower() == "q" else 1.0
    except ValueError:
        return 0.0
