"""What becomes of a message's push, given the line that it would take."""

from datetime import timedelta

import pytest

from domain.messages import Line, Means, planned_for, rest_after

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("line", "means"),
    [
        (Line(), Means.PUSH),
        (Line(newer_to_come=True), Means.PUSH),  # nobody starves
        (Line(newer_planned=True), Means.LATER_MESSAGE),
        (Line(is_idle=False), Means.PUSH),
        (Line(is_idle=False, newer_to_come=True), Means.LATER_MESSAGE),
        (Line(is_taken=True), Means.LATER),
        (Line(is_taken=True, newer_to_come=True), Means.LATER_MESSAGE),
        (Line(is_idle=False, rests_for=SECOND), Means.LATER),
        (Line(is_idle=False, rests_for=SECOND, newer_to_come=True), Means.LATER_MESSAGE),
    ],
    ids=str,
)
def test_the_newest_takes_the_line_and_a_line_left_alone_is_taken_at_once(line: Line, means: Means) -> None:
    assert planned_for(line) is means


def test_a_line_rests_longer_after_each_push_of_a_burst() -> None:
    assert [rest_after(burst) / SECOND for burst in range(9)] == [0, 0, 2, 4, 6, 8, 10, 10, 10]
