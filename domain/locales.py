"""Locales (BCP 47) by CLDR: whose texts serve a locale, its plural forms, and lengths of time in its words."""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from babel import Locale, UnknownLocaleError
from babel.core import get_global, parse_locale
from babel.units import format_unit

LONGEST_LOCALE = 35  # characters, as BCP 47 recommends (RFC 5646, 4.4.1)
# A language, then subtags: as BCP 47 has them, or ICU (en_US@rg=gbzzzz), POSIX (de_DE.UTF-8) and Java (zh_CN_#Hans).
_LOCALE = re.compile(r"([A-Za-z]{2,3})((?:[-_][A-Za-z0-9]{1,8})*)(?![A-Za-z0-9])")
FALLBACK = "en"
_LIKELY = get_global("likely_subtags")  # zh_TW -> zh_Hant_TW
_PARENTS = get_global("parent_exceptions")  # es_MX -> es_419
_ALIASES = get_global("language_aliases")  # iw -> he
_CACHED = 2_000  # locales
_HOUR = 60  # minutes
_COUNTED = 201  # numbers, after which no language begins anew


def locale(value: object) -> str | None:
    """Give a locale in the form of BCP 47, without keywords, encoding or overlong parts; None if it is none."""
    match = _LOCALE.match(value.strip()) if isinstance(value, str) else None
    if match is None:
        return None
    kept = match[1]
    for subtag in match[2].replace("_", "-").split("-")[1:]:
        if len(kept) + 1 + len(subtag) > LONGEST_LOCALE:
            break
        kept = f"{kept}-{subtag}"
    return kept


def language(value: str | None) -> str | None:
    """Give a locale's language in lower case; None if it has none."""
    known = locale(value)
    return None if known is None else known.split("-", 1)[0].lower()


@lru_cache(maxsize=_CACHED)
def fallbacks(tag: str | None) -> tuple[str, ...]:
    """List the locales whose texts serve a locale, the nearest first, in lower case: zh-tw, zh-hant-tw, zh-hant.

    A language written in another script than its usual one does not fall back to the bare language: zh-Hant is not zh.
    """
    known = locale(tag)
    return () if known is None else tuple(dict.fromkeys(each.lower() for each in (known, *_nearby(known))))


@lru_cache(maxsize=_CACHED)
def conventions(tag: str | None) -> Locale | None:
    """Give CLDR's conventions for a locale, or for the nearest that it knows; None if it knows none."""
    for each in fallbacks(tag):
        try:
            return Locale.parse(each, sep="-")
        except (ValueError, UnknownLocaleError):
            continue
    return None


@lru_cache(maxsize=20_000)
def duration(minutes: int, tag: str) -> str:
    """Write a length of time in hours and minutes: 2 hours 5 minutes."""
    spoken = _spoken(tag)
    hours, rest = divmod(max(minutes, 0), _HOUR)
    parts = [format_unit(hours, "duration-hour", locale=spoken)] if hours else []
    if rest or not hours:
        parts.append(format_unit(rest, "duration-minute", locale=spoken))
    return joined(parts, spoken, "unit-narrow", "unit-short", "unit", "standard")


def plural_form(minutes: int, tag: str) -> str:
    """Give CLDR's plural category for `duration`: by its hours where they are whole, else by all its minutes."""
    hours, rest = divmod(minutes, _HOUR)
    return str(_spoken(tag).plural_form(minutes if rest or not hours else hours))


@lru_cache(maxsize=_CACHED)
def plural_forms(tag: str) -> frozenset[str]:
    """Give the plural categories that lengths of time have in a locale."""
    return frozenset(str(_spoken(tag).plural_form(number)) for number in range(_COUNTED))


def is_right_to_left(tag: str) -> bool:
    """Tell whether a locale is written from the right."""
    return _spoken(tag).text_direction == "rtl"


def joined(parts: Sequence[str], spoken: Locale, *styles: str) -> str:
    """Join parts as a list, in the first of these styles that CLDR has for the locale.

    Babel's `format_list` repeats the second part, or fails, where CLDR has no pattern of its own for two (Arabic,
    Spanish). Parts that have blanks inside are not joined without one (Japanese).
    """
    has_blanks = any(" " in part for part in parts)
    written = parts[0] if parts else ""
    for number, part in enumerate(parts[1:], 2):
        names = ["2", "end"] if len(parts) == 2 else ["end", "2"] if number == len(parts) else ["middle", "start", "2"]
        written = _pattern(spoken, styles, names, has_blanks=has_blanks).format(written, part)
    return written


def _pattern(spoken: Locale, styles: Sequence[str], names: Sequence[str], *, has_blanks: bool) -> str:
    for style in styles:
        patterns = spoken.list_patterns.get(style, {})
        for name in names:
            if name in patterns and not (has_blanks and "}{" in patterns[name]):
                return str(patterns[name])
    return "{0}, {1}"


def _spoken(tag: str) -> Locale:
    return conventions(tag) or Locale(FALLBACK)


def _nearby(known: str) -> Iterator[str]:
    """List what serves a locale beside itself."""
    try:
        language, territory, script = parse_locale(known, sep="-")[:3]
    except ValueError:  # subtags that Babel does not know
        yield from (known.rsplit("-", count)[0] for count in range(1, known.count("-") + 1))
        return
    language = _ALIASES.get(language) or language
    usual, here = _LIKELY.get(language, ""), _LIKELY.get(f"{language}_{territory}", "")
    usual_script, its_script = _script(usual), script or _script(here) or _script(usual)
    of_its_script = f"{language}-{its_script}" if its_script else language
    if territory:
        yield f"{of_its_script}-{territory}"
        if its_script == (_script(here) or usual_script):
            yield f"{language}-{territory}"
            yield from _parents(f"{language}_{territory}")
    yield of_its_script
    if its_script == usual_script:
        yield language
        yield from _parents(language)
        if usual:
            yield f"{language}-{usual.rsplit('_', 1)[-1]}"  # pt -> pt-BR


def _parents(name: str) -> Iterator[str]:
    while (name := _PARENTS.get(name, "")) and name != "root":
        yield name.replace("_", "-")


def _script(name: str) -> str | None:
    return next((part for part in name.split("_")[1:] if len(part) == 4), None)
