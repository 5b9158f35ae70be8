"""The texts of notifications: one catalogue, with an entry for each language.

To add a language, add an entry to `_CATALOGUE`. To add a kind, add its texts to `Texts` and its words to `_FULL`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from domain.devices import language
from domain.kinds import Kind
from domain.preferences import Preview


@dataclass(frozen=True, slots=True)
class Content:
    """What the text of a notification may contain."""

    minutes_left: int = 0  # until the fast's end
    body: str = field(default="", repr=False)  # of the message


@dataclass(frozen=True, slots=True)
class Words:
    """Title and body of a notification."""

    title: str
    body: str


@dataclass(frozen=True, slots=True)
class Texts:
    """One language's texts."""

    reminder_title: str
    reminder_now: str
    reminder_minutes: Mapping[str, str]  # plural category -> text with {n}
    reminder_hours: Mapping[str, str]
    message_title: str
    test: Words
    generic: Mapping[Kind, Words]  # without any content


_CATALOGUE: Mapping[str, Texts] = {
    "en": Texts(
        reminder_title="Your fast is almost over",
        reminder_now="You have reached your goal.",
        reminder_minutes={"one": "{n} minute to go.", "other": "{n} minutes to go."},
        reminder_hours={"one": "{n} hour to go.", "other": "{n} hours to go."},
        message_title="New message",
        test=Words("Test notification", "Notifications reach this phone."),
        generic={
            Kind.REMINDER: Words("Reminder", "Open the app to see it."),
            Kind.MESSAGE: Words("New message", "Open the app to read it."),
            Kind.TEST: Words("Test notification", "Notifications reach this phone."),
        },
    ),
    "de": Texts(
        reminder_title="Dein Fasten ist fast geschafft",
        reminder_now="Du hast dein Ziel erreicht.",
        reminder_minutes={"one": "Noch {n} Minute.", "other": "Noch {n} Minuten."},
        reminder_hours={"one": "Noch {n} Stunde.", "other": "Noch {n} Stunden."},
        message_title="Neue Nachricht",
        test=Words("Testnachricht", "Mitteilungen erreichen dieses Telefon."),
        generic={
            Kind.REMINDER: Words("Erinnerung", "Öffne die App, um sie zu sehen."),
            Kind.MESSAGE: Words("Neue Nachricht", "Öffne die App, um sie zu lesen."),
            Kind.TEST: Words("Testnachricht", "Mitteilungen erreichen dieses Telefon."),
        },
    ),
}
_FALLBACK = "en"


def worded(kind: Kind, locale: str | None, preview: Preview, content: Content) -> Words:
    """Give the text in the language of `locale` (BCP 47), or else in English."""
    texts = _CATALOGUE.get(language(locale) or _FALLBACK, _CATALOGUE[_FALLBACK])
    return texts.generic[kind] if preview is Preview.GENERIC else _FULL[kind](texts, content)


def _reminder(texts: Texts, content: Content) -> Words:
    left = content.minutes_left
    if left <= 0:
        return Words(texts.reminder_title, texts.reminder_now)
    if left % 60 == 0:
        return Words(texts.reminder_title, _plural(texts.reminder_hours, left // 60))
    return Words(texts.reminder_title, _plural(texts.reminder_minutes, left))


def _message(texts: Texts, content: Content) -> Words:
    return Words(texts.message_title, content.body)


def _test(texts: Texts, _: Content) -> Words:
    return texts.test


_FULL: Mapping[Kind, Callable[[Texts, Content], Words]] = {
    Kind.REMINDER: _reminder,
    Kind.MESSAGE: _message,
    Kind.TEST: _test,
}


def _plural(forms: Mapping[str, str], n: int) -> str:
    return forms["one" if n == 1 else "other"].format(n=n)
