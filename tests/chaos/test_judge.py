"""The judge of `make chaos` can fail: each planted fault is named, and what is allowed is not."""

import math
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from tests.chaos.judge import Call, Fast, Handset, Log, Post, Run, Said, ShownLine, Told, Trouble, judge
from tests.chaos.plan import Disturbance

SESSION, CONVERSATION, MESSAGE = uuid4(), uuid4(), uuid4()
DUE = 100.0
REMINDER = Call(DUE + 0.1, "apns", "phone-a", "task-1", "reminder", SESSION, 200, None, arrived=True)
PUSHED = Call(60.5, "apns", "phone-b", "task-2", "message", CONVERSATION, 200, None, arrived=True)
KILLED = Trouble("worker 0", DUE + 0.2, DUE + 4, Disturbance.KILL)
FROZEN = replace(KILLED, how=Disturbance.FREEZE)
DATABASE = replace(KILLED, target="postgres")


def a_run() -> Run:
    """Alice fasts until 100 and writes to Bob at 60. Each has one phone, and all came as it should."""
    return Run(
        fasts={SESSION: Fast("alice", [Said(10, 10.1, DUE)])},
        handsets={
            "phone-a": Handset("phone-a", [Said(1, 1.1, "alice")]),
            "phone-b": Handset("phone-b", [Said(1, 1.1, "bob")]),
        },
        members={CONVERSATION: frozenset({"alice", "bob"})},
        posts=[Said(60, 60.1, Post(MESSAGE, CONVERSATION, "alice"))],
        calls=[REMINDER, PUSHED],
        lines=[ShownLine("phone-a", "reminder", SESSION), ShownLine("phone-b", "message", CONVERSATION)],
        logs=[Log("bob", ((1, MESSAGE),))],
    )


def wrong_in(run: Run) -> dict[str, int]:
    """Judge, and count what should not be."""
    return {name: len(each) for name, each in judge(run).zeros.items() if each}


def test_a_run_in_which_all_came_has_zeros_and_its_lateness() -> None:
    verdict = judge(a_run())

    assert wrong_in(a_run()) == {}
    assert verdict.reminders == pytest.approx([0.1])
    assert verdict.messages == pytest.approx([0.4])


def test_what_never_came_is_lost() -> None:
    run = a_run()
    run.calls, run.lines, run.logs = [], [], [Log("bob", ())]

    assert wrong_in(run) == {"lost": 3}


def test_what_a_provider_accepted_and_no_phone_shows_is_lost() -> None:
    run = a_run()
    run.lines = []

    assert wrong_in(run) == {"lost": 2}


def test_what_is_not_due_yet_is_not_lost() -> None:
    run = a_run()
    run.calls, run.lines, run.until = [PUSHED], run.lines[1:], DUE - 1

    assert wrong_in(run) == {}


@pytest.mark.parametrize("seconds", [0.5, 30])
def test_what_its_person_overtook_is_late_and_not_lost(seconds: float) -> None:
    run = a_run()
    run.calls, run.lines = [PUSHED], run.lines[1:]
    run.fasts[SESSION].goals.append(Said(DUE + seconds, DUE + seconds + 0.1, None))

    assert wrong_in(run) == {}
    assert judge(run).overtaken == pytest.approx([seconds])


@pytest.mark.parametrize("goal", [None, 7200.0], ids=["ended", "moved"])
def test_a_reminder_of_a_fast_that_was_over_is_stale(goal: float | None) -> None:
    assert wrong_in(_ended_after(DUE + 1, DUE + 20, goal)) == {"stale": 1}


def _ended_after(answered_at: float, called_at: float, goal: float | None) -> Run:
    run = a_run()
    run.fasts[SESSION].goals.append(Said(answered_at - 0.1, answered_at, goal))
    run.calls[0], run.until = replace(REMINDER, received_at=called_at), called_at + 1
    return run


