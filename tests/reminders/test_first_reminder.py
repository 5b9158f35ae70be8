"""The straight way: a fast starts, its reminder shows on both phones, once."""

from simulator import Simulator
from tests.stack import Stack, android, eventually, iphone


async def test_a_reminder_shows_once_on_each_phone_of_its_user_and_on_no_other(
    stack: Stack, simulator: Simulator
) -> None:
    alice, bob = stack.user(), stack.user()
    mine, hers, his = iphone(), android(), iphone()
    await alice.register(mine, hers)
    await bob.register(his)

    session_id = await alice.start_fast(due_in=1.5)

    for phone in (mine, hers):
        await simulator.received(phone.token, timeout=10)
        [line] = simulator.phone(phone.token).screen
        assert (line.title, line.body, line.times_received) == ("Your fast is almost over", "1 minute to go.", 1)
    assert await eventually(lambda: stack.tasks(session_id))
    assert simulator.phones.get(his.token) is None
