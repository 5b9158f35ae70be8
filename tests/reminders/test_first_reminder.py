"""The straight way: a fast starts, its reminder shows on both phones, once."""

from temporalio.api.enums.v1 import EventType

from bench.histories import billable_actions
from simulator import Simulator
from tests.stack import Stack, android, iphone

CLOSING = (EventType.EVENT_TYPE_MARKER_RECORDED, EventType.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES)


async def test_a_reminder_shows_once_on_each_phone_of_its_user_and_on_no_other(
    stack: Stack, simulator: Simulator
) -> None:
    alice, bob = stack.user(), stack.user()
    mine, hers, his = iphone(), android(), iphone()
    await alice.register(mine, hers)
    await bob.register(his)

    session_id = await alice.start_fast(due_in=1.5)

    for phone in (mine, hers):
        await simulator.phones.received(phone.token)
        [line] = simulator.phone(phone.token).screen
        assert (line.title, line.body, line.times_received) == ("Your fast is almost over", "1 minute to go.", 1)
    assert await stack.finished(session_id) == "accepted"
    events = (await stack.workflow(session_id).fetch_history()).events
    assert billable_actions(events) <= 5  # start, timer, opening, and one send for each phone
    closing = [event.event_type for event in events if event.event_type in CLOSING]
    assert closing == [EventType.EVENT_TYPE_MARKER_RECORDED]  # the opening: no second look, no result to search by
    assert simulator.phones.get(his.token) is None
