"""The languages that the page speaks: one catalogue, a language an entry, each in a file of its own.

To add a language, write its file and its line here. All else, which plurals, lists, times and writing directions a
language has, Babel knows.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from babel import Locale, UnknownLocaleError

from api.preference_page.languages import de, en
from api.preference_page.words import Words
from domain.registration import language, locale

CATALOGUE: dict[str, Words] = {"en": en.WORDS, "de": de.WORDS}  # by language, or by whole tag; tests add to it
FALLBACK = "en"


@dataclass(frozen=True, slots=True)
class Speech:
    """How a page is said."""

    tag: str  # BCP 47, for `lang`
    direction: str  # ltr or rtl
    words: Words
    locale: Locale  # for times, lengths, lists


def speech(wanted: str | None) -> Speech:
    """Find what is spoken to somebody with this locale (BCP 47): English where their language is not spoken."""
    tag = locale(wanted) or FALLBACK
    spoken = _of(CATALOGUE, tag, language(tag))
    if spoken is None:
        tag, spoken = FALLBACK, CATALOGUE[FALLBACK]
    conventions = _conventions(tag)
    return Speech(tag, conventions.text_direction, spoken, conventions)


def _of(catalogue: Mapping[str, Words], tag: str, its_language: str | None) -> Words | None:
    return catalogue.get(tag) or catalogue.get(its_language or FALLBACK)


def _conventions(tag: str) -> Locale:
    """Give the conventions of a tag, of its language where the whole means nothing to Babel."""
    for each in (tag, tag.split("-", 1)[0]):
        try:
            return Locale.parse(each, sep="-")
        except (ValueError, UnknownLocaleError):
            continue
    return Locale.parse(FALLBACK)
