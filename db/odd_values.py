"""Values of PostgreSQL that Python lacks: each is read as the nearest, since one would fail all rows of a statement.

PostgreSQL knows the time of day 24:00, infinity, years before 1 and after 9999, numbers of any length, and JSON of any
depth. No column is known here; each type is told once. What is missing where it may be is the
business of those who read it (`known_or_none`), as is what SQL counts with (`readable`).
"""

import json
import math
from datetime import UTC, datetime, time, timedelta
from typing import Any

from db.unreadable import tell

EARLIEST = datetime(1000, 1, 1, tzinfo=UTC)
LATEST = datetime(9000, 1, 1, tzinfo=UTC)  # whatever is later; hours can be added to it

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # PostgreSQL's
_MICROSECOND = timedelta(microseconds=1)
_MOST_DIGITS = 1000


async def read_odd_values(connection: Any) -> None:  # noqa: ANN401 -- asyncpg has no types
    """Have a connection read instants and times of day in this way."""
    ways = {"timestamptz": (_from_instant, _instant), "time": (_from_time, _time)}
    for name, (encoder, decoder) in ways.items():
        await connection.set_type_codec(name, schema="pg_catalog", encoder=encoder, decoder=decoder, format="tuple")


def known_or_none(at: datetime | None) -> datetime | None:
    """Give an instant that may be missing; an odd one counts as missing."""
    return None if at in {EARLIEST, LATEST} else at


def readable(column: str) -> str:
    """Write SQL that gives an instant to count with, or null for an odd one, with which counting would fail."""
    return f"CASE WHEN {column} > '{EARLIEST:%Y-%m-%d}+00' AND {column} < '{LATEST:%Y-%m-%d}+00' THEN {column} END"


def read_json(document: str) -> Any:  # noqa: ANN401 -- any JSON
    """Read JSON; null in place of a number without bounds, or of a document without an end to its depth."""
    try:
        return json.loads(document, parse_int=_integer, parse_float=_float)
    except RecursionError:
        tell("json", "")
        return None


def _instant(microseconds: tuple[int]) -> datetime:
    try:
        found = _EPOCH + timedelta(microseconds=microseconds[0])
        if EARLIEST <= found <= LATEST:
            return found
    except OverflowError:
        pass
    tell("timestamptz", microseconds[0])
    return LATEST if microseconds[0] > 0 else EARLIEST


def _from_instant(value: datetime) -> tuple[int]:
    return ((value.astimezone(UTC) - _EPOCH) // _MICROSECOND,)


def _time(microseconds: tuple[int]) -> time:
    """Read a time of day; 24:00 is the midnight that ends the day."""
    return (_EPOCH + timedelta(microseconds=microseconds[0])).time()


def _from_time(value: time) -> tuple[int]:
    return ((datetime.combine(_EPOCH, value, UTC) - _EPOCH) // _MICROSECOND,)


def _integer(digits: str) -> int | None:
    if len(digits) <= _MOST_DIGITS:
        return int(digits)
    tell("json", digits[:9])
    return None


def _float(digits: str) -> float | None:
    found = float(digits)
    if math.isfinite(found):
        return found
    tell("json", digits[:9])
    return None
