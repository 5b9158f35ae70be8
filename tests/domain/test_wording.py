"""What a notification says, whole, in the languages that are shipped."""

import pytest

from domain.kinds import Kind
from domain.locales import duration, fallbacks, plural_form
from domain.preferences import Preview
from domain.presentation import Content, Words, worded
from domain.presentation_file import SHIPPED

LANGUAGES = ["en", "de", "fr", "es", "pt-BR", "it", "nl", "sv", "pl", "tr", "ru", "uk", "ar", "ja", "ko", "zh-Hans"]
ENGLISH, GERMAN = "Your fast is almost over", "Dein Fasten ist fast geschafft"


@pytest.mark.parametrize(
    ("locale", "minutes", "title", "body"),
    [
        ("en", 30, ENGLISH, "30 minutes to go."),
        ("en", 1, ENGLISH, "1 minute to go."),
        ("en", 60, ENGLISH, "1 hour to go."),
        ("en", 120, ENGLISH, "2 hours to go."),
        ("en", 125, ENGLISH, "2 hours 5 minutes to go."),
        ("en", 1440, ENGLISH, "24 hours to go."),
        ("en", 90, ENGLISH, "1 hour 30 minutes to go."),
        ("en", 0, ENGLISH, "You have reached your goal."),
        ("en", -3, ENGLISH, "You have reached your goal."),
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
        ("fr-CA", 5, "Votre jeûne est presque terminé", "Plus que 5 minutes."),
        ("pt-PT", 65, "Seu jejum está quase no fim", "Tempo restante: 1 hora 5 minutos."),
        ("es-MX", 65, "Tu ayuno está a punto de terminar", "Tiempo restante: 1 hora 5 minutos."),
        ("ar-EG", 125, "أوشك صيامك على الانتهاء", "الوقت المتبقي: ساعتان و5 دقائق."),
        ("ru", 22, "Голодание почти завершено", "До цели: 22 минуты."),
        ("zh-CN", 125, "断食即将结束", "还剩2小时5分钟。"),
        ("zh-Hant-TW", 5, ENGLISH, "5 minutes to go."),
        ("zh-TW", 5, ENGLISH, "5 minutes to go."),
        ("fi", 5, ENGLISH, "5 minutes to go."),
        ("den", 5, ENGLISH, "5 minutes to go."),
        ("-", 5, ENGLISH, "5 minutes to go."),
        ("", 5, ENGLISH, "5 minutes to go."),
        (None, 5, ENGLISH, "5 minutes to go."),
    ],
)
def test_a_reminder_speaks_the_phones_language_and_english_where_we_lack_it(
    locale: str | None, minutes: int, title: str, body: str
) -> None:
    words = worded(SHIPPED, Kind.REMINDER, locale, Preview.FULL, Content(minutes_left=minutes))

    assert words == Words(title, body)


@pytest.mark.parametrize(
    ("locale", "wording"),
    [
        ("en", ("Reminder", "Open the app to see it.")),
        ("de", ("Erinnerung", "Öffne die App, um sie zu sehen.")),
        ("fi", ("Reminder", "Open the app to see it.")),
    ],
)
@pytest.mark.parametrize("minutes", [0, 1, 30])
def test_a_generic_reminder_gives_nothing_away(locale: str, wording: tuple[str, str], minutes: int) -> None:
    content = Content(minutes_left=minutes, labels={"name": "Assam"})

    assert worded(SHIPPED, Kind.REMINDER, locale, Preview.GENERIC, content) == Words(*wording)


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
    assert worded(SHIPPED, Kind.MESSAGE, locale, preview, Content(body="Shall we eat at 8?")) == words


@pytest.mark.parametrize("locale", LANGUAGES)
def test_every_shipped_language_has_all_texts_of_its_own(locale: str) -> None:
    for (kind, preview), catalogue in SHIPPED.texts.items():
        assert set(catalogue.of) == {each.lower() for each in LANGUAGES}
        words = worded(SHIPPED, kind, locale, preview, Content(minutes_left=5, body="Hello"))
        assert words.title
        assert words.body
        english = worded(SHIPPED, kind, "en", preview, Content(minutes_left=5, body="Hello"))
        assert locale == "en" or words.title != english.title


@pytest.mark.parametrize(
    ("locale", "chain"),
    [
        ("zh-Hant-TW", ["zh-hant-tw", "zh-tw", "zh-hant"]),
        ("zh-TW", ["zh-tw", "zh-hant-tw", "zh-hant"]),
        ("zh-Hans-CN", ["zh-hans-cn", "zh-cn", "zh-hans", "zh"]),
        ("pt-PT", ["pt-pt", "pt-latn-pt", "pt-latn", "pt", "pt-br"]),
        ("es-MX", ["es-mx", "es-latn-mx", "es-419", "es-latn", "es", "es-es"]),
        ("sr-Latn-RS", ["sr-latn-rs", "sr-latn"]),
        ("iw", ["iw", "he-hebr", "he", "he-il"]),
        ("xx-YY", ["xx-yy", "xx"]),
        ("\0", []),
        (None, []),
    ],
)
def test_a_locale_falls_back_by_bcp_47_and_keeps_its_script(locale: str | None, chain: list[str]) -> None:
    assert list(fallbacks(locale)) == chain


@pytest.mark.parametrize(
    ("locale", "minutes", "words", "plural"),
    [
        ("en", 125, "2 hours 5 minutes", "other"),
        ("en", 61, "1 hour 1 minute", "other"),
        ("en", 60, "1 hour", "one"),
        ("pl", 125, "2 godziny i 5 minut", "many"),
        ("pl", 22, "22 minuty", "few"),
        ("ar", 60, "ساعة", "one"),
        ("ar", 120, "ساعتان", "two"),
        ("ja", 0, "0 分", "other"),
        ("ja", 125, "2 時間 5 分", "other"),  # one blank for all
        ("ko", 125, "2시간 5분", "other"),
        ("zh-Hans", 125, "2小时5分钟", "other"),
        ("xx", 5, "5 minutes", "other"),
    ],
)
def test_lengths_of_time_are_cldrs(locale: str, minutes: int, words: str, plural: str) -> None:
    assert (duration(minutes, locale), plural_form(minutes, locale)) == (words, plural)
