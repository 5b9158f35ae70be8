"""Values and rows that this release cannot read: left out and logged once, without stopping other work."""

import json
import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from typing import Any, TypeVar

import structlog

from db.models.people import DeviceToken
from domain.problems import NotFound
from domain.push import Environment, Provider, Route

_LONGEST_SHOWN = 40  # characters
_MAX_LOGGED = 100  # kinds of values
NOT_UNDERSTOOD = "unreadable value, taken as missing"
E = TypeVar("E", bound=StrEnum)

log = structlog.get_logger()

_logged: set[str] = set()


class Unreadable(NotFound):
    """A row has a value that this release does not know; a newer one may."""


def log_unreadable(what: str, value: object) -> None:
    """Log a value that cannot be read, once for each `what` (table.column) in the life of the process."""
    if what not in _logged and len(_logged) < _MAX_LOGGED:
        _logged.add(what)
        log.warning(NOT_UNDERSTOOD, what=what, value=repr(value)[:_LONGEST_SHOWN])


def word(kind: type[E], value: object, what: str) -> E | None:
    """Read a word of an enumeration; None for one that this release does not know."""
    try:
        return kind(value)  # type: ignore[arg-type] # the enumeration says whether it knows it
    except ValueError:
        log_unreadable(what, value)
        return None


def route_of(row: Any, table: str) -> Route | None:  # noqa: ANN401 -- any row that names one
    """Read a row's route; None for one that this release does not know."""
    provider = word(Provider, row.provider, f"{table}.provider")
    environment = word(Environment, row.environment, f"{table}.environment")
    return None if provider is None or environment is None else Route(provider, row.app_id, environment)


def addresses(rows: Iterable[DeviceToken]) -> Sequence[DeviceToken]:
    """Give the device tokens that this release can push to."""
    return [row for row in rows if route_of(row, "device_tokens") is not None]


def reported_route(report: Any) -> Route | None:  # noqa: ANN401 -- a worker of any release wrote it
    """Read the route of a limiter that a worker reports; None if this release cannot."""
    try:
        return Route(Provider(report["provider"]), report["app_id"], Environment(report["environment"]))
    except (KeyError, TypeError, ValueError):
        log_unreadable("workers.gates", "")
        return None


EARLIEST = datetime(1000, 1, 1, tzinfo=UTC)
LATEST = datetime(9000, 1, 1, tzinfo=UTC)  # stands for all later ones; hours can be added to it
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # PostgreSQL's
_MICROSECOND = timedelta(microseconds=1)
_MAX_DIGITS = 1000


async def read_odd_values(connection: Any) -> None:  # noqa: ANN401 -- asyncpg has no types
    """Have a connection read odd instants and times of day as this module does."""
    codecs = {"timestamptz": (_from_instant, _instant), "time": (_from_time, _time)}
    for name, (encoder, decoder) in codecs.items():
        await connection.set_type_codec(name, schema="pg_catalog", encoder=encoder, decoder=decoder, format="tuple")


def known_or_none(at: datetime | None) -> datetime | None:
    """Give an instant; an odd one counts as missing."""
    return None if at in {EARLIEST, LATEST} else at


def readable(column: str) -> str:
    """Write SQL that gives an instant, or null for an odd one, which would break arithmetic."""
    return f"CASE WHEN {column} > '{EARLIEST:%Y-%m-%d}+00' AND {column} < '{LATEST:%Y-%m-%d}+00' THEN {column} END"


def read_json(document: str) -> Any:  # noqa: ANN401 -- any JSON
    """Read JSON; None in place of an endless number, or of a document that is too deep."""
    try:
        return _JSON.decode(document)
    except RecursionError:
        log_unreadable("json", "")
        return None


def _instant(microseconds: tuple[int]) -> datetime:
    try:
        at = _EPOCH + timedelta(microseconds=microseconds[0])
        if EARLIEST <= at <= LATEST:
            return at
    except OverflowError:
        pass
    log_unreadable("timestamptz", microseconds[0])
    return LATEST if microseconds[0] > 0 else EARLIEST


def _from_instant(value: datetime) -> tuple[int]:
    return ((value.astimezone(UTC) - _EPOCH) // _MICROSECOND,)


def _time(microseconds: tuple[int]) -> time:
    """Read a time of day; 24:00 is the midnight that ends the day."""
    return (_EPOCH + timedelta(microseconds=microseconds[0])).time()


def _from_time(value: time) -> tuple[int]:
    return ((datetime.combine(_EPOCH, value, UTC) - _EPOCH) // _MICROSECOND,)


def _integer(digits: str) -> int | None:
    if len(digits) <= _MAX_DIGITS:
        return int(digits)
    log_unreadable("json", digits[:9])
    return None


def _float(digits: str) -> float | None:
    number = float(digits)
    if math.isfinite(number):
        return number
    log_unreadable("json", digits[:9])
    return None


_JSON = json.JSONDecoder(parse_int=_integer, parse_float=_float)
