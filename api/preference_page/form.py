"""The posted form: what was typed, and what of it becomes a PATCH of the preferences."""

import re
from collections.abc import Mapping
from typing import Any

from api.preference_page.view import Typed
from domain.preferences import Preferences, Preview
from domain.quiet_hours import QuietMode
from domain.sessions import MOST_REMINDER_MINUTES, MOST_REMINDERS
from domain.time_zones import known

LONGEST = 200  # characters that are shown again of what was typed into one field
_STARTS, _ENDS = "22:00", "07:00"  # proposed to somebody without quiet hours
_BETWEEN = re.compile(r"[\s,;،、，·/]+")  # whatever people put between numbers
_CLOCK = re.compile(r"([01]?[0-9]|2[0-3])[:.]([0-5][0-9])(?::[0-5][0-9](?:\.[0-9]+)?)?", re.ASCII)


def stored(preferences: Preferences) -> Typed:
    """Fill the form with what is stored."""
    quiet = preferences.quiet_hours
    return Typed(
        reminders=preferences.reminders,
        reminder_minutes=", ".join(str(each) for each in sorted(preferences.reminder_minutes, reverse=True)),
        messages=preferences.messages,
        reminder_preview=preferences.reminder_preview,
        message_preview=preferences.message_preview,
        quiet=quiet is not None,
        starts=f"{quiet.starts:%H:%M}" if quiet else _STARTS,
        ends=f"{quiet.ends:%H:%M}" if quiet else _ENDS,
        time_zone=(quiet and quiet.time_zone) or "",
        mode=quiet.mode if quiet else QuietMode.SILENT,
    )


def typed(fields: Mapping[str, Any]) -> Typed:
    """Read the posted fields, as a form's data has them: what is not there was not ticked, or is empty."""

    def text(name: str) -> str:
        value = fields.get(name)
        return "".join(each for each in value[:LONGEST] if each.isprintable()).strip() if isinstance(value, str) else ""

    return Typed(
        reminders="reminders" in fields,
        reminder_minutes=text("reminder_minutes"),
        messages="messages" in fields,
        reminder_preview=text("reminder_preview"),
        message_preview=text("message_preview"),
        quiet="quiet" in fields,
        starts=text("starts"),
        ends=text("ends"),
        time_zone=text("time_zone"),
        mode=text("mode"),
    )


def changes(form: Typed) -> tuple[dict[str, Any], dict[str, str]]:
    """Give the body of the PATCH that the form asks for, and what is wrong with it: field -> key of a message.

    The body is of use only where nothing is wrong. Fields are those of `Typed`, keys those of `words`.
    """
    minutes, wrong_minutes = _minutes(form.reminder_minutes)
    problems = {"reminder_minutes": wrong_minutes} if wrong_minutes else {}
    for name, value in (("reminder_preview", form.reminder_preview), ("message_preview", form.message_preview)):
        if value not in set(Preview):
            problems[name] = "problem_choose"
    body: dict[str, Any] = {
        "reminders": form.reminders,
        "reminder_minutes": minutes,
        "messages": form.messages,
        "reminder_preview": form.reminder_preview,
        "message_preview": form.message_preview,
        "quiet_hours": None,
    }
    if form.quiet:
        body["quiet_hours"] = {
            "starts": _clock(form.starts),
            "ends": _clock(form.ends),
            "time_zone": known(form.time_zone) if form.time_zone else None,
            "mode": form.mode,
        }
        problems |= _wrong_hours(form)
    return body, problems


def _minutes(text: str) -> tuple[list[int], str | None]:
    words = [each for each in _BETWEEN.split(text) if each]
    if not all(each.isdecimal() for each in words):
        return [], "problem_minutes_not_numbers"
    found = list(dict.fromkeys(int(each) for each in words))  # the same one twice is meant once
    if any(each > MOST_REMINDER_MINUTES for each in found):
        return [], "problem_minutes_too_long"
    if len(found) > MOST_REMINDERS:
        return [], "problem_minutes_too_many"
    return sorted(found, reverse=True), None


def _wrong_hours(form: Typed) -> dict[str, str]:
    problems = {
        name: "problem_time"
        for name, value in (("starts", form.starts), ("ends", form.ends))
        if not _CLOCK.fullmatch(value)
    }
    if not problems and _clock(form.starts) == _clock(form.ends):
        problems["ends"] = "problem_same_time"
    if form.time_zone and known(form.time_zone) is None:
        problems["time_zone"] = "problem_time_zone"
    if form.mode not in set(QuietMode):
        problems["mode"] = "problem_choose"
    return problems


def _clock(text: str) -> str:
    """Give a time as the API has it: browsers without a field for times let people type 7.30 or 7:30."""
    found = _CLOCK.fullmatch(text)
    return f"{int(found[1]):02}:{found[2]}" if found else ""
