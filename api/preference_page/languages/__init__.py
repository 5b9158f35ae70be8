"""The languages that the page speaks: one catalogue, a language an entry, each in a file of its own.

To add a language, write its file and its line here. All else, which plurals, lists, times and writing directions a
language has, Babel knows.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from babel import Locale, UnknownLocaleError

from api.preference_page.languages import de, en
from api.preference_page.words import PageWords
from domain.devices import language, locale

CATALOGUE: dict[str, PageWords] = {"en": en.WORDS, "de": de.WORDS}  # by language, or by whole tag; tests add to it

FALLBACK = "en"


@dataclass(frozen=True, slots=True)
class Speech:
    """How a page is said."""

    tag: str  # BCP 47, for `lang`
    direction: str  # ltr or rtl
    words: PageWords
    locale: Locale  # for times, lengths, lists


def speech(wanted: str | None) -> Speech:
    """Find what is spoken to somebody with this locale (BCP 47): English where their language is not spoken."""
    tag = locale(wanted) or FALLBACK
    spoken = _of(CATALOGUE, tag, language(tag))
    if spoken is None:
        tag, spoken = FALLBACK, CATALOGUE[FALLBACK]
    conventions = _conventions(tag)
    return Speech(tag, conventions.text_direction, spoken, conventions)


def _of(catalogue: Mapping[str, PageWords], tag: str, its_language: str | None) -> PageWords | None:
    return catalogue.get(tag) or catalogue.get(its_language or FALLBACK)


def _conventions(tag: str) -> Locale:
    """Give the conventions of a tag, of its language where the whole means nothing to Babel."""
    for each in (tag, tag.split("-", 1)[0]):
        try:
            return Locale.parse(each, sep="-")
        except (ValueError, UnknownLocaleError):
            continue
    return Locale.parse(FALLBACK)


_MAX_WISHES = 20


def chosen(header: str | None, phone: str | None = None) -> str:
    """Give the locale (BCP 47) that somebody likes best of those that the page speaks; English where there is none.

    `header`: Accept-Language (RFC 9110, 12.5.4), whatever it says; `phone`: the locale of their phone.
    """
    wishes = [*_wishes(header or ""), locale(phone)]
    return next((each for each in wishes if each and (each in CATALOGUE or language(each) in CATALOGUE)), FALLBACK)


def _wishes(header: str) -> Iterator[str]:
    weighed: list[tuple[float, str]] = []
    for each in header.split(",")[:_MAX_WISHES]:
        tag, _, parameter = each.partition(";")
        found, weight = locale(tag), _weight(parameter)
        if found is not None and weight > 0:
            weighed.append((weight, found))
    yield from (tag for _, tag in sorted(weighed, key=lambda one: -one[0]))


def _weight(parameter: str) -> float:
    name, _, value = parameter.strip().partition("=")
    try:
        return float(value) if name.strip().lower() == "q" else 1.0
    except ValueError:
        return 0.0
