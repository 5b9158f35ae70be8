"""The page's words: every language says everything, with the same gaps, and whatever is shown is escaped."""

import re
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime, time, timedelta
from html import unescape
from string import Formatter
from uuid import UUID

import pytest

from api.preference_page import form
from api.preference_page.phrases import Phrases
from api.preference_page.rendering import Plain, confirm_page, plain_page, preference_page
from api.preference_page.view import Fast, Notice, SignedInPhone, View, nights
from api.preference_page.words import CATALOGUE, PageWords, speech
from domain.devices import Permission
from domain.fasts import Reminder
from domain.preferences import Preferences, QuietHours, QuietMode
from domain.presentation_file import SHIPPED
from domain.push import Provider

NOW = datetime(2026, 10, 24, 15, 12, tzinfo=UTC)
QUIET = QuietHours(time(22), time(7), None)
IPHONE = SignedInPhone(UUID(int=1), Provider.APNS, "4.2.0", "26.1", Permission.GRANTED, "Europe/Vienna", NOW)
VIEW = View("en-GB", "token", NOW, "Europe/Vienna", Preferences(quiet_hours=QUIET), phones=(IPHONE,))


def fast(ends_at: datetime, *minutes: int) -> Fast:
    return Fast(
        UUID(int=3), ends_at, tuple(Reminder(each, ends_at - timedelta(minutes=each), ends_at) for each in minutes)
    )


def shown(view: View) -> str:
    """Give the page's text as somebody reads it, more or less."""
    return " ".join(unescape(preference_page(view)).split())


