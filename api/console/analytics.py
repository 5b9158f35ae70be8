"""Analytics: attempts, errors by reason, accepted, opened and synced pushes, by kind, app and day."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import date, timedelta
from typing import Any

from fastapi import APIRouter, Request, Response

from api.console import rendering
from api.console.rendering import Column, page
from api.console.session import Signed
from api.dependencies import Database
from api.support import AnalyticsIn
from db.views import analytics
from db.views.analytics import AnalyticsQuery, Tally
from domain.kinds import Kind
from domain.push import Provider

router = APIRouter()
_CHOICES: dict[str, Any] = {"kinds": list(Kind), "providers": list(Provider), "spans": (1, 7, 31)}


@router.get("/analytics")
async def show(request: Request, operator: Signed, sessions: Database) -> Response:
    """Count, and show the page."""
    filled = {name: value.strip() for name, value in request.query_params.items() if value.strip()}
    query = AnalyticsQuery(**AnalyticsIn.model_validate(filled).model_dump())
    found = await analytics.by_day(sessions, query)
    days = _days(found.items, found.from_at.date(), query.days)
    return page(
        request, "analytics", operator, found=found, query=query, days=days, total=_total(found.items), **_CHOICES
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
    def wanted(self) -> int:
        """Count the pushes that should have been accepted: all but the withdrawn ones."""
        return self.pushes - self.withdrawn


def _total(tallies: Iterable[Tally]) -> Total:
    rows = list(tallies)
    return Total(*(sum(getattr(row, field.name) for row in rows) for field in fields(Total)))


def _days(tallies: Sequence[Tally], first: date, count: int) -> list[Column]:
    """Draw one column for each day, days without pushes included."""
    columns = []
    for day in (first + timedelta(days=number) for number in range(count)):
        of_day = _total(tally for tally in tallies if tally.day == day)
        words = (
            f"{day:%a %d %b}: {rendering.count(of_day.wanted)} to be sent, {rendering.count(of_day.accepted)} accepted"
        )
        columns.append(Column(words, of_day.accepted, of_day.wanted - of_day.accepted))
    return columns
