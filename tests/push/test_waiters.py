"""Users take turns, whatever each has waiting, and nobody is told of more ahead than there are."""

import gc
import time

import pytest

from push.wait_queue import FairQueue, QueueDepths


def turns(waiters: FairQueue[int]) -> int:
    count = 0
    while (user := waiters.first()) is not None:
        waiters.next(user).set_result(count)
        count += 1
    return count


async def test_users_take_turns_and_each_ones_go_in_the_order_they_came() -> None:
    waiters = FairQueue[int]()
    hers = [waiters.join(1) for _ in range(4)]
    his, theirs = waiters.join(2), waiters.join(3)

    turns(waiters)

    assert [waiter.result() for waiter in hers] == [0, 3, 4, 5]
    assert (his.result(), theirs.result()) == (1, 2)


@pytest.mark.parametrize("newcomer", range(8))
async def test_a_newcomer_goes_no_later_than_was_said_and_not_much_sooner(newcomer: int) -> None:
    waiters = FairQueue[int]()
    for number in range(300):
        waiters.join(number % 7 * (number % 3))  # some have many, some few
    for _ in range(50):
        user = waiters.first()
        assert user is not None
        waiters.next(user).set_result(0)

    ahead, waiter = waiters.count_ahead(newcomer), waiters.join(newcomer)
    turns(waiters)

    assert ahead - 7 <= waiter.result() <= ahead


async def test_who_gave_up_is_no_longer_counted_and_has_no_turn() -> None:
    waiters = FairQueue[int]()
    quitter, cancelled, other = waiters.join(1), waiters.join(1), waiters.join(2)

    waiters.give_up(1, quitter)
    cancelled.cancel()

    assert turns(waiters) == 1
    assert other.result() == 0
    assert len(waiters) == waiters.count_ahead(1) == 0
    waiters.give_up(2, other)  # had its turn


async def test_20_000_waiters_cost_next_to_nothing_whosever_they_are() -> None:
    for user_of in (lambda _: 1, lambda number: number, lambda number: number % 200):
        waiters = FairQueue[int]()
        gc.disable()  # what other tests left in memory is not this queue's
        try:
            began = time.thread_time()
            for number in range(20_000):
                waiters.count_ahead(user_of(number))
                waiters.join(user_of(number))
            turns(waiters)
            took = time.thread_time() - began
        finally:
            gc.enable()
        assert took < 1  # 50 µs each; a tenth of that is usual


def test_depths_that_are_emptied_are_as_new() -> None:
    depths = QueueDepths()
    for user in (1, 1, 1, 2):
        depths.add(user)

    assert (depths.total, depths.count_ahead(1), depths.count_ahead(2), depths.count_ahead(3)) == (4, 4, 3, 2)
    for user in (1, 2, 1, 1):
        depths.remove(user)
    assert (depths.total, depths.count_ahead(1), depths.count_ahead(3)) == (0, 0, 0)


async def test_a_user_who_is_passed_over_keeps_its_turn_and_others_go_meanwhile() -> None:
    waiters = FairQueue[int]()
    for user in (1, 1, 2, 3):
        waiters.join(user)

    assert waiters.first(lambda user: user == 1) == 2
    assert waiters.first(lambda user: user < 4) is None
    assert waiters.first() == 1
