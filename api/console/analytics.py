"""Analytics: send attempts, errors by reason, acceptance, opens and syncs, by kind, app and day."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import date, timedelta
from typing import Any

from fastapi import APIRouter, Request, Response

from api.console import figures
from api.console.rendering import Column, page
from api.console.session import Signed
from api.dependencies import Database
from api.support.operations import AskedIn
from db.views import analytics
from db.views.analytics import AnalyticsQuery, Tally
from domain.kinds import Kind
from domain.push import Provider

router = APIRouter()

_CHOICES: dict[str, Any] = {"kinds": list(Kind), "providers": list(Provider), "spans": (1, 7, 31)}


@router.get("/analytics")
async def show(request: Request, operator: Signed, sessions: Database) -> Response:
    """Count and show."""
    filled = {name: value.strip() for name, value in request.query_params.items() if value.strip()}
    asked = AnalyticsQuery(**AskedIn.model_validate(filled).model_dump())
    found = await analytics.by_day(sessions, asked)
    days = _days(found.items, found.from_at.date(), asked.days)
    return page(
        request, "analytics", operator, found=found, asked=asked, days=days, total=_total(found.items), **_CHOICES
    )


@dataclass(frozen=True, slots=True)
class Total:
    """The sum of some tallies."""

    pushes: int
    attempts: int
    accepted: int
    opened: int
    synced: int
    dead: int
    withdrawn: int

    @property
    def meant(self) -> int:
        """Count the pushes that were to be accepted: all but those that were decided against."""
        return self.pushes - self.withdrawn


def _total(tallies: Iterable[Tally]) -> Total:
    found = list(tallies)
    return Total(*(sum(getattr(tally, field.name) for tally in found) for field in fields(Total)))


def _days(tallies: Sequence[Tally], first: date, count: int) -> list[Column]:
    """Draw one column for each day, days without pushes included."""
    columns = []
    for day in (first + timedelta(days=number) for number in range(count)):
        of_day = _total(tally for tally in tallies if tally.day == day)
        words = f"{day:%a %d %b}: {figures.count(of_day.meant)} to be sent, {figures.count(of_day.accepted)} accepted"
        columns.append(Column(words, of_day.accepted, of_day.meant - of_day.accepted))
    return columns
