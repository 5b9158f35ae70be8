"""A fasting session's states, and the rules for its times."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from domain.fasts import SessionStatus, check_times, finished_status, readable_labels
from domain.problems import Conflict, InvalidField
from tests.domain.test_reminders import SESSION

BEFORE, AT, AFTER = (SESSION.ends_at + timedelta(seconds=seconds) for seconds in (-1, 0, 1))
ACTIVE, COMPLETED, BROKEN, CANCELLED = SessionStatus
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "wanted", "now", "result"),
    [
        (ACTIVE, COMPLETED, BEFORE, BROKEN),
        (ACTIVE, COMPLETED, AT, COMPLETED),
        (ACTIVE, COMPLETED, AFTER, COMPLETED),
        (ACTIVE, CANCELLED, BEFORE, CANCELLED),
        (ACTIVE, CANCELLED, AFTER, CANCELLED),
        (COMPLETED, COMPLETED, AFTER, None),
        (BROKEN, COMPLETED, BEFORE, None),
        (BROKEN, COMPLETED, AFTER, None),
        (CANCELLED, CANCELLED, BEFORE, None),
    ],
)
def test_a_session_is_finished_once(
    status: SessionStatus, wanted: SessionStatus, now: datetime, result: SessionStatus | None
) -> None:
    assert finished_status(replace(SESSION, status=status), wanted, now) is result


@pytest.mark.parametrize(("status", "wanted"), [(COMPLETED, CANCELLED), (BROKEN, CANCELLED), (CANCELLED, COMPLETED)])
def test_a_finished_session_cannot_be_finished_in_the_other_way(status: SessionStatus, wanted: SessionStatus) -> None:
    with pytest.raises(Conflict, match=f"is {status}") as raised:
        finished_status(replace(SESSION, status=status), wanted, AFTER)

    assert raised.value.code == "session-finished"


def hours(start: float, end: float) -> tuple[datetime, datetime]:
    return NOW + timedelta(hours=start), NOW + timedelta(hours=end)


@pytest.mark.parametrize(
    ("times", "field", "detail"),
    [
        (hours(-2, 0), "ends_at", "A fast must end in the future."),
        (hours(0, -1), "ends_at", "A fast must end in the future."),
        (hours(2, 2), "ends_at", "A fast must end after it starts."),
        (hours(2, 1), "ends_at", "A fast must end after it starts."),
        (hours(0, 504.001), "ends_at", "A fast lasts at most 21 days."),
        (hours(24.001, 30), "started_at", "A fast may be planned at most 24 hours ahead."),
    ],
)
def test_times_against_the_rules_are_refused(times: tuple[datetime, datetime], field: str, detail: str) -> None:
    with pytest.raises(InvalidField) as raised:
        check_times(*times, NOW)

    assert (raised.value.field, raised.value.detail) == (field, detail)


@pytest.mark.parametrize("times", [hours(0, 0.001), hours(0, 504), hours(-503, 1), hours(24, 528)])
def test_times_at_the_edge_of_the_rules_are_accepted(times: tuple[datetime, datetime]) -> None:
    check_times(*times, NOW)


@pytest.mark.parametrize(
    ("stored", "labels"),
    [
        ({"name": "Assam", "size": ""}, {"name": "Assam", "size": ""}),
        ({"name": 7, "b d": "x", "ok": "x", "list": ["x"], "long": "x" * 101}, {"ok": "x"}),
        ({f"name_{number}": "x" for number in range(12)}, {f"name_{number}": "x" for number in range(10)}),
        ([1], {}),
        (None, {}),
        ("text", {}),
    ],
)
def test_stored_labels_that_cannot_be_read_are_as_none(stored: object, labels: dict[str, str]) -> None:
    assert readable_labels(stored) == labels
