"""The texts of the preference page by name, and its languages. Every language has the same names.

A language is a TOML file in `languages/`, named by its locale. To add one, add its file: Babel brings plurals, lists,
times and writing directions.

Texts are format strings. The comment names their fields, whose values are in the page's language. A number comes with
its noun ("30 minutes"), so no text needs a plural.
"""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files

from babel import Locale

from domain.locales import FALLBACK, conventions, fallbacks, locale

_MAX_ACCEPTED = 20


@dataclass(frozen=True, slots=True)
class PageWords:
    """The texts of one language; all are required."""

    title: str
    intro: str

    # Result of the last request
    saved: str
    reminders_stopped: str
    messages_stopped: str
    conflict: str
    conflict_fields: str  # {fields}: those that differ from what is stored
    problems: str  # heading of the list of what could not be saved
    problem_at: str  # {field}, {problem}: a line of that list

    # Reminders
    reminders: str
    reminders_switch: str
    stop_reminders: str
    minutes: str
    minutes_hint: str
    minutes_field: str  # {number}: counts the fields, from 1
    minutes_unit: str  # follows the field
    fast_ends: str  # {at}
    fast_no_reminders: str
    fast_of_its_own: str  # the app gave it reminder minutes
    fast_switched_off: str
    before: str  # {length}, {at}
    at_the_end: str  # {at}
    note_silent: str  # of a reminder that falls into quiet hours
    note_withheld: str
    note_some: str  # {note}: where it falls into those of some phones only

    # What a lock screen shows
    preview: str
    preview_full: str
    preview_generic: str
    sample_message: str  # an example

    # Messages
    messages: str
    messages_switch: str
    stop_messages: str

    # Quiet hours
    quiet: str
    quiet_switch: str
    starts: str
    ends: str
    mode: str
    mode_silent: str
    mode_silent_hint: str
    mode_withhold: str
    mode_withhold_hint: str
    time_zone: str
    time_zone_hint: str
    wherever: str
    area_atlantic: str
    area_indian: str
    other_zones: str

    # The next quiet hours; `when` begins the sentence
    night: str
    when_now: str  # {ends}
    when_tonight: str  # {starts}, {ends}
    when_today: str  # {starts}, {ends}
    when_tomorrow: str  # {starts}, {ends}
    when_day: str  # {day}, {starts}, {ends}
    night_silent: str  # {when}
    night_withheld: str  # {when}
    night_again: str  # {starts}, {ends}: in the hour that comes twice
    night_longer: str  # {length}
    night_shorter: str  # {length}
    night_in: str  # {place}, {night}: if phones are in several zones
    night_zone_unknown: str

    save: str

    # Phones
    phones: str
    no_phones: str
    iphone: str
    android: str
    app_version: str  # {version}
    last_seen: str  # {ago}
    zone_of_phone: str  # {place}
    zone_not_told: str
    granted: str
    provisional: str
    undetermined: str
    denied_iphone: str
    denied_android: str
    permission_not_told: str
    phones_blocked: str  # above everything, where the system of each phone blocks
    some_phones_blocked: str

    # Moments within a sentence
    at_today: str  # {time}
    at_tomorrow: str  # {time}
    at_day: str  # {day}, {time}
    moment_in: str  # {moment}, {place}: likewise

    # Leaving
    sign_out: str
    sign_out_hint: str

    # Pages beside it
    confirm_title: str
    confirm: str
    confirm_button: str
    gone_title: str
    gone: str
    signed_out_title: str
    signed_out: str
    expired_title: str  # a form that is not this session's
    expired: str
    expired_link: str
    busy_title: str  # asked too often
    busy: str
    trouble_title: str  # something is wrong with the server
    trouble: str

    # Problems of fields
    problem_minutes_not_numbers: str
    problem_minutes_too_long: str  # {longest}
    problem_minutes_too_many: str  # {most}
    problem_choose: str
    problem_time: str
    problem_same_time: str
    problem_time_zone: str


def _catalogue() -> Iterator[tuple[str, PageWords]]:
    for file in sorted(files(__package__).joinpath("languages").iterdir(), key=lambda each: each.name):
        if file.name.endswith(".toml"):
            yield file.name.removesuffix(".toml"), PageWords(**tomllib.loads(file.read_text(encoding="utf-8")))


CATALOGUE = dict(_catalogue())  # by locale; tests add to it


@dataclass(frozen=True, slots=True)
class Speech:
    """A language: its words and its conventions."""

    tag: str  # BCP 47, for `lang`
    direction: str  # ltr or rtl
    words: PageWords
    locale: Locale  # for times, lengths, lists


def speech(wanted: str | None) -> Speech:
    """Find the language for a locale (BCP 47); English if none in the catalogue serves it."""
    tag, words = locale(wanted) or FALLBACK, _serving(wanted)
    if words is None:
        tag, words = FALLBACK, CATALOGUE[FALLBACK]
    spoken = conventions(tag) or Locale(FALLBACK)
    return Speech(tag, spoken.text_direction, words, spoken)


def _serving(wanted: str | None) -> PageWords | None:
    catalogue = {tag.lower(): words for tag, words in CATALOGUE.items()}
    return next((catalogue[each] for each in fallbacks(wanted) if each in catalogue), None)


def chosen(header: str | None, phone: str | None = None) -> str:
    """Choose the preferred locale (BCP 47) that has a catalogue; English if there is none.

    `header`: Accept-Language (RFC 9110, 12.5.4), unchecked. `phone`: the locale of the user's phone.
    """
    preferred = [*_accepted(header or ""), locale(phone)]
    return next((each for each in preferred if each and _serving(each)), FALLBACK)


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
