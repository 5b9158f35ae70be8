"""What the benchmark of acceptance fails on."""

import pytest

from bench.acceptance import GOAL, Acceptance
from bench.load import Calls

pytestmark = pytest.mark.long


@pytest.mark.parametrize(
    ("slower", "refused", "reached"),
    [(GOAL, 0, True), (GOAL + 0.01, 0, False), (1.0, 1, False)],
    ids=["as the goal says", "too slow", "refused"],
)
def test_it_reaches_its_goal_only_if_nothing_is_refused_and_nobody_waits_longer(
    slower: float, refused: int, reached: bool
) -> None:
    found = Acceptance(Calls(1.0, (0.01, 1.0)), Calls(1.0, (0.01, slower)), refused)

    assert found.reached is reached


def test_it_does_not_reach_its_goal_where_nothing_was_accepted() -> None:
    assert not Acceptance(Calls(1.0, (0.01,)), Calls(1.0, ()), 500).reached