def test_a_call_that_was_checked_before_the_end_was_answered_is_told_apart() -> None:
    run = _ended_after(DUE + 1, DUE + 1.5, None)

    assert wrong_in(run) == {}
    assert judge(run).in_flight == pytest.approx([0.5])


def test_a_push_of_what_was_read_is_stale() -> None:
    run = a_run()
    run.handsets["phone-b"].reads.append(Said(60.2, 60.3, frozenset({MESSAGE})))
    run.calls[1] = replace(PUSHED, received_at=70)

    assert wrong_in(run) == {"stale": 1}


@pytest.mark.parametrize("holder", [None, "carol"], ids=["signed out", "somebody else's"])
def test_a_push_to_a_phone_that_is_not_theirs_is_misdirected(holder: str | None) -> None:
    run = a_run()
    for handset in run.handsets.values():
        handset.holders.append(Said(20, 20.1, holder))

    assert wrong_in(run) == {"misdirected": 2}


def test_a_push_to_the_sender_is_misdirected() -> None:
    run = a_run()
    run.calls.append(replace(PUSHED, token="phone-a", task_id="task-3"))
    run.lines.append(ShownLine("phone-a", "message", CONVERSATION))

    assert wrong_in(run) == {"misdirected": 1}


@pytest.mark.parametrize("called", [REMINDER, PUSHED], ids=lambda call: call.kind)
def test_a_second_call_of_a_push_whose_fate_was_known_is_doubled(called: Call) -> None:
    run = a_run()
    run.calls.append(replace(called, received_at=called.received_at + 20))

    assert wrong_in(run) == {"doubled": 1}


@pytest.mark.parametrize("called", [REMINDER, PUSHED], ids=lambda call: call.kind)
def test_a_second_push_of_the_same_is_doubled(called: Call) -> None:
    run = a_run()
    run.calls.append(replace(called, received_at=called.received_at + 20, task_id="task-3"))

    assert wrong_in(run) == {"doubled": 1}


def test_a_second_line_is_doubled() -> None:
    run = a_run()
    run.lines.append(run.lines[0])

    assert wrong_in(run) == {"doubled": 1}


@pytest.mark.parametrize(
    ("first", "troubles"),
    [
        (replace(REMINDER, status=503, reason="ServiceUnavailable"), []),
        (replace(REMINDER, status=None, reason="silent"), []),
        (REMINDER, [KILLED]),
        (REMINDER, [FROZEN]),
        (REMINDER, [DATABASE]),
        (REMINDER, [Trouble("provider apns", DUE, DUE)]),
        (REMINDER, [Trouble("providers", DUE - 1, DUE)]),
    ],
)
def test_a_second_call_of_a_push_whose_fate_was_unknown_is_allowed(first: Call, troubles: list[Trouble]) -> None:
    run = a_run()
    run.calls = [first, replace(REMINDER, received_at=DUE + 17), PUSHED]
    run.troubles = troubles

    assert wrong_in(run) == {}
    assert judge(run).repeated == 1


@pytest.mark.parametrize("trouble", [KILLED, DATABASE], ids=["worker", "postgres"])
def test_a_second_call_before_the_lease_of_a_lost_record_is_over_is_doubled(trouble: Trouble) -> None:
    run = a_run()
    run.calls.append(replace(REMINDER, received_at=DUE + 4))
    run.troubles = [trouble]

    assert wrong_in(run) == {"doubled": 1}
    run.troubles = [FROZEN]  # it lives, and may have lost the answer
    assert wrong_in(run) == {}


def test_a_worker_that_was_killed_before_a_call_explains_no_second_one_though_it_is_not_ready_again() -> None:
    run = a_run()
    run.calls.append(replace(REMINDER, received_at=DUE + 17))
    run.troubles = [replace(KILLED, began_at=DUE - 3)]

    assert wrong_in(run) == {"doubled": 1}


@pytest.mark.parametrize("target", ["api 0", "temporal", "listener", "provider fcm"])
def test_what_cannot_have_lost_an_answer_explains_no_second_call(target: str) -> None:
    run = a_run()
    run.calls.append(replace(REMINDER, received_at=DUE + 17))
    run.troubles = [replace(KILLED, target=target)]

    assert wrong_in(run) == {"doubled": 1}


