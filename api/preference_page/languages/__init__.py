"""The languages of the page: a catalogue with one entry, and one file, for each language.

To add a language, add its file and its line here. Babel brings plurals, lists, times and writing directions.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from babel import Locale, UnknownLocaleError

from api.preference_page.languages import de, en
from api.preference_page.words import PageWords
from domain.devices import language, locale

CATALOGUE: dict[str, PageWords] = {"en": en.WORDS, "de": de.WORDS}  # by language or by whole tag; tests add to it
FALLBACK = "en"


@dataclass(frozen=True, slots=True)
class Speech:
    """A language: its words and its conventions."""

    tag: str  # BCP 47, for `lang`
    direction: str  # ltr or rtl
    words: PageWords
    locale: Locale  # for times, lengths, lists


def speech(wanted: str | None) -> Speech:
    """Find the language for a locale (BCP 47); English if it is not in the catalogue."""
    tag = locale(wanted) or FALLBACK
    spoken = _of(CATALOGUE, tag, language(tag))
    if spoken is None:
        tag, spoken = FALLBACK, CATALOGUE[FALLBACK]
    conventions = _conventions(tag)
    return Speech(tag, conventions.text_direction, spoken, conventions)


def _of(catalogue: Mapping[str, PageWords], tag: str, its_language: str | None) -> PageWords | None:
    return catalogue.get(tag) or catalogue.get(its_language or FALLBACK)


def _conventions(tag: str) -> Locale:
    """Give Babel's conventions for a tag, or for its language if Babel does not know the tag."""
    for each in (tag, tag.split("-", 1)[0]):
        try:
            return Locale.parse(each, sep="-")
        except (ValueError, UnknownLocaleError):
            continue
    return Locale.parse(FALLBACK)


_MAX_ACCEPTED = 20


def chosen(header: str | None, phone: str | None = None) -> str:
    """Choose the preferred locale (BCP 47) that has a catalogue; English if there is none.

    `header`: Accept-Language (RFC 9110, 12.5.4), unchecked. `phone`: the locale of the user's phone.
    """
    preferred = [*_accepted(header or ""), locale(phone)]
    return next((each for each in preferred if each and (each in CATALOGUE or language(each) in CATALOGUE)), FALLBACK)


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
