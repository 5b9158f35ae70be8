"""A presentation file: what it changes, what it leaves, and what is refused with one sentence."""

import json
from uuid import UUID

import pytest

from domain.kinds import Kind
from domain.preferences import Preview
from domain.presentation import Badge, Content, DeliveryPriority, InterruptionLevel, Look, Words, worded
from domain.presentation_file import SHIPPED, UnusablePresentation, presentation

ID = UUID("0b0f4bd2-5c4f-4d2c-9a51-1d0a3f1c7e01")
TEA = """
link = "teatime://{path}"
badge = "unread"
[reminder]
sound = "steep.caf"
channel = "steeping"
quiet_channel = "hush"
category = "FAST_REMINDER"
level = "time-sensitive"
relevance = 0.8
thread = "tea-{id}"
priority = "normal"
icon = "ic_tea"
color = "#00BB66"
[message]
sound = ""
[texts.en.reminder]
title = "Your tea is nearly ready"
body = "{left} to go, {label.name}."
now = "Time to drink."
[texts.de.reminder]
title = "Dein Tee"
body.one = "Noch {left} zieht {label.name}"
body.other = "Noch {left} ziehen {label.name}"
[texts.zh-Hant.reminder]
body = "{label.name}: {left}"
[texts.en.message]
title = "New message"
body = "> {text}"
[texts.en.generic.reminder]
title = "Reminder"
body = "Open the app."
"""


def reminder(file: str, locale: str, minutes: int, **labels: str) -> Words:
    """Word a reminder by a file."""
    content = Content(minutes_left=minutes, labels=labels)
    return worded(presentation(file.encode()), Kind.REMINDER, locale, Preview.FULL, content)


def test_every_key_is_read() -> None:
    found = presentation(TEA.encode())

    assert found.looks == {
        Kind.REMINDER: Look(
            sound="steep.caf",
            channel="steeping",
            quiet_channel="hush",
            category="FAST_REMINDER",
            level=InterruptionLevel.TIME_SENSITIVE,
            relevance=0.8,
            thread="tea-{id}",
            priority=DeliveryPriority.NORMAL,
            icon="ic_tea",
            color="#00bb66",
        ),
        Kind.MESSAGE: Look(sound="", channel="messages"),
        Kind.TEST: Look(),
    }
    assert (found.badge, found.thread_id(Kind.REMINDER, ID, "x")) == (Badge.UNREAD, f"tea-{ID}")
    assert [found.url(kind, ID) for kind in Kind] == [
        f"teatime://fasting-sessions/{ID}",
        f"teatime://conversations/{ID}",
        "teatime://test-push",
    ]


def test_an_empty_file_changes_nothing() -> None:
    assert presentation(b"") == SHIPPED
    assert SHIPPED.url(Kind.REMINDER, ID) == f"fastbell://fasting-sessions/{ID}"


@pytest.mark.parametrize(
    ("locale", "minutes", "words"),
    [
        ("en-GB", 125, Words("Your tea is nearly ready", "2 hours 5 minutes to go, Assam.")),
        ("en", 0, Words("Your tea is nearly ready", "Time to drink.")),
        ("de", 60, Words("Dein Tee", "Noch 1 Stunde zieht Assam")),
        ("de", 61, Words("Dein Tee", "Noch 1 Stunde, 1 Minute ziehen Assam")),
        ("de", 0, Words("Dein Tee", "Noch 0 Minuten ziehen Assam")),  # its own text, without `now`
        ("zh-Hant-TW", 5, Words("Your tea is nearly ready", "Assam: 5 分鐘")),
        ("zh-Hans", 5, Words("Your tea is nearly ready", "5 minutes to go, Assam.")),
        ("fr", 5, Words("Your tea is nearly ready", "5 minutes to go, Assam.")),  # ours would speak of a fast
    ],
)
def test_an_app_speaks_its_own_words_in_its_own_languages_alone(locale: str, minutes: int, words: Words) -> None:
    assert reminder(TEA, locale, minutes, name="Assam") == words


def test_kinds_that_a_file_leaves_out_speak_every_shipped_language() -> None:
    found = presentation(TEA.encode())

    assert worded(found, Kind.TEST, "sv", Preview.FULL, Content()).title == "Testnotis"
    assert worded(found, Kind.MESSAGE, "fr", Preview.GENERIC, Content()).title == "Nouveau message"
    assert worded(found, Kind.REMINDER, "fr", Preview.GENERIC, Content()) == Words("Reminder", "Open the app.")


