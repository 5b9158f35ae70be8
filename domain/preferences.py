"""What a person wants to be told, and how."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time
from enum import StrEnum
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from domain.sessions import DEFAULT_REMINDER_MINUTES

# What Android (GMT+02:00) and iOS (GMT+0200) give where a fixed offset is set, and what people write.
_OFFSET = re.compile(r"(?:GMT|UTC|UT)?([+\u2212-])(\d{1,2})(?::?([0-5]\d))?", re.ASCII | re.IGNORECASE)


_FIXED = re.compile(r"Etc/GMT([+-][1-9]\d?)")  # by IANA's sign: hours behind UTC


def known(name: str) -> str | None:
    """Give the IANA name of a time zone, whatever its case; None where this machine knows none, or it is `Factory`.

    An offset of whole hours becomes its `Etc/` zone, which counts the other way round: `GMT+02:00` is `Etc/GMT-2`.
    """
    name = name.strip()
    if iana := _names().get(name.casefold()):
        return iana
    offset = _OFFSET.fullmatch(name)
    if offset is None or int(offset[3] or 0):
        return None
    hours = int(offset[2])
    other_way = "-" if offset[1] == "+" else "+"
    return _names().get(f"etc/gmt{other_way}{hours}") if hours else _names().get("etc/gmt")


def zone(name: str) -> ZoneInfo | None:
    """Read a time zone; None where this machine knows none of that name, or cannot use what it has."""
    try:
        return None if (iana := known(name)) is None else ZoneInfo(iana)
    except (KeyError, ValueError, OSError):
        return None


def in_words(name: str) -> str:
    """Say a time zone to people: UTC+2 for `Etc/GMT-2`, whose sign is the other way round; others by their name."""
    behind = _FIXED.fullmatch(known(name) or "")
    return name if behind is None else f"UTC{-int(behind[1]):+d}"


@cache
def _names() -> Mapping[str, str]:
    names = available_timezones() - {"localtime", "Factory"}  # the one of this machine, and what means "not set"
    return {name.casefold(): name for name in names}


class QuietMode(StrEnum):
    """What becomes of a push in quiet hours."""

    SILENT = "silent"  # shown without sound or light
    WITHHOLD = "withhold"  # not sent


@dataclass(frozen=True, slots=True)
class QuietHours:
    """From `starts` up to, not including, `ends`, in `time_zone`; over midnight when `ends` is not after `starts`.

    Compared with the clock on the wall at that instant, so daylight saving time needs no rule: an hour that comes twice
    is in them twice, one that is left out is not missed. In a time zone that this machine does not know there are none.
    """

    starts: time
    ends: time
    time_zone: str | None  # IANA name; None: wherever each phone is
    mode: QuietMode = QuietMode.SILENT
    fallback_zone: str | None = None  # of a phone that never told its own; None: UTC

    def contain(self, at: datetime, phone_zone: str | None = None) -> bool:
        """Tell whether the instant `at` falls into them, on a phone whose last registration named `phone_zone`."""
        place = self.place(phone_zone)
        if place is None:
            return False
        local = at.astimezone(place).time()
        if self.starts < self.ends:
            return self.starts <= local < self.ends
        return local >= self.starts or local < self.ends

    def place(self, phone_zone: str | None) -> ZoneInfo | None:
        """Give the zone whose clocks count for a phone whose last registration named `phone_zone`."""
        if self.time_zone is not None:
            return zone(self.time_zone)
        named = (each for each in (phone_zone, self.fallback_zone, "UTC") if each is not None)
        return next((found for each in named if (found := zone(each)) is not None), None)


class Preview(StrEnum):
    """How much a lock screen shows."""

    FULL = "full"
    GENERIC = "generic"


@dataclass(frozen=True, slots=True)
class Preferences:
    """A person's notification preferences; the defaults hold for whoever never set any."""

    reminders: bool = True
    reminder_minutes: tuple[int, ...] = DEFAULT_REMINDER_MINUTES
    messages: bool = True
    reminder_preview: Preview = Preview.FULL
    message_preview: Preview = Preview.GENERIC
    quiet_hours: QuietHours | None = None
    rev: int = 0  # grows with each change; 0: never set
