"""What becomes of a message's push, given the line that it would take."""

from datetime import timedelta

import pytest

from domain.messages import CollapseGroupPlan, DeliveryChannel, planned_for, rest_after

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("group", "channel"),
    [
        (CollapseGroupPlan(), DeliveryChannel.PUSH),
        (CollapseGroupPlan(newer_to_come=True), DeliveryChannel.PUSH),  # nobody starves
        (CollapseGroupPlan(newer_planned=True), DeliveryChannel.LATER_MESSAGE),
        (CollapseGroupPlan(is_idle=False), DeliveryChannel.PUSH),
        (CollapseGroupPlan(is_idle=False, newer_to_come=True), DeliveryChannel.LATER_MESSAGE),
        (CollapseGroupPlan(is_taken=True), DeliveryChannel.LATER),
        (CollapseGroupPlan(is_taken=True, newer_to_come=True), DeliveryChannel.LATER_MESSAGE),
        (CollapseGroupPlan(is_idle=False, rests_for=SECOND), DeliveryChannel.LATER),
        (CollapseGroupPlan(is_idle=False, rests_for=SECOND, newer_to_come=True), DeliveryChannel.LATER_MESSAGE),
    ],
    ids=str,
)
def test_the_newest_takes_the_line_and_a_line_left_alone_is_taken_at_once(
    group: CollapseGroupPlan, channel: DeliveryChannel
) -> None:
    assert planned_for(group) is channel


def test_a_line_rests_longer_after_each_push_of_a_burst() -> None:
    assert [rest_after(burst) / SECOND for burst in range(9)] == [0, 0, 2, 4, 6, 8, 10, 10, 10]
