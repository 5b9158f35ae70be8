"""What a notification says, whole."""

import pytest

from domain.preferences import Preview
from domain.wording import reminder_wording

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
    assert reminder_wording(locale, Preview.FULL, minutes) == (title, body)


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
    assert reminder_wording(locale, Preview.GENERIC, minutes) == wording