def _gaps(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def test_the_page_speaks_every_language_in_which_we_push() -> None:
    assert {tag for texts in SHIPPED.texts.values() for tag in texts.of} == {each.lower() for each in CATALOGUE}


@pytest.mark.parametrize("language", sorted(CATALOGUE))
def test_every_language_leaves_the_same_gaps(language: str) -> None:
    for each in fields(PageWords):
        text = getattr(CATALOGUE[language], each.name)
        assert text.strip() == text != "", each.name
        assert _gaps(text) == _gaps(getattr(CATALOGUE["en"], each.name)), each.name


@pytest.mark.parametrize(
    ("wanted", "tag", "direction"),
    [
        ("de-AT", "de-AT", "ltr"),
        ("de-XX", "de-XX", "ltr"),
        ("fr-CA", "fr-CA", "ltr"),
        ("ar-EG", "ar-EG", "rtl"),
        ("zh-Hant", "en", "ltr"),
        ("fa", "en", "ltr"),  # what is said in English is read from the left
        ("nonsense!", "en", "ltr"),
        ("", "en", "ltr"),
        (None, "en", "ltr"),
    ],
)
def test_a_language_that_is_not_spoken_is_english(wanted: str | None, tag: str, direction: str) -> None:
    assert (speech(wanted).tag, speech(wanted).direction) == (tag, direction)


@pytest.mark.parametrize("language", sorted(CATALOGUE))
def test_every_language_writes_all_that_the_page_can_show(language: str) -> None:
    phones = [replace(IPHONE, permission=each, time_zone=zone) for each in Permission for zone in ("Asia/Tokyo", None)]
    found = View(
        language,
        "token",
        NOW,
        "Europe/Vienna",
        Preferences(quiet_hours=QUIET),
        fasts=(fast(NOW + timedelta(hours=7), 90, 30, 0), fast(NOW + timedelta(days=4))),
        phones=tuple(phones),
        nights=nights(QUIET, ["Europe/Vienna", "Asia/Tokyo"], NOW),
        notice=Notice.CONFLICT,
        problems={"reminder_minutes": "problem_minutes_too_long", "ends": "problem_same_time"},
    )

    page = shown(found)

    direction = "rtl" if language == "ar" else "ltr"
    assert f'<html lang="{language}" dir="{direction}">' in page
    assert not re.search(r"\{\w+\}", page)
    assert speech(language).words.title in page


@pytest.mark.parametrize(
    ("language", "sentence"),
    [
        ("pl", "Niedz., 25 paź od 10:00 do 12:00 powiadomienia pojawiają się bez dźwięku."),
        ("sv", "Sön 25 okt. från 10:00 till 12:00 visas notiser utan ljud."),
        ("es", "El dom, 25 oct, de 10:00 a 12:00, las notificaciones se muestran sin sonido."),
    ],
)
def test_a_sentence_begins_with_a_capital_also_where_a_day_begins_it(language: str, sentence: str) -> None:
    [night] = nights(QuietHours(time(10), time(12), None), ["Europe/Vienna"], datetime(2026, 10, 25, 1, tzinfo=UTC))

    assert Phrases(speech(language), datetime(2026, 10, 23, 9, tzinfo=UTC)).night(night, QuietMode.SILENT) == sentence


def test_what_was_a_moment_ago_lies_in_the_past() -> None:
    english = Phrases(speech("en"), NOW)

    assert [english.ago(NOW + timedelta(seconds=each)) for each in (5, 0, -30, -90)] == ["1 minute ago"] * 3 + [
        "2 minutes ago"
    ]


def test_french_signs_stay_with_their_word() -> None:
    for each in fields(PageWords):
        assert not re.search(r"(?<![\u00a0\u202f\d])[:;?!»]|(?<=«)(?!\u00a0)", getattr(CATALOGUE["fr"], each.name)), (
            each.name
        )


def test_reminders_are_reported_with_the_fast_that_they_hit() -> None:
    ends = datetime(2026, 10, 24, 17, tzinfo=UTC)

    page = shown(replace(VIEW, fasts=(fast(ends, 90, 30, 0),)))

    assert "Your fast ends today at 19:00." in page
    assert "<li>1 hour, 30 minutes before: today at 17:30</li>" in page
    assert "<li>30 minutes before: today at 18:30</li>" in page
    assert "<li>At the end: today at 19:00</li>" in page
    assert "Dein Fasten endet heute um 19:00 Uhr." in shown(replace(VIEW, locale="de", fasts=(fast(ends),)))


def test_a_fast_of_another_day_is_reported_with_its_day() -> None:
    assert "ends tomorrow at 08:00" in shown(replace(VIEW, fasts=(fast(NOW + timedelta(hours=15, minutes=48)),)))
    assert "ends on Thu 29 Oct at 16:12" in shown(replace(VIEW, fasts=(fast(NOW + timedelta(days=5)),)))


@pytest.mark.parametrize(
    ("mode", "zones", "at", "note"),
    [
        (QuietMode.SILENT, ["Europe/Vienna"], "22:30", "without sound, in your quiet hours"),
        (QuietMode.WITHHOLD, ["Europe/Vienna"], "22:30", "not sent, in your quiet hours"),
        (
            QuietMode.SILENT,
            ["Europe/Vienna", "America/New_York"],
            "22:30 (Vienna)",
            "without sound, in your quiet hours, on some of your phones",
        ),
        (QuietMode.SILENT, ["America/New_York"], "16:30", None),
    ],
)
def test_a_reminder_in_quiet_hours_says_what_becomes_of_it(
    mode: QuietMode, zones: list[str], at: str, note: str | None
) -> None:
    page = shown(
        replace(
            VIEW,
            time_zone=zones[0],
            preferences=Preferences(quiet_hours=replace(QUIET, mode=mode)),
            phones=tuple(replace(IPHONE, time_zone=each) for each in zones),
            fasts=(fast(datetime(2026, 10, 24, 21, tzinfo=UTC), 30),),
        )
    )

    told = f"30 minutes before: today at {at}"
    assert (f"<li>{told} <small>{note}</small></li>" if note else f"<li>{told}</li>") in page


def test_a_fast_says_when_nothing_will_be_sent_for_it() -> None:
    coming = fast(NOW + timedelta(hours=2), 30)

    assert "Reminders are switched off, so you will not be reminded." in shown(
        replace(VIEW, preferences=Preferences(reminders=False), fasts=(coming,))
    )
    assert "No reminder of this fast lies ahead." in shown(replace(VIEW, fasts=(fast(NOW + timedelta(minutes=5)),)))
    own = replace(coming, follows_preferences=False)
    assert "This fast has reminders of its own." in shown(replace(VIEW, fasts=(own,)))


def test_nights_are_reported_zone_by_zone_where_phones_are_apart() -> None:
    one = nights(QUIET, ["Europe/Vienna"], NOW)
    two = nights(QUIET, ["Europe/Vienna", "America/New_York"], NOW)

    assert (
        "<p>Tonight from 22:00 to 07:00, notifications are shown without sound. The clocks go back, so this lasts"
        in (shown(replace(VIEW, nights=one)))
    )
    page = shown(replace(VIEW, nights=two))
    assert "<p>Vienna: Tonight from 22:00 to 07:00, notifications are shown without sound. The clocks go back" in page
    assert "<p>New York: Tonight from 22:00 to 07:00, notifications are shown without sound.</p>" in page


@pytest.mark.parametrize(
    ("phones", "at_home", "night", "ends"),
    [
        (["Europe/Vienna"], None, "Tonight from 22:00 to 07:00", "today at 20:00."),
        (["America/New_York"], "Europe/Vienna", "Vienna: Tonight from 22:00 to 07:00", "today at 14:00 (New York)."),
        (["Europe/Vienna"], "Europe/Vienna", "Tonight from 22:00 to 07:00", "today at 20:00."),
        (["Europe/Vienna", "Asia/Tokyo"], "UTC", "UTC: Tonight from 22:00 to 07:00", "today at 20:00 (Vienna)."),
        (["Europe/Vienna", "Asia/Tokyo"], None, "Tokyo: Now, and until 07:00", "today at 20:00 (Vienna)."),
        (["Europe/Vienna", None], "Europe/Vienna", "Vienna: Tonight from 22:00", "today at 20:00 (Vienna)."),
        (["Europe/Vienna", "Etc/GMT-2"], None, "UTC+2: Tonight from 22:00", "today at 20:00 (Vienna)."),
        (["Etc/GMT-2"], "Europe/Vienna", "Vienna: Tonight from 22:00", "today at 20:00 (UTC+2)."),
        ([None], None, "UTC: Tonight from 22:00 to 07:00", "today at 18:00 (UTC)."),
        ([], None, "UTC: Tonight from 22:00 to 07:00", "today at 18:00 (UTC)."),
    ],
)
def test_times_name_their_place_unless_it_is_the_one_of_all_phones(
    phones: list[str | None], at_home: str | None, night: str, ends: str
) -> None:
    quiet = replace(QUIET, time_zone=at_home)
    ending = datetime(2026, 10, 24, 18, tzinfo=UTC)
    view = replace(
        VIEW,
        time_zone=next((each for each in phones if each), "UTC"),
        preferences=Preferences(quiet_hours=quiet),
        phones=tuple(replace(IPHONE, time_zone=each) for each in phones),
        nights=nights(quiet, phones, NOW),
        fasts=(fast(ending, 0),),
    )

    page = shown(view)

    assert f"<p>{night}" in page
    assert f"Your fast ends {ends}" in page
    assert f"<li>At the end: {ends.removesuffix('.')}" in page


def test_a_zone_that_this_machine_does_not_know_stays_chosen_and_is_reported() -> None:
    page = shown(replace(VIEW, preferences=Preferences(quiet_hours=replace(QUIET, time_zone="Mars/Olympus"))))

    assert '<option value="Mars/Olympus" selected>Mars/Olympus</option>' in page
    assert "We do not know this time zone any more, so there are no quiet hours." in page


def test_a_zone_by_an_old_name_stays_chosen() -> None:
    page = shown(replace(VIEW, preferences=Preferences(quiet_hours=replace(QUIET, time_zone="Asia/Calcutta"))))

    assert '<option value="Asia/Calcutta" selected>Kolkata</option>' in page


@pytest.mark.parametrize(
    ("zone", "place"),
    [
        ("Etc/GMT-2", "UTC+2"),
        ("etc/gmt-14", "UTC+14"),
        ("Etc/GMT+9", "UTC-9"),
        ("Etc/GMT+0", "GMT"),
        ("GMT", "GMT"),
        ("Etc/UTC", "UTC"),
    ],
)
@pytest.mark.parametrize("language", ["en", "de"])
def test_a_fixed_offset_is_reported_as_people_count_it(language: str, zone: str, place: str) -> None:
    assert Phrases(speech(language), NOW).place(zone) == place


def test_every_zone_that_can_be_chosen_is_there_once_by_continent_in_the_language() -> None:
    german = Phrases(speech("de"), NOW).zones()

    assert german["Europa"]["Europe/Vienna"] == "Wien (Österreich)"
    names = [name for places in german.values() for name in places]
    assert len(names) == len(set(names)) > 400


@pytest.mark.parametrize(
    ("permission", "provider", "told"),
    [
        (Permission.GRANTED, Provider.APNS, "Notifications are switched on"),
        (
            Permission.DENIED,
            Provider.APNS,
            "Notifications are switched off on this iPhone. To switch them on: Settings >",
        ),
        (
            Permission.DENIED,
            Provider.FCM,
            "Notifications are switched off on this phone. To switch them on: Settings >",
        ),
        (Permission.PROVISIONAL, Provider.APNS, "Notifications arrive without sound, in the list only."),
        (
            Permission.UNDETERMINED,
            Provider.FCM,
            "This phone has not been asked yet whether notifications may be shown.",
        ),
        (None, Provider.FCM, "We do not know whether this phone shows notifications"),
    ],
)
def test_each_phone_says_what_its_system_lets_through(
    permission: Permission | None, provider: Provider, told: str
) -> None:
    phone = replace(IPHONE, permission=permission, provider=provider, last_seen_at=NOW - timedelta(hours=3))

    page = shown(replace(VIEW, phones=(phone,)))

    assert told in page
    assert ("None of your phones shows our notifications" in page) == (
        permission in {Permission.DENIED, Permission.UNDETERMINED}
    )
    system = "iOS 26.1" if provider is Provider.APNS else "Android 26.1"
    assert f"<bdi>{system}</bdi>" in page
    assert "<span>On the time of Vienna</span> <span>Last seen 3 hours ago</span>" in page


@pytest.mark.parametrize(
    ("permissions", "told"),
    [
        ([Permission.UNDETERMINED, Permission.DENIED], "None of your phones shows our notifications"),
        ([Permission.UNDETERMINED, Permission.GRANTED], "Not all of your phones show our notifications"),
        ([Permission.PROVISIONAL, None], None),
    ],
)
def test_phones_that_show_nothing_are_reported_above_everything(
    permissions: list[Permission | None], told: str | None
) -> None:
    page = shown(replace(VIEW, phones=tuple(replace(IPHONE, permission=each) for each in permissions)))

    assert ("show our notifications" in page or "shows our notifications" in page) == (told is not None)
    assert told is None or f'<a href="#phones">{told}' in page


def test_every_field_can_be_wrong_and_is_led_to() -> None:
    html = preference_page(replace(VIEW, problems=dict.fromkeys(form.FIELDS, "problem_choose")))

    in_order = sorted(form.FIELDS, key=lambda name: html.index(f' id="{name}"'))
    assert re.findall(r'<li><a href="#(\w+)">', html) == in_order
    assert all(html.count(f' id="{name}"') == 1 for name in form.FIELDS)


def test_a_conflict_names_what_differs() -> None:
    typed = replace(form.stored(VIEW.preferences), messages=False, starts="23:00")

    page = shown(replace(VIEW, notice=Notice.CONFLICT, typed=typed))

    assert "Nothing was saved yet." in page
    assert "You changed: Tell me about new messages and Quiet hours, From." in page
    assert "You changed" not in shown(replace(VIEW, notice=Notice.CONFLICT))


@pytest.mark.parametrize(
    "page",
    [
        lambda: confirm_page("de", "/preferences/abc"),
        lambda: plain_page("de", Plain.GONE),
        *(lambda each=each: plain_page("de", each) for each in Plain),
        lambda: preference_page(replace(VIEW, locale="de")),
    ],
)
def test_pages_have_no_script_and_no_style_of_their_own_and_name_their_language(page: Callable[[], str]) -> None:
    html = page()

    assert '<html lang="de" dir="ltr">' in html
    assert "<script" not in html
    assert "style=" not in html
    assert "<style" not in html
    assert " onclick" not in html


def test_whatever_is_shown_is_escaped() -> None:
    wicked = "<script>alert(1)</script>\"'"
    phone = replace(IPHONE, app_version=wicked, os_version=wicked)
    quiet = replace(QUIET, time_zone=wicked)

    html = preference_page(
        replace(VIEW, phones=(phone,), preferences=Preferences(quiet_hours=quiet), csrf_token=wicked)
    )

    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 4
    assert "<script" not in confirm_page("en", f'"><script>{wicked}')
