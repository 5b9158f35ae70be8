"""What the doctor says of each thing it looks at, and how it looks at many at once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain

WITHIN = 20.0  # seconds for one check; the calls in it have shorter limits of their own


class Level(StrEnum):
    """How it stands."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"
    REMINDER = "reminder"  # no command can see it


@dataclass(frozen=True, slots=True)
class Line:
    """One thing."""

    area: str
    level: Level
    found: str
    to_do: str | None = None
    link: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found, and how much of each kind."""

    healthy: bool
    ok: int
    warnings: int
    failures: int
    items: Sequence[Line]


@dataclass(frozen=True, slots=True)
class Area:
    """Makes the lines of one area."""

    name: str

    def ok(self, found: str) -> Line:
        """Say that a thing is as it should be."""
        return Line(self.name, Level.OK, found)

    def warning(self, found: str, to_do: str) -> Line:
        """Say what works today and will not tomorrow, or not for all."""
        return Line(self.name, Level.WARNING, found, to_do)

    def failure(self, found: str, to_do: str) -> Line:
        """Say what keeps reminders from their phones."""
        return Line(self.name, Level.FAILURE, found, to_do)


@dataclass(frozen=True, slots=True)
class Check:
    """One look; whatever ails it hides no other."""

    area: Area
    what: str
    look: Callable[[], Awaitable[Sequence[Line]]]


async def lines_of(checks: Sequence[Check], within: float = WITHIN) -> list[Line]:
    """Look at all at once; the lines come in the order of the checks."""
    return list(chain.from_iterable(await asyncio.gather(*(_lines(check, within) for check in checks))))


async def _lines(check: Check, within: float) -> Sequence[Line]:
    try:
        async with asyncio.timeout(within):
            return await check.look()
    except TimeoutError:
        found = f"{check.what}: no answer within {within:g} s"
        return [check.area.failure(found, "See whether it can be reached from this machine, and how busy it is.")]
    except Exception as error:  # noqa: BLE001 -- its text may hold a secret
        found = f"{check.what}: could not be looked at ({type(error).__name__})"
        return [check.area.failure(found, "Run the doctor again; if this stays, it is a bug of the doctor.")]
