"""Time zones as phones name them, and the zone that a name stands for."""

import re
from collections.abc import Mapping
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

# What Android (GMT+02:00) and iOS (GMT+0200) give where a fixed offset is set, and what people write.
_OFFSET = re.compile(r"(?:GMT|UTC|UT)?([+\u2212-])(\d{1,2})(?::?([0-5]\d))?", re.ASCII | re.IGNORECASE)

_FIXED = re.compile(r"Etc/GMT([+-][1-9]\d?)")  # by IANA's sign: hours behind UTC


def known(name: str) -> str | None:
    """Give the IANA name of a time zone, whatever its case; None where this machine knows none, or it is `Factory`.

    An offset of whole hours becomes its `Etc/` zone, which counts the other way round: `GMT+02:00` is `Etc/GMT-2`.
    """
    name = name.strip()
    if found := _names().get(name.casefold()):
        return found
    offset = _OFFSET.fullmatch(name)
    if offset is None or int(offset[3] or 0):
        return None
    hours = int(offset[2])
    other_way = "-" if offset[1] == "+" else "+"
    return _names().get(f"etc/gmt{other_way}{hours}") if hours else _names().get("etc/gmt")


def zone(name: str) -> ZoneInfo | None:
    """Read a time zone; None where this machine knows none of that name, or cannot use what it has."""
    try:
        return None if (found := known(name)) is None else ZoneInfo(found)
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
