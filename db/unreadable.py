"""Values of rows that this process cannot read: a word of a newer release, a time zone that this machine lacks.

One person's odd value must not stop what is done for many: it counts as absent, and is told once.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, TypeVar

import structlog

from db.models import DeviceToken
from domain.problems import NotFound
from domain.push import Environment, Provider, Route

_LONGEST_SHOWN = 40  # characters
_MOST_TOLD = 100  # kinds of values

TOLD = "value not understood, taken for absent"

E = TypeVar("E", bound=StrEnum)
log = structlog.get_logger()
_told: set[str] = set()


class Unreadable(NotFound):
    """A row holds a value that this release does not know; a newer one may."""


def tell(what: str, value: object) -> None:
    """Log a value that cannot be read, once for each `what` (table.column) in the life of the process."""
    if what not in _told and len(_told) < _MOST_TOLD:
        _told.add(what)
        log.warning(TOLD, what=what, value=repr(value)[:_LONGEST_SHOWN])


def word(kind: type[E], value: object, what: str) -> E | None:
    """Read a word; None for one that this release does not know."""
    try:
        return kind(value)  # type: ignore[arg-type] # whatever it is, the enumeration says whether it knows it
    except ValueError:
        tell(what, value)
        return None


def route_of(row: Any, table: str) -> Route | None:  # noqa: ANN401 -- any row that names one
    """Read a row's route; None for one that this release does not know."""
    provider = word(Provider, row.provider, f"{table}.provider")
    environment = word(Environment, row.environment, f"{table}.environment")
    return None if provider is None or environment is None else Route(provider, row.app_id, environment)


def addresses(rows: Iterable[DeviceToken]) -> Sequence[DeviceToken]:
    """Give those device tokens that this release can push to."""
    return [row for row in rows if route_of(row, "device_tokens") is not None]


def reported_route(report: Any) -> Route | None:  # noqa: ANN401 -- what any release's worker wrote
    """Read the route of a gate that a worker reports; None for what this release does not understand."""
    try:
        return Route(Provider(report["provider"]), report["app_id"], Environment(report["environment"]))
    except (KeyError, TypeError, ValueError):
        tell("workers.gates", "")
        return None
