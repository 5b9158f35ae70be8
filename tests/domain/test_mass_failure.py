"""When token errors say more about us than about tokens."""

from datetime import timedelta

from domain.mass_failure import MassFailure, Record, Threshold

THRESHOLD = Threshold(share=0.5, token_errors=20, window=timedelta(minutes=10), answers=200)


def test_many_errors_that_are_half_of_all_answers_are_a_mass_failure() -> None:
    record = Record(THRESHOLD)
    for number in range(20):
        record.accepted(0.0, f"other-{number}")
    for number in range(19):
        record.token_error(1.0, f"user-{number}", "BadDeviceToken")
    assert record.judged(1.0) is None

    record.token_error(1.0, "user-19", "BadDeviceToken")

    assert record.judged(1.0) == MassFailure("BadDeviceToken", token_errors=20, answers=40)


def test_many_errors_among_more_acceptances_are_none() -> None:
    record = Record(THRESHOLD)
    for number in range(21):
        record.accepted(0.0, f"other-{number}")
    for number in range(20):
        record.token_error(1.0, f"user-{number}", "BadDeviceToken")

    assert record.judged(1.0) is None


def test_one_user_counts_once_with_their_last_answer_however_many_devices_they_have() -> None:
    record = Record(THRESHOLD)
    for at in range(100):
        record.token_error(at, "the same", "BadDeviceToken")
    assert record.judged(100.0) is None

    for number in range(19):
        record.token_error(100.0, f"user-{number}", "Unregistered")
    assert record.judged(100.0) == MassFailure("Unregistered", token_errors=20, answers=20)

    record.accepted(100.0, "the same")
    assert record.judged(100.0) is None


def test_what_lies_before_the_window_does_not_count() -> None:
    record = Record(THRESHOLD)
    for number in range(20):
        record.token_error(0.0, f"user-{number}", "BadDeviceToken")

    assert record.judged(600.0) is not None
    assert record.judged(600.1) is None


def test_only_the_last_answers_count_so_years_of_success_hide_nothing() -> None:
    record = Record(THRESHOLD)
    for number in range(5000):
        record.accepted(0.0, f"user-{number}")

    errors = 0
    while record.judged(1.0) is None:
        record.token_error(1.0, f"other-{errors}", "DeviceTokenNotForTopic")
        errors += 1

    assert errors == 100  # half of the last 200


def test_the_most_frequent_reason_is_named() -> None:
    record = Record(THRESHOLD)
    for number in range(25):
        record.token_error(0.0, f"user-{number}", "BadDeviceToken" if number < 12 else "DeviceTokenNotForTopic")

    failure = record.judged(0.0)

    assert failure == MassFailure("DeviceTokenNotForTopic", token_errors=25, answers=25)


def test_acceptances_outnumber_refusals_only_within_the_window() -> None:
    record = Record(THRESHOLD)
    for number in range(3):
        record.accepted(0.0, f"user-{number}")
    record.token_error(100.0, "alice", "BadDeviceToken")
    record.token_error(100.0, "bob", "BadDeviceToken")

    assert record.acceptances_outnumber(100.0, suspects=2)
    assert not record.acceptances_outnumber(100.0, suspects=3)
    assert not record.acceptances_outnumber(600.1, suspects=2)
