"""Moments, lengths and places in the words of a language."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, lru_cache
from importlib.resources import files
from itertools import groupby
from zoneinfo import ZoneInfo

from babel import Locale
from babel.dates import format_skeleton, format_time, format_timedelta, get_timezone_location
from babel.units import format_unit

from api.preference_page.view import Night
from api.preference_page.words import PageWords, Speech
from domain.locales import joined
from domain.preferences import QuietMode, in_words, known, zone

_LOCALES, _PLACES = 200, 2000  # sizes of caches: finding the names is slow
_NIGHT_FALLS, _DAY_BREAKS = 17, 5  # hours: a start between them is "tonight"
_AREAS = {"Africa": "002", "America": "019", "Antarctica": "AQ", "Arctic": "150", "Asia": "142", "Australia": "009"} | {
    "Europe": "150",
    "Pacific": "009",
}  # of IANA names -> CLDR's name of the continent


@dataclass(frozen=True, slots=True)
class Phrases:
    """Writes moments and lengths in one language, relative to `now`."""

    speech: Speech
    now: datetime

    @property
    def _words(self) -> PageWords:
        return self.speech.words

    @property
    def _locale(self) -> Locale:
        return self.speech.locale

    def clock(self, at: datetime) -> str:
        """Write a time of day, in the zone of `at`: 19:00."""
        return format_time(at, "short", tzinfo=at.tzinfo, locale=self._locale)

    def day(self, at: datetime) -> str:
        """Write a day: Sun, Oct 25."""
        return format_skeleton("MMMEd", at, tzinfo=at.tzinfo, locale=self._locale)

    def moment(self, at: datetime, place: str) -> str:
        """Write a moment within a sentence, in the time of a zone: today at 19:00."""
        local = at.astimezone(zone(place))
        form = {0: self._words.at_today, 1: self._words.at_tomorrow}.get(self._days_ahead(local), self._words.at_day)
        return form.format(day=self.day(local), time=self.clock(local))

    def length(self, length: timedelta) -> str:
        """Write a length in hours and minutes: 1 hour, 30 minutes."""
        hours, minutes = divmod(round(length.total_seconds() / 60), 60)
        parts = [
            format_unit(value, unit, locale=self._locale)
            for value, unit in ((hours, "duration-hour"), (minutes, "duration-minute"))
            if value or (unit == "duration-minute" and not hours)
        ]
        return joined(parts, self._locale, "unit", "unit-short", "standard")

    def ago(self, at: datetime) -> str:
        """Write how long ago something was: 3 hours ago."""
        passed = min(at - self.now, -timedelta(seconds=1))  # clocks differ; "in 0 minutes" is no past
        return format_timedelta(passed, granularity="minute", add_direction=True, locale=self._locale)

    def place(self, name: str) -> str:
        """Name the place of a time zone: Vienna; for a fixed offset: UTC+2."""
        return _place(self._locale, name)

    def night(self, night: Night, mode: QuietMode) -> str:
        """Describe the next quiet hours."""
        first, *again = night.spans
        clocks = {"starts": self.clock(first.starts_at), "ends": self.clock(first.ends_at)}
        when = self._when(first.starts_at).format(day=self.day(first.starts_at), **clocks)
        form = self._words.night_silent if mode is QuietMode.SILENT else self._words.night_withheld
        sentences = [form.format(when=when[:1].upper() + when[1:])]  # CLDR writes days as inside a sentence
        sentences += [
            self._words.night_again.format(starts=self.clock(each.starts_at), ends=self.clock(each.ends_at))
            for each in again
        ]
        if night.length != night.usual:
            form = self._words.night_longer if night.length > night.usual else self._words.night_shorter
            sentences.append(form.format(length=self.length(night.length)))
        return " ".join(sentences)

    def zones(self) -> Mapping[str, Mapping[str, str]]:
        """List the time zones that can be chosen: continent -> IANA name -> place."""
        return _zones(self._locale, self._words.area_atlantic, self._words.area_indian)

    def _when(self, starts: datetime) -> str:
        words, ahead = self._words, self._days_ahead(starts)
        if starts <= self.now:
            return words.when_now
        after_midnight = starts.hour < _DAY_BREAKS
        of_this_day = ahead == 0 or (ahead == 1 and after_midnight and self._local(starts).hour >= _DAY_BREAKS)
        if of_this_day and (after_midnight or starts.hour >= _NIGHT_FALLS):
            return words.when_tonight
        return {0: words.when_today, 1: words.when_tomorrow}.get(ahead, words.when_day)

    def _days_ahead(self, at: datetime) -> int:
        return (at.date() - self._local(at).date()).days

    def _local(self, at: datetime) -> datetime:
        """Give `now` in the zone of `at`."""
        return self.now.astimezone(at.tzinfo)


@lru_cache(maxsize=_LOCALES)
def _zones(locale: Locale, atlantic: str, indian: str) -> Mapping[str, Mapping[str, str]]:
    areas = {area: locale.territories[code] for area, code in _AREAS.items()}
    areas |= {"Atlantic": atlantic, "Indian": indian}
    located = sorted(
        (areas[name.partition("/")[0]], f"{place} ({country})" if country not in {place, ""} else place, name)
        for name, country, place in (
            (name, locale.territories.get(territory, ""), _place(locale, name)) for name, territory in _inhabited()
        )
    )
    return {area: {name: place for _, place, name in zones} for area, zones in groupby(located, lambda each: each[0])}


@cache
def _inhabited() -> tuple[tuple[str, str], ...]:
    """List the zones in IANA's table of countries, each with its country."""
    table = files("tzdata").joinpath("zoneinfo", "zone.tab").read_text(encoding="utf-8")
    lines = (line.split("\t") for line in table.splitlines() if not line.startswith("#"))
    return tuple((line[2], line[0]) for line in lines if known(line[2]) == line[2])


@lru_cache(maxsize=_PLACES)
def _place(locale: Locale, name: str) -> str:
    offset = in_words(name)
    if offset != name:
        return offset
    try:
        return get_timezone_location(ZoneInfo(name), locale=locale, return_city=True)
    except (LookupError, ValueError, OSError):
        return name