@pytest.mark.parametrize(
    ("file", "minutes", "words"),
    [
        ("[texts.de.reminder]\ntitle = 'Tee'", 5, Words("Tee", "Noch 5 Minuten.")),
        ("[texts.de.reminder]\ntitle = 'Tee'", 0, Words("Tee", "Du hast dein Ziel erreicht.")),
        ("[texts.de.reminder]\nbody = '{left}'", 0, Words("Dein Fasten ist fast geschafft", "0 Minuten")),
        ("[texts.en.reminder]\nbody = '{left}!'\n[texts.de.reminder]\ntitle = 'Tee'", 5, Words("Tee", "5 Minuten!")),
        ("[texts.en.reminder]\nbody = '{left}!'\n[texts.de.reminder]\ntitle = 'Tee'", 0, Words("Tee", "0 Minuten!")),
        ("[texts.en.reminder]\nnow = 'Now.'\n[texts.de.reminder]\ntitle = 'Tee'", 0, Words("Tee", "Now.")),
    ],
)
def test_what_a_locale_lacks_comes_from_the_files_default_then_from_us(file: str, minutes: int, words: Words) -> None:
    assert reminder(file, "de", minutes) == words


def test_the_default_locale_can_be_chosen() -> None:
    assert reminder('default_locale = "de"\n' + TEA, "fr", 60, name="Assam").title == "Dein Tee"


@pytest.mark.parametrize(
    ("body", "labels", "written"),
    [
        ("{left} to go, {label.name}.", {}, "5 minutes to go."),
        ("{left} to go, {label.name}.", {"name": " \t"}, "5 minutes to go."),
        ("{left} to go, {label.name}.", {"name": "\u200b\u2060 \ufe0f"}, "5 minutes to go."),  # nothing to be seen
        ("{left} to go \u2013 {label.name}", {}, "5 minutes to go"),
        ("{label.name}: {left}", {}, "5 minutes"),
        ("Your {label.name} is ready", {}, "Open the app."),  # the generic text
        ("{label.name}", {}, "Open the app."),
        ("{label.a}, {label.b}: {left}", {"b": "B"}, "B: 5 minutes"),
        ("{label.name}{left}", {"name": "{left}%s{0}{label.name}\\"}, "{left}%s{0}{label.name}\\5 minutes"),
        ("{label.name}!", {"name": "a\u202eb\u2066c\nd\x07e"}, "abc d e!"),
        ("{label.name}!", {"name": "👩‍👩‍👧‍👦"}, "👩‍👩‍👧‍👦!"),
        ("{label.name}!", {"name": "می‌خواهم"}, "\u2068می‌خواهم\u2069!"),
        ("{{{label.name}}}", {"name": "x"}, "{x}"),
    ],
)
def test_labels_are_data_and_a_missing_one_leaves_no_hole(body: str, labels: dict[str, str], written: str) -> None:
    file = f"[texts.en.reminder]\nbody = '{body}'\n[texts.en.generic.reminder]\nbody = 'Open the app.'"

    assert reminder(file, "en", 5, **labels).body == written


def test_a_message_keeps_its_lines_and_turns_nothing_around() -> None:
    found = presentation(b"[texts.en.message]\nbody = '{text} (tap)'")

    words = worded(found, Kind.MESSAGE, "en", Preview.FULL, Content(body="one\ntwo \u202e{left}\0"))

    assert words.body == "one\ntwo {left}  (tap)"


