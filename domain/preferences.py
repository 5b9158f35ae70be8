"""What notifications a person wants, and how."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time
from enum import StrEnum
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

DEFAULT_REMINDER_MINUTES = (30,)
# What Android (GMT+02:00) and iOS (GMT+0200) give for a fixed offset, and what people write.
_OFFSET = re.compile(r"(?:GMT|UTC|UT)?([+\u2212-])(\d{1,2})(?::?([0-5]\d))?", re.ASCII | re.IGNORECASE)
_FIXED = re.compile(r"Etc/GMT([+-][1-9]\d?)")  # by IANA's sign: hours behind UTC


def known(name: str) -> str | None:
    """Give the IANA name of a time zone in any case; None if this machine does not know it, or it is `Factory`.

    An offset of whole hours becomes its `Etc/` zone, which has the opposite sign: `GMT+02:00` is `Etc/GMT-2`.
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
    """Read a time zone; None if this machine does not know it, or cannot read its data."""
    try:
        return None if (iana := known(name)) is None else ZoneInfo(iana)
    except (KeyError, ValueError, OSError):
        return None


def in_words(name: str) -> str:
    """Name a time zone for people: UTC+2 for `Etc/GMT-2`, which has the opposite sign; others by their name."""
    behind = _FIXED.fullmatch(known(name) or "")
    return name if behind is None else f"UTC{-int(behind[1]):+d}"


@cache
def _names() -> Mapping[str, str]:
    names = available_timezones() - {"localtime", "Factory"}  # the machine's own, and the one that means "not set"
    return {name.casefold(): name for name in names}


class QuietMode(StrEnum):
    """What happens to a push in quiet hours."""

    SILENT = "silent"  # shown without sound or light
    WITHHOLD = "withhold"  # not sent


@dataclass(frozen=True, slots=True)
class QuietHours:
    """From `starts` to `ends` (not included) in `time_zone`; over midnight when `ends` is not after `starts`.

    They are compared with the wall clock at that instant, so daylight saving time needs no rule: an hour that comes
    twice counts twice. In a time zone that this machine does not know there are no quiet hours.
    """

    starts: time
    ends: time
    time_zone: str | None  # IANA name; None: that of each phone
    mode: QuietMode = QuietMode.SILENT
    fallback_zone: str | None = None  # of a phone that never reported its own; None: UTC

    def contain(self, at: datetime, phone_zone: str | None = None) -> bool:
        """Tell whether an instant is in them, on a phone whose last registration named `phone_zone`."""
        place = self.place(phone_zone)
        if place is None:
            return False
        local = at.astimezone(place).time()
        if self.starts < self.ends:
            return self.starts <= local < self.ends
        return local >= self.starts or local < self.ends

    def place(self, phone_zone: str | None) -> ZoneInfo | None:
        """Give the time zone that counts for a phone whose last registration named `phone_zone`."""
        if self.time_zone is not None:
            return zone(self.time_zone)
        named = (each for each in (phone_zone, self.fallback_zone, "UTC") if each is not None)
        return next((known for each in named if (known := zone(each)) is not None), None)


class Preview(StrEnum):
    """How much a lock screen shows."""

    FULL = "full"
    GENERIC = "generic"


@dataclass(frozen=True, slots=True)
class Preferences:
    """A person's notification preferences; the defaults apply until some are set."""

    reminders: bool = True
    reminder_minutes: tuple[int, ...] = DEFAULT_REMINDER_MINUTES
    messages: bool = True
    reminder_preview: Preview = Preview.FULL
    message_preview: Preview = Preview.GENERIC
    quiet_hours: QuietHours | None = None
    rev: int = 0  # grows with each change; 0: never set
