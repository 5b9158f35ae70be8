"""Bodies, answers and field types that several resources share. Each error says what to send instead."""

import re
import unicodedata
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from api.http.auth import LONGEST_USER_ID
from domain import preferences as time_zones
from domain.fasts import LABEL_NAME, LONGEST_LABEL, MAX_LABELS, MAX_REMINDER_MINUTES, MAX_REMINDERS

_CONTROLS = {"Cc", "Cs", "Zl", "Zp"}  # Unicode's categories
_DATE = re.compile(r"\d{4}-\d\d-\d\d[Tt ]", re.ASCII)


class Body(BaseModel):
    """A request body: unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Out(BaseModel):
    """An answer, made from the attributes of a domain object."""

    model_config = ConfigDict(from_attributes=True)


def printable(value: str) -> str:
    """Refuse text with invisible characters."""
    if not value.isprintable():
        raise ValueError("must be printable")
    return value


def _text(value: Any) -> Any:  # noqa: ANN401 -- clients may send anything
    """Refuse numbers and strings of digits, which pydantic would read as instants."""
    if not isinstance(value, str) or not _DATE.match(value):
        raise ValueError("must be an RFC 3339 instant such as 2026-01-31T18:00:00Z")
    return value


def _utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("is out of range") from None


def _time_zone(value: str) -> str:
    known = time_zones.known(value)
    if known is None:
        raise ValueError("must be an IANA time zone such as Europe/Berlin")
    return known


def _one_line(value: str) -> str:
    if any(unicodedata.category(each) in _CONTROLS for each in value):
        raise ValueError("must be one line of text, without control characters")
    return value


def _distinct(value: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(value)) != len(value):
        raise ValueError("must not contain the same number of minutes twice")
    return tuple(sorted(value, reverse=True))


UserId = Annotated[str, Field(min_length=1, max_length=LONGEST_USER_ID), AfterValidator(printable)]
Ticket = Annotated[str, Field(min_length=32, max_length=128), AfterValidator(printable)]
Instant = Annotated[
    AwareDatetime,
    BeforeValidator(_text),
    AfterValidator(_utc),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
TimeZone = Annotated[str, Field(max_length=64), AfterValidator(_time_zone)]
ReminderMinutes = Annotated[
    tuple[Annotated[int, Field(strict=True, ge=0, le=MAX_REMINDER_MINUTES)], ...],
    Field(max_length=MAX_REMINDERS, description="Minutes before the end, each at most once."),
    AfterValidator(_distinct),
]
Labels = Annotated[
    dict[
        Annotated[str, Field(pattern=f"^{LABEL_NAME.pattern}$")],
        Annotated[str, Field(max_length=LONGEST_LABEL), AfterValidator(_one_line)],
    ],
    Field(
        max_length=MAX_LABELS,
        description="Short texts by name. The texts of the app's presentation file may use them as `{label.NAME}`.",
        examples=[{"name": "Assam"}],
    ),
]
