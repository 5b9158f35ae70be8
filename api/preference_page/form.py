"""The posted form: what was typed, and the PATCH of the preferences that it becomes."""

import json
import re
from dataclasses import asdict, fields, replace
from typing import Any

from starlette.datastructures import ImmutableMultiDict

from api.preference_page.view import Typed
from domain.fasts import MAX_REMINDER_MINUTES, MAX_REMINDERS
from domain.preferences import Preferences, Preview, QuietMode, known

FIELDS = tuple(each.name for each in fields(Typed))
LONGEST = 200  # characters of one field that are shown again
MAX_SHOWN = 20  # numbers that are shown again
LONGEST_NUMBER = 100  # digits
_STARTS, _ENDS = "22:00", "07:00"  # proposed to users without quiet hours
_QUIET = frozenset({"quiet", "starts", "ends", "time_zone", "mode"})
_BETWEEN = re.compile(r"[\s,;/\u060c\u3001\uff0c]+")  # what people put between numbers in one field
_CLOCK = re.compile(r"([01]?[0-9]|2[0-3])[:.]([0-5][0-9])(?::[0-5][0-9](?:\.[0-9]+)?)?", re.ASCII)


def stored(preferences: Preferences) -> Typed:
    """Fill the form with what is stored."""
    quiet = preferences.quiet_hours
    return Typed(
        reminders=preferences.reminders,
        reminder_minutes=tuple(str(each) for each in sorted(preferences.reminder_minutes, reverse=True)),
        messages=preferences.messages,
        reminder_preview=preferences.reminder_preview,
        message_preview=preferences.message_preview,
        quiet=quiet is not None,
        starts=f"{quiet.starts:%H:%M}" if quiet else _STARTS,
        ends=f"{quiet.ends:%H:%M}" if quiet else _ENDS,
        time_zone=(quiet and quiet.time_zone) or "",
        mode=quiet.mode if quiet else QuietMode.SILENT,
    )


def typed(sent: ImmutableMultiDict[str, Any]) -> Typed:
    """Read the posted fields. A missing one was not ticked, or is empty."""

    def text(name: str) -> str:
        return _text(sent.get(name))

    return Typed(
        reminders="reminders" in sent,
        reminder_minutes=tuple(
            word for each in sent.getlist("reminder_minutes") for word in _BETWEEN.split(_text(each)) if word
        )[:MAX_SHOWN],
        messages="messages" in sent,
        reminder_preview=text("reminder_preview"),
        message_preview=text("message_preview"),
        quiet="quiet" in sent,
        starts=text("starts"),
        ends=text("ends"),
        time_zone=text("time_zone"),
        mode=text("mode"),
    )


def changes(form: Typed, preferences: Preferences) -> tuple[dict[str, Any], dict[str, str]]:
    """Give the body of the PATCH that the form asks for, and its problems: field -> key of a message.

    The body may be used only without problems. Fields are those of `Typed`, keys those of `PageWords`. An unchanged
    time zone is left out, so a zone that this machine does not know does not block the other changes.
    """
    problems: dict[str, str] = {}
    if wrong := _wrong_minutes(form.reminder_minutes):
        problems["reminder_minutes"] = wrong
    for name, value in (("reminder_preview", form.reminder_preview), ("message_preview", form.message_preview)):
        if value not in set(Preview):
            problems[name] = "problem_choose"
    body: dict[str, Any] = {
        "reminders": form.reminders,
        "reminder_minutes": [] if wrong else sorted({int(each) for each in form.reminder_minutes}, reverse=True),
        "messages": form.messages,
        "reminder_preview": form.reminder_preview,
        "message_preview": form.message_preview,
        "quiet_hours": None,
    }
    if form.quiet:
        quiet: dict[str, Any] = {"starts": _clock(form.starts), "ends": _clock(form.ends), "mode": form.mode}
        before = preferences.quiet_hours
        if before is None or (before.time_zone or "") != form.time_zone:
            quiet["time_zone"] = known(form.time_zone) if form.time_zone else None
            if form.time_zone and quiet["time_zone"] is None:
                problems["time_zone"] = "problem_time_zone"
        body["quiet_hours"] = quiet
        problems |= _wrong_hours(form)
    return body, problems


def wrong_number(text: str) -> str | None:
    """Say what is wrong with a number of minutes, as a key of `PageWords`."""
    if not text.isdecimal() or len(text) > LONGEST_NUMBER:
        return "problem_minutes_not_numbers"
    return "problem_minutes_too_long" if int(text) > MAX_REMINDER_MINUTES else None


def is_clock(text: str) -> bool:
    """Tell whether an HTML time field can show this; it shows other values as empty."""
    return _clock(text) == text != ""


def differing(form: Typed, preferences: Preferences) -> list[str]:
    """List the fields whose typed value is not the stored one."""
    now = asdict(stored(preferences))
    return [name for name, value in asdict(form).items() if value != now[name]]


def asked_for(body: dict[str, Any], form: Typed, preferences: Preferences) -> dict[str, Any]:
    """Reduce a PATCH to the changed fields, so that an untouched value of a newer release stays."""
    before = stored(preferences)
    same = {name for name in FIELDS if getattr(form, name) == getattr(before, name)}
    if same.issuperset(_QUIET) or not (form.quiet or before.quiet):
        same.add("quiet_hours")
    return {name: value for name, value in body.items() if name not in same}


def base(preferences: Preferences) -> str:
    """Encode what a form is filled with, for `merged`."""
    return json.dumps(asdict(stored(preferences)))


def merged(form: Typed, filled_with: str, newest: Preferences) -> Typed:
    """Fill the form with the newest stored values, except fields that the user changed (`filled_with` is from `base`).

    So users keep what they typed, and do not undo by accident what was changed elsewhere.
    """
    try:
        before = json.loads(filled_with)
    except (ValueError, RecursionError):
        before = None
    if not isinstance(before, dict):
        return form
    were = {name: tuple(value) if isinstance(value, list) else value for name, value in before.items()}
    changed = {name: getattr(form, name) for name in FIELDS if were.get(name) != getattr(form, name)}
    return replace(stored(newest), **changed)


def _text(value: object) -> str:
    return "".join(each for each in value[:LONGEST] if each.isprintable()).strip() if isinstance(value, str) else ""


def _wrong_minutes(minutes: tuple[str, ...]) -> str | None:
    wrong = [error for each in minutes if (error := wrong_number(each))]
    if wrong:
        return wrong[0]
    most = len({int(each) for each in minutes})  # duplicates count once
    return "problem_minutes_too_many" if most > MAX_REMINDERS else None


def _wrong_hours(form: Typed) -> dict[str, str]:
    problems = {
        name: "problem_time"
        for name, value in (("starts", form.starts), ("ends", form.ends))
        if not _CLOCK.fullmatch(value)
    }
    if not problems and _clock(form.starts) == _clock(form.ends):
        problems["ends"] = "problem_same_time"
    if form.mode not in set(QuietMode):
        problems["mode"] = "problem_choose"
    return problems


def _clock(text: str) -> str:
    """Give a time in the API's format. In browsers without time fields people type 7.30 or 7:30."""
    clock = _CLOCK.fullmatch(text)
    return f"{int(clock[1]):02}:{clock[2]}" if clock else ""
