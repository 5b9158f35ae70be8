"""What chance decides in `make chaos` is decided by its seed."""

from collections import Counter

from tests.chaos.plan import TARGETS, Act, Disturbance, make_plan


def test_the_same_seed_plans_the_same_lives_kills_and_faults_and_another_one_others() -> None:
    one, same, other = (make_plan(seed, 300, 20, 13) for seed in (7, 7, 8))

    assert one == same
    assert one.lives != other.lives
    assert one.disruptions != other.disruptions
    assert one.faults != other.faults


def test_a_plan_has_each_kind_of_life_and_kills_freezes_and_cuts_each_target_once_before_one_comes_again() -> None:
    plan = make_plan(7, 300, 20, 13)
    acts = Counter(step.act for life in plan.lives for step in life.steps)

    assert set(acts) == set(Act)
    assert {len(life.phones) for life in plan.lives} == {1, 2, 3}
    assert any(life.is_connected for life in plan.lives)
    assert sorted((each.target, each.how) for each in plan.disruptions) == sorted(
        [
            *((target, how) for target in TARGETS for how in (Disturbance.KILL, Disturbance.FREEZE)),
            ("listener", Disturbance.CUT),
        ]
    )
    assert {dict(fault.fields)["provider"] for fault in plan.faults} == {"apns", "fcm"}
