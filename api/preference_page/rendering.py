"""The pages as HTML, in the reader's language, always escaped, and without a script."""

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

from babel.lists import format_list
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from api.preference_page import form
from api.preference_page import view as page
from api.preference_page.phrases import Phrases
from api.preference_page.view import Fast, SignedInPhone, Typed, View
from api.preference_page.words import PageWords, Speech, speech
from domain.devices import SHOWS_NOTHING, Permission
from domain.fasts import MAX_REMINDER_MINUTES, MAX_REMINDERS, Reminder
from domain.kinds import Kind
from domain.preferences import Preview, QuietMode, known
from domain.presentation import Content, Words, worded
from domain.push import Provider

_HERE = Path(__file__).parent
STYLE = (_HERE / "style.css").read_bytes()
STYLE_VERSION = hashlib.sha256(STYLE).hexdigest()[:12]
_SAMPLE_MINUTES = 30  # of the sample reminder, for users without reminders

_templates = Environment(
    loader=FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.tests["clock"] = form.is_clock
_templates.globals.update(
    style=f"{page.STYLE_PATH}?{STYLE_VERSION}",
    paths={"save": page.PATH, "stop": page.STOP_PATH, "sign_out": page.SIGN_OUT_PATH},
    names={"csrf": page.CSRF_FIELD, "rev": page.REV_FIELD, "base": page.BASE_FIELD, "stop": page.STOP_FIELD},
)


class Plain(StrEnum):
    """Pages with only a text. Each value is the name of its texts."""

    GONE = "gone"  # the link was used, has expired, or never existed: the same page
    SIGNED_OUT = "signed_out"
    EXPIRED = "expired"  # a form without the session's CSRF token
    BUSY = "busy"  # too many requests
    TROUBLE = "trouble"  # an error of ours


def preference_page(view: View) -> str:
    """Render the page."""
    speaks = speech(view.locale)
    phrases, shown = Phrases(speaks, view.now), view.typed or form.stored(view.preferences)
    labels, differing = _labels(speaks.words), form.differing(shown, view.preferences)
    return _rendered(
        "preferences",
        speaks,
        view=view,
        shown=shown,
        base=form.base(view.preferences),
        phrases=phrases,
        problems={field: _problem(speaks, phrases, view.problems[field]) for field in labels if field in view.problems},
        minutes=_minute_fields(shown, view.problems),
        labels=labels,
        differing=format_list([labels[each] for each in differing], locale=speaks.locale) if differing else "",
        samples=_samples(view, speaks),
        fasts=[(fast, _moment(view, phrases, fast.ends_at), _fast(view, phrases, fast)) for fast in view.fasts],
        nights=_nights(view, phrases),
        zone_unknown=bool(shown.time_zone) and known(shown.time_zone) is None,
        zones=phrases.zones(),
        other_zone=_other_zone(phrases, shown),
        phones=[(phone, _phone(speaks, phrases, phone)) for phone in view.phones],
        blocked=sum(each.permission in SHOWS_NOTHING for each in view.phones),
    )


def confirm_page(locale: str, action: str) -> str:
    """Render the page behind the link of an e-mail: a button that opens the preferences by a POST to `action`.

    There is no session yet, so there is no CSRF token. The code in `action` authorizes the POST.
    """
    return _rendered("confirm", speech(locale), action=action)


def plain_page(locale: str, notice: Plain) -> str:
    """Render a page with only a text."""
    speaks = speech(locale)
    words = speaks.words
    back = words.expired_link if notice is Plain.EXPIRED else None
    return _rendered("plain", speaks, title=getattr(words, f"{notice}_title"), text=getattr(words, notice), back=back)


def _rendered(name: str, speaks: Speech, **shown: Any) -> str:  # noqa: ANN401 -- each page shows its own
    return _templates.get_template(f"{name}.html").render(speech=speaks, w=speaks.words, **shown)


def _problem(speaks: Speech, phrases: Phrases, key: str) -> str:
    text: str = getattr(speaks.words, key)
    return text.format(longest=phrases.length(timedelta(minutes=MAX_REMINDER_MINUTES)), most=MAX_REMINDERS)


def _labels(words: PageWords) -> Mapping[str, str]:
    """Name the fields, in the order of the page."""
    return {
        "reminders": words.reminders_switch,
        "reminder_minutes": words.minutes,
        "reminder_preview": f"{words.preview} ({words.reminders})",
        "messages": words.messages_switch,
        "message_preview": f"{words.preview} ({words.messages})",
        "quiet": words.quiet_switch,
        "starts": f"{words.quiet}, {words.starts}",
        "ends": f"{words.quiet}, {words.ends}",
        "time_zone": words.time_zone,
        "mode": words.mode,
    }


def _minute_fields(shown: Typed, problems: Mapping[str, str]) -> list[tuple[str, bool]]:
    """Give the values of the minute fields, and whether each is wrong; with an empty field for one more."""
    problem = problems.get("reminder_minutes")
    all_wrong = problem is not None and not any(map(form.wrong_number, shown.reminder_minutes))
    entries = [(each, all_wrong or form.wrong_number(each) is not None) for each in shown.reminder_minutes]
    return [*entries, ("", False)] if len(entries) < MAX_REMINDERS else entries


def _samples(view: View, speaks: Speech) -> Mapping[str, Mapping[Preview, Words]]:
    """Give what a lock screen shows for each choice, by field."""
    stored = view.preferences.reminder_minutes
    content = {
        Kind.REMINDER: Content(minutes_left=stored[0] if stored else _SAMPLE_MINUTES),
        Kind.MESSAGE: Content(body=speaks.words.sample_message),
    }
    shown = partial(worded, view.presentation)
    return {
        f"{kind}_preview": {preview: shown(kind, speaks.tag, preview, content[kind]) for preview in Preview}
        for kind in content
    }


def _fast(view: View, phrases: Phrases, fast: Fast) -> list[tuple[str, str]]:
    """Describe each reminder of a fast, and what quiet hours do to it."""
    words = phrases.speech.words
    described = []
    for each in fast.reminders:
        form = words.before if each.minutes else words.at_the_end
        length = phrases.length(timedelta(minutes=each.minutes))
        described.append(
            (form.format(length=length, at=_moment(view, phrases, each.due_at)), _note(view, phrases, each))
        )
    return described


def _note(view: View, phrases: Phrases, reminder: Reminder) -> str:
    quiet, words = view.preferences.quiet_hours, phrases.speech.words
    if quiet is None:
        return ""
    inside = [quiet.contain(reminder.due_at, zone) for zone in [each.time_zone for each in view.phones] or [None]]
    if not any(inside):
        return ""
    note = words.note_silent if quiet.mode is QuietMode.SILENT else words.note_withheld
    return note if all(inside) else words.note_some.format(note=note)


def _nights(view: View, phrases: Phrases) -> list[str]:
    quiet, words = view.preferences.quiet_hours, phrases.speech.words
    if quiet is None:
        return []
    if not view.nights:
        return [words.night_zone_unknown]
    sentences = {night.time_zone: phrases.night(night, quiet.mode) for night in view.nights}
    if _is_one_place(view):
        return list(sentences.values())
    return [words.night_in.format(place=phrases.place(place), night=night) for place, night in sentences.items()]


def _moment(view: View, phrases: Phrases, at: datetime) -> str:
    moment = phrases.moment(at, view.time_zone)
    if _is_one_place(view):
        return moment
    return phrases.speech.words.moment_in.format(moment=moment, place=phrases.place(view.time_zone))


def _is_one_place(view: View) -> bool:
    """Tell whether all times are in the one zone of all phones, so that the zone needs no mention."""
    phones = {each.time_zone for each in view.phones} or {None}
    return phones | {each.time_zone for each in view.nights} == {view.time_zone}


def _other_zone(phrases: Phrases, shown: Typed) -> str | None:
    """Give the chosen zone if it is not in the list: an alias, or a zone that this machine does not know."""
    listed = any(shown.time_zone in zones for zones in phrases.zones().values())
    return None if listed or not shown.time_zone else shown.time_zone


def _phone(speaks: Speech, phrases: Phrases, phone: SignedInPhone) -> Mapping[str, str]:
    words, is_iphone = speaks.words, phone.provider is Provider.APNS
    permissions = {
        Permission.GRANTED: words.granted,
        Permission.PROVISIONAL: words.provisional,
        Permission.UNDETERMINED: words.undetermined,
        Permission.DENIED: words.denied_iphone if is_iphone else words.denied_android,
        None: words.permission_not_told,
    }
    zone = phone.time_zone
    return {
        "name": words.iphone if is_iphone else words.android,
        "system": _system(phone),
        "app": words.app_version.format(version=phone.app_version) if phone.app_version else "",
        "permission": permissions[phone.permission],
        "zone": words.zone_of_phone.format(place=phrases.place(zone)) if zone else words.zone_not_told,
        "seen": words.last_seen.format(ago=phrases.ago(phone.last_seen_at)),
    }


def _system(phone: SignedInPhone) -> str:
    """Name the phone's system. Most apps send only its version number."""
    version = phone.os_version or ""
    return f"{'iOS' if phone.provider is Provider.APNS else 'Android'} {version}" if version[:1].isdigit() else version
