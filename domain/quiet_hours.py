"""Quiet hours: a daily span of local time in which a person's phones stay silent, and what becomes of pushes then."""

from dataclasses import dataclass
from datetime import datetime, time
from enum import StrEnum
from zoneinfo import ZoneInfo

from domain.time_zones import zone


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