ROWS = {
    "lnk = 'x'": "lnk is not a key; did you mean link?",
    "[reminder]\nlevle = 'x'": "reminder.levle is not a key; did you mean level?",
    "[texts.en.remindr]": "texts.en.remindr is not a key; did you mean reminder?",
    "[texts.en.message]\nnow = 'x'": "texts.en.message.now is not a key; known are body, title",
    "[texts.en.generic.reminder]\nnow = 'x'": "texts.en.generic.reminder.now is not a key; known are body, title",
    "badge = 'all'": "badge must be one of none, unread",
    "[reminder]\nlevel = 'critical'": "reminder.level must be one of passive, active, time-sensitive",
    "[reminder]\npriority = 1": "reminder.priority must be one of high, normal",
    "[reminder]\nrelevance = 1.1": "reminder.relevance must be a number from 0 to 1",
    "[reminder]\nrelevance = nan": "reminder.relevance must be a number from 0 to 1",
    "[reminder]\nrelevance = true": "reminder.relevance must be a number from 0 to 1",
    "[reminder]\ncolor = 'green'": "reminder.color must be a colour such as #00bb66",
    "[reminder]\nsound = 7": "reminder.sound must be a text in quotes",
    "[reminder]\nchannel = ''": "reminder.channel must have 1 to 100 characters",
    "[reminder]\nchannel = 'ü'": "reminder.channel must be ASCII, without blanks at its ends",
    "[reminder]\nthread = '{path}'": "reminder.thread: known is only {id}, of the fast or conversation",
    "reminder = 7": "reminder must be a table",
    "texts = 7": "texts must be a table",
    "texts.en = 7": "texts.en must be a table",
    "[texts.en]\nreminder = 'x'": "texts.en.reminder must be a table",
    "[texts.klingon.reminder]": "texts: 'klingon' is not a locale such as en, pt-BR or zh-Hant",
    "[texts.tlh.reminder]": "texts: 'tlh' is not a locale such as en, pt-BR or zh-Hant",
    "[texts.en_US.reminder]\n[texts.en-us.reminder]": "texts has a locale twice, or more than 200 locales",
    "default_locale = 'de'": "default_locale: there is no table texts.de",
    "[texts.en.reminder]\nbody = '{lable.name}'": (
        "texts.en.reminder.body: {lable.name} is not a placeholder of this text; known are {left} and {label.NAME}"
    ),
    "[texts.en.reminder]\nbody = '{label.name.__class__}'": (
        "texts.en.reminder.body: {label.name.__class__} is not a placeholder of this text;"
        " known are {left} and {label.NAME}"
    ),
    "[texts.en.reminder]\nbody = '{left!r}'": (
        "texts.en.reminder.body: {left} is not a placeholder of this text; known are {left} and {label.NAME}"
    ),
    "[texts.en.reminder]\nbody = '{}'": (
        "texts.en.reminder.body: {} is not a placeholder of this text; known are {left} and {label.NAME}"
    ),
    "[texts.en.message]\nbody = '{left}'": (
        "texts.en.message.body: {left} is not a placeholder of this text; known are {text}"
    ),
    "[texts.en.generic.message]\nbody = '{text}'": (
        "texts.en.generic.message.body: {text} is not a placeholder of this text; this text has none"
    ),
    "[texts.en.reminder]\nbody = 'half {'": (
        "texts.en.reminder.body has half a pair of braces; a brace itself is written twice"
    ),
    "[texts.en.reminder]\nbody.one = 'x'": "texts.en.reminder.body.other is not set, the form for all other numbers",
    "[texts.en.reminder]\nbody.some = 'x'": (
        "texts.en.reminder.body.some is not a key; known are few, many, one, other, two, zero"
    ),
    "[texts.en.message]\nbody.other = 'x'": "texts.en.message.body has plural forms, and no {left} to choose one by",
    "[texts.en.reminder]\nbody = ''": "texts.en.reminder.body must have 1 to 1000 characters",
    f"[texts.en.reminder]\nbody = '{'x' * 1001}'": "texts.en.reminder.body must have 1 to 1000 characters",
    "[texts.en.reminder]\nbody = ' \u00a0\u2003'": "texts.en.reminder.body has only blanks",
    "[texts.en.reminder]\ntitle = '\u200b\ufeff\u2800\u3164'": "texts.en.reminder.title has only blanks",
    "[reminder]\nsound = ' '": "reminder.sound has only blanks",
    '[texts.en.reminder]\ntitle = "a\\u2028b"': (
        "texts.en.reminder.title has control characters, or such that turn the direction of writing"
    ),
    "[texts.en.reminder]\nbody = '{left:{label.name}}'": (
        "texts.en.reminder.body: {left} is not a placeholder of this text; known are {left} and {label.NAME}"
    ),
    "[texts.en.reminder]\nbody = '{label.name[0]}'": (
        "texts.en.reminder.body: {label.name[0]} is not a placeholder of this text; known are {left} and {label.NAME}"
    ),
    "[texts.en.reminder]\nbody.one = 1\nbody.other = 'x'": "texts.en.reminder.body.one must be a text in quotes",
    "[texts.und.reminder]": "texts: 'und' is not a locale such as en, pt-BR or zh-Hant",
    "[texts.english.reminder]": "texts: 'english' is not a locale such as en, pt-BR or zh-Hant",
    "[texts.'en US'.reminder]": "texts: 'en US' is not a locale such as en, pt-BR or zh-Hant",
    "default_locale = ['en']": "default_locale: \"['en']\" is not a locale such as en, pt-BR or zh-Hant",
    "'' = 1": "'' is not a key; known are badge, default_locale, link, message, reminder, test, texts",
    "badge = 'none'\nbadge = 'unread'\n": "it is not TOML: Cannot overwrite a value (at line 2, column 17)",
    '[texts.en.reminder]\nbody = "a\\u202eb"': (
        "texts.en.reminder.body has control characters, or such that turn the direction of writing"
    ),
    '[texts.en.reminder]\ntitle = "a\\u0000b"': (
        "texts.en.reminder.title has control characters, or such that turn the direction of writing"
    ),
    f"[texts.en.generic.test]\ntitle = '{'ü' * 101}'": (
        "texts.en.generic.test.title may have at most 200 bytes of UTF-8"
    ),
    "[half": "it is not TOML: Expected ']' at the end of a table declaration (at end of document)",
    f"a = {'[' * 5000}": "it is nested too deeply",
    f"default_locale{'.a' * 5000} = 1": "it is nested too deeply",
    f"[reminder]\nrelevance = {'1' * 5000}": (
        "it is not TOML: Exceeds the limit (4300 digits) for integer string conversion: value has 5000 digits"
    ),
    "#" * 300_000: "it has more than 256 KiB",
}
LINKS = [
    "teatime://",
    "teatime://{path}{path}",
    "teatime:{path}",
    "{path}",
    "javascript://{path}",
    "http://tea.example/{path}",
    "https://{path}",
    "https://tea.example{path}",
    "https://user@tea.example/{path}",
    "https://[tea/{path}",
    "teatime://{path}/{user}",
    "teatime:// {path}",
    "intent://{path}",
    "teatime://{path}/a b",
    "teatime://{path}/\u202e",
    "teatime://{path}\n",
    "\nteatime://{path}",
    "java\tscript://{path}",
    "JavaScript://x/{path}",
    "javascript:alert(1)//{path}",
    "livescript://{path}",
    "filesystem://{path}",
    "mailto://{path}",
    "tel://{path}",
    "itms-apps://{path}",
    "https://tea.example:99999/{path}",
    "https://tea.example:0/{path}",
    "https://tea..example/{path}",
    "https://./{path}",
    "https://@tea.example/{path}",
    "{{path}}://{path}",
    f"teatime://{'x' * 300}{{path}}",
]