@pytest.mark.parametrize(
    "called",
    [
        replace(REMINDER, received_at=DUE - 0.1),
        replace(REMINDER, token="phone-x"),
        replace(REMINDER, subject=uuid4()),
        replace(REMINDER, subject=None),
        replace(REMINDER, status=400, reason="BadDeviceToken", arrived=False),
    ],
    ids=["before it is due", "to no phone", "of no fast", "of nothing", "an answer of no fault"],
)
def test_a_call_without_a_reason_is_unexplained(called: Call) -> None:
    run = a_run()
    run.calls[0] = called
    run.lines[0] = ShownLine(called.token, "reminder", called.subject)

    assert wrong_in(run)["unexplained"] >= 1


def test_a_line_that_no_call_brought_is_unexplained() -> None:
    run = a_run()
    run.lines.append(ShownLine("phone-b", "reminder", SESSION))

    assert wrong_in(run) == {"unexplained": 1}


@pytest.mark.parametrize(
    ("items", "name"),
    [
        (((1, MESSAGE), (2, MESSAGE)), "doubled"),
        (((2, MESSAGE), (1, uuid4())), "unexplained"),
        (((1, MESSAGE), (2, uuid4())), "unexplained"),
    ],
    ids=["twice", "out of order", "written by nobody"],
)
def test_a_wrong_log_is_named(items: tuple[tuple[int, UUID], ...], name: str) -> None:
    run = a_run()
    run.logs = [Log("bob", items)]

    assert name in wrong_in(run)


def test_an_odd_answer_of_the_api_is_unexplained() -> None:
    run = a_run()
    run.odd_answers.append("PUT /v1/…: 500")

    assert wrong_in(run) == {"unexplained": 1}


def test_what_the_api_tells_in_the_end_is_what_it_had_accepted() -> None:
    run = a_run()
    run.told = Told({SESSION: DUE}, {"phone-a": frozenset({"alice"}), "phone-b": frozenset({"bob"})})

    assert wrong_in(run) == {}


@pytest.mark.parametrize(
    ("fasts", "alices", "bobs"),
    [
        ({}, {"alice"}, {"bob"}),
        ({SESSION: None}, {"alice"}, {"bob"}),
        ({SESSION: DUE + 60}, {"alice"}, {"bob"}),
        ({SESSION: DUE}, set(), {"bob"}),
        ({SESSION: DUE}, {"alice"}, {"alice"}),
        ({SESSION: DUE}, {"alice"}, {"alice", "bob"}),
    ],
    ids=["no fast", "a fast that is over", "another goal", "nobody signed in", "somebody else", "two on a phone"],
)
def test_a_write_that_was_accepted_and_is_not_so_in_the_end_is_lost(
    fasts: dict[UUID, float | None], alices: set[str], bobs: set[str]
) -> None:
    run = a_run()
    run.told = Told(fasts, {"phone-a": frozenset(alices), "phone-b": frozenset(bobs)})

    assert wrong_in(run) == {"lost": 1}


@pytest.mark.parametrize("due_at", [DUE, None], ids=["goes on", "is over"])
def test_an_end_that_was_never_answered_may_be_so_or_not_in_the_end(due_at: float | None) -> None:
    run = a_run()
    run.fasts[SESSION].goals.append(Said(DUE + 5, math.inf, None))
    run.told = Told({SESSION: due_at}, {"phone-a": frozenset({"alice"}), "phone-b": frozenset({"bob"})})

    assert wrong_in(run) == {}


def test_a_write_that_was_never_answered_may_be_so_or_not() -> None:
    unanswered = a_run()
    unanswered.fasts[SESSION].goals.append(Said(50, math.inf, None))
    without = replace(unanswered, calls=[PUSHED], lines=unanswered.lines[1:])

    assert wrong_in(unanswered) == {}
    assert wrong_in(without) == {}
