"""In which language the page is shown: what the browser asks for, else what the person's phone speaks."""

from collections.abc import Iterator

from api.preference_page.languages import CATALOGUE, FALLBACK
from domain.registration import language, locale

_MOST_WISHES = 20


def chosen(header: str | None, phone: str | None = None) -> str:
    """Give the locale (BCP 47) that somebody likes best of those that the page speaks; English where there is none.

    `header`: Accept-Language (RFC 9110, 12.5.4), whatever it says; `phone`: the locale of their phone.
    """
    wishes = [*_wishes(header or ""), locale(phone)]
    return next((each for each in wishes if each and (each in CATALOGUE or language(each) in CATALOGUE)), FALLBACK)


def _wishes(header: str) -> Iterator[str]:
    weighed: list[tuple[float, str]] = []
    for each in header.split(",")[:_MOST_WISHES]:
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