@pytest.mark.parametrize("content", ROWS, ids=[each[:40] for each in ROWS])
def test_what_cannot_be_is_refused_with_the_key(content: str) -> None:
    with pytest.raises(UnusablePresentation) as refused:
        presentation(content.encode())

    assert str(refused.value) == ROWS[content]


@pytest.mark.parametrize("link", LINKS)
def test_a_link_that_leads_elsewhere_is_refused(link: str) -> None:
    with pytest.raises(UnusablePresentation, match=r"^link (must|has)"):
        presentation(f"link = {json.dumps(link)}".encode())


@pytest.mark.parametrize(
    "link", ["https://tea.example/{path}", "https://tea.example/app?to={path}", "app.tea://x/{path}"]
)
def test_a_custom_scheme_or_a_universal_link_is_taken(link: str) -> None:
    found = presentation(f"link = '{link}'".encode())

    assert found.url(Kind.MESSAGE, ID) == link.replace("{path}", f"conversations/{ID}")


def test_a_mark_that_an_editor_put_in_front_is_no_part_of_a_file() -> None:
    assert presentation(b"\xef\xbb\xbf" + TEA.encode()) == presentation(TEA.encode())


def test_where_a_plural_form_is_missing_the_other_one_stands_in() -> None:
    file = "[texts.ru.reminder]\nbody.one = 'one {left}'\nbody.other = 'other {left}'"

    assert [reminder(file, "ru", minutes).body for minutes in (1, 3, 5, 21)] == [
        "one 1 минута",
        "other 3 минуты",
        "other 5 минут",
        "one 21 минута",
    ]


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(UnusablePresentation, match="it is not TOML: not UTF-8"):
        presentation(b"\xff\xfe\x00")


@pytest.mark.parametrize(("label", "written"), [("Assam", "\u2068Assam\u2069"), ("شاي", "شاي"), ("7", "7")])
def test_a_label_that_runs_the_other_way_turns_nothing_around_it(label: str, written: str) -> None:
    assert reminder('[texts.ar.reminder]\nbody = "{label.name}!"', "ar-EG", 5, name=label).body == f"{written}!"
