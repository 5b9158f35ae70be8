"""What a notification says: one catalogue, a language an entry.

To add a language, add an entry to `_CATALOGUE`: every field of `_Texts` has to be given, so none can be forgotten.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from domain.preferences import Preview


@dataclass(frozen=True, slots=True)
class _Texts:
    reminder_title: str
    reminder_now: str
    reminder_minutes: Mapping[str, str]  # plural category -> text with {n}
    reminder_hours: Mapping[str, str]
    generic_title: str
    generic_body: str


_CATALOGUE: Mapping[str, _Texts] = {
    "en": _Texts(
        reminder_title="Your fast is almost over",
        reminder_now="You have reached your goal.",
        reminder_minutes={"one": "{n} minute to go.", "other": "{n} minutes to go."},
        reminder_hours={"one": "{n} hour to go.", "other": "{n} hours to go."},
        generic_title="Reminder",
        generic_body="Open the app to see it.",
    ),
    "de": _Texts(
        reminder_title="Dein Fasten ist fast geschafft",
        reminder_now="Du hast dein Ziel erreicht.",
        reminder_minutes={"one": "Noch {n} Minute.", "other": "Noch {n} Minuten."},
        reminder_hours={"one": "Noch {n} Stunde.", "other": "Noch {n} Stunden."},
        generic_title="Erinnerung",
        generic_body="Öffne die App, um sie zu sehen.",
    ),
}
_FALLBACK = "en"


def reminder_wording(locale: str | None, preview: Preview, minutes_left: int) -> tuple[str, str]:
    """Give title and body of a reminder in the language of `locale` (BCP 47), English where we lack it."""
    texts = _CATALOGUE.get(_language(locale), _CATALOGUE[_FALLBACK])
    if preview is Preview.GENERIC:
        return texts.generic_title, texts.generic_body
    if minutes_left <= 0:
        return texts.reminder_title, texts.reminder_now
    if minutes_left % 60 == 0:
        return texts.reminder_title, _plural(texts.reminder_hours, minutes_left // 60)
    return texts.reminder_title, _plural(texts.reminder_minutes, minutes_left)


def _language(locale: str | None) -> str:
    return (locale or _FALLBACK).replace("_", "-").split("-", 1)[0].lower()


def _plural(forms: Mapping[str, str], n: int) -> str:
    return forms["one" if n == 1 else "other"].format(n=n)
