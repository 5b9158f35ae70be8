"""Quiet hours: a daily span of local time in which a person's phones stay silent."""

from dataclasses import dataclass
from datetime import datetime, time

from domain.time_zones import zone


@dataclass(frozen=True, slots=True)
class QuietHours:
    """From `starts` up to, not including, `ends`, in `time_zone`; over midnight when `ends` is not after `starts`.

    In a time zone that this machine does not know there are none.
    """

    starts: time
    ends: time
    time_zone: str  # IANA name

    def contain(self, at: datetime) -> bool:
        """Tell whether the instant `at` falls into them."""
        place = zone(self.time_zone)
        if place is None:
            return False
        local = at.astimezone(place).time()
        if self.starts < self.ends:
            return self.starts <= local < self.ends
        return local >= self.starts or local < self.ends
