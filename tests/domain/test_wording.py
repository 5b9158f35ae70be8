"""What a notification says, whole."""

import pytest

from domain.kinds import Kind
from domain.preferences import Preview
from domain.wording import Content, Words, worded

ENGLISH, GERMAN = "Your fast is almost over", "Dein Fasten ist fast geschafft"


@pytest.mark.parametrize(
    ("locale", "minutes", "title", "body"),
    [
        ("en", 30, ENGLISH, "30 minutes to go."),
        ("en", 1, ENGLISH, "1 minute to go."),
        ("en", 60, ENGLISH, "1 hour to go."),
        ("en", 120, ENGLISH, "2 hours to go."),
        ("en", 1440, ENGLISH, "24 hours to go."),
        ("en", 90, ENGLISH, "90 minutes to go."),
        ("en", 0, ENGLISH, "You have reached your goal."),
        ("de", 30, GERMAN, "Noch 30 Minuten."),
        ("de", 1, GERMAN, "Noch 1 Minute."),
        ("de", 60, GERMAN, "Noch 1 Stunde."),
        ("de", 180, GERMAN, "Noch 3 Stunden."),
        ("de", 0, GERMAN, "Du hast dein Ziel erreicht."),
        ("de-AT", 5, GERMAN, "Noch 5 Minuten."),
        ("de_CH", 5, GERMAN, "Noch 5 Minuten."),
        ("DE", 5, GERMAN, "Noch 5 Minuten."),
        ("de_DE@currency=eur", 5, GERMAN, "Noch 5 Minuten."),
        ("de@x\0", 5, GERMAN, "Noch 5 Minuten."),
        ("en-GB", 5, ENGLISH, "5 minutes to go."),
        ("fr", 5, ENGLISH, "5 minutes to go."),
        ("den", 5, ENGLISH, "5 minutes to go."),
        ("-", 5, ENGLISH, "5 minutes to go."),
        ("", 5, ENGLISH, "5 minutes to go."),
        (None, 5, ENGLISH, "5 minutes to go."),
    ],
)
def test_a_reminder_speaks_the_phones_language_and_english_where_we_lack_it(
    locale: str | None, minutes: int, title: str, body: str
) -> None:
    assert worded(Kind.REMINDER, locale, Preview.FULL, Content(minutes_left=minutes)) == Words(title, body)


@pytest.mark.parametrize(
    ("locale", "wording"),
    [
        ("en", ("Reminder", "Open the app to see it.")),
        ("de", ("Erinnerung", "Öffne die App, um sie zu sehen.")),
        ("fr", ("Reminder", "Open the app to see it.")),
    ],
)
@pytest.mark.parametrize("minutes", [0, 1, 30])
def test_a_generic_reminder_gives_nothing_away(locale: str, wording: tuple[str, str], minutes: int) -> None:
    assert worded(Kind.REMINDER, locale, Preview.GENERIC, Content(minutes_left=minutes)) == Words(*wording)


@pytest.mark.parametrize(
    ("locale", "preview", "words"),
    [
        ("en", Preview.FULL, Words("New message", "Shall we eat at 8?")),
        ("de", Preview.FULL, Words("Neue Nachricht", "Shall we eat at 8?")),
        ("en", Preview.GENERIC, Words("New message", "Open the app to read it.")),
        ("de", Preview.GENERIC, Words("Neue Nachricht", "Öffne die App, um sie zu lesen.")),
    ],
)
def test_a_message_is_shown_only_to_those_who_want_previews(locale: str, preview: Preview, words: Words) -> None:
    assert worded(Kind.MESSAGE, locale, preview, Content(body="Shall we eat at 8?")) == words


@pytest.mark.parametrize("locale", ["en", "de"])
@pytest.mark.parametrize("preview", list(Preview))
@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_has_words_in_every_language(kind: Kind, preview: Preview, locale: str) -> None:
    words = worded(kind, locale, preview, Content(minutes_left=5, body="Hello"))

    assert words.title
    assert words.body
