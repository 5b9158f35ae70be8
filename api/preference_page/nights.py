"""The quiet hours that are on or come next, zone by zone, as instants: what a sentence about tonight is made of."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from domain.quiet_hours import QuietHours

_DAY = timedelta(days=1)
_HOUR = timedelta(hours=1)
_SECOND = timedelta(seconds=1)
_TWICE = timedelta(hours=3)  # apart are at most the two spans of one night
_LONGEST = timedelta(hours=20)  # the pause of longer quiet hours may be as short every day


@dataclass(frozen=True, slots=True)
class Span:
    """From `starts_at` up to, not including, `ends_at`; both in the zone of their night."""

    starts_at: datetime
    ends_at: datetime

    @property
    def length(self) -> timedelta:
        """The time that passes, whatever clocks on walls say."""
        return self.ends_at.astimezone(UTC) - self.starts_at.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Night:
    """Quiet hours in one zone: one span; two where they end in an hour that comes twice."""

    time_zone: str  # IANA name
    spans: tuple[Span, ...]
    usual: timedelta  # what they last where no clock changes

    @property
    def length(self) -> timedelta:
        """The time that is quiet; other than `usual` where clocks change meanwhile."""
        return sum((each.length for each in self.spans), timedelta())


def nights(quiet_hours: QuietHours | None, phone_zones: Iterable[str | None], now: datetime) -> tuple[Night, ...]:
    """Give the quiet hours that are on at `now` or come next, for each zone that they have among the phones.

    `phone_zones` are those of the phones' last registrations. Without a phone they are told for the zone that a phone
    would have of which nothing is known. None where this machine does not know the zone.
    """
    if quiet_hours is None:
        return ()
    zones = dict.fromkeys(quiet_hours.place(each) for each in [*phone_zones] or [None])
    return tuple(_night(quiet_hours, each, now) for each in zones if each is not None)


def _night(quiet_hours: QuietHours, place: ZoneInfo, now: datetime) -> Night:
    first, *later = (each for each in _quiet(quiet_hours, place, now) if each[1] > now)
    starts, ends = (datetime.combine(now, each, UTC) for each in (quiet_hours.starts, quiet_hours.ends))
    usual = ends - starts if starts < ends else ends + _DAY - starts
    again = [each for each in later[:1] if each[0] - first[1] < _TWICE and usual < _LONGEST]
    return Night(place.key, tuple(Span(*(each.astimezone(place) for each in span)) for span in (first, *again)), usual)


def _quiet(quiet_hours: QuietHours, place: ZoneInfo, now: datetime) -> list[tuple[datetime, datetime]]:
    """List what is quiet around `now`, in UTC: in each piece of time between two changes of clocks, then joined."""
    found: list[tuple[datetime, datetime]] = []
    overnight = _DAY if quiet_hours.ends <= quiet_hours.starts else timedelta()
    for begins, over in pairwise(_changes(place, now.astimezone(UTC).replace(microsecond=0))):
        offset = begins.astimezone(place).utcoffset() or timedelta()
        day = (begins + offset).date() - _DAY
        while (starts := datetime.combine(day, quiet_hours.starts, UTC) - offset) < over:
            ends = datetime.combine(day, quiet_hours.ends, UTC) - offset + overnight
            day += _DAY
            starts, ends = max(starts, begins), min(ends, over)
            if found and found[-1][1] == starts < ends:
                starts, _ = found.pop()
            if starts < ends:
                found.append((starts, ends))
    return found


def _changes(place: ZoneInfo, now: datetime) -> list[datetime]:
    """List the instants at which a zone's clocks are changed, between those where looking begins and ends."""
    hours = [now + _HOUR * each for each in range(-48, 97)]
    changed = [
        _change(place, before, after)
        for before, after in pairwise(hours)
        if before.astimezone(place).utcoffset() != after.astimezone(place).utcoffset()
    ]
    return [hours[0], *changed, hours[-1]]


def _change(place: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """Find the second at which clocks are changed, after `before` and not after `after`."""
    while after - before > _SECOND:
        middle = before + (after - before) // 2
        middle = middle.replace(microsecond=0)
        same = middle.astimezone(place).utcoffset() == before.astimezone(place).utcoffset()
        before, after = (middle, after) if same else (before, middle)
    return after
