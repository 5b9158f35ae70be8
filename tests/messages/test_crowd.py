"""A conversation of 500: one message, a thousand phones, no history and no transaction that grows with them."""

from collections.abc import Sequence
from uuid import UUID

import pytest
from sqlalchemy import event
from temporalio.api.history.v1 import HistoryEvent

from activities.handoff import HandoffPlanning
from db.engine import make_engine, make_sessions
from domain.messages import Heed
from domain.wire import PlanHandoff
from tests.stack import House
from tests.talk import conversation_of, give_phones, handed_off, handoff, posted

MEMBERS, MOST_EVENTS, MOST_STATEMENTS = 500, 2000, 8
MOST_BYTES = 30_000  # of one event: a hundred sends, and what Temporal says around them


@pytest.mark.timeout(90)
async def test_a_message_to_500_members_stays_within_bounds(house: House) -> None:
    crowd = [house.user() for _ in range(MEMBERS)]
    await give_phones(house, crowd)

    message_id = await posted(crowd[0], await conversation_of(*crowd))
    assert await handed_off(house, message_id, within=60) == "accepted"

    states = "SELECT state, count(*) AS tasks FROM push_tasks WHERE message_id = :id GROUP BY state"
    assert {row.state: row.tasks for row in await house.rows(states, id=message_id)} == {"accepted": 2 * (MEMBERS - 1)}
    histories = await _histories(house, message_id)
    assert len(histories) == 1 + 10
    assert max(map(len, histories)) < MOST_EVENTS
    assert max(each.ByteSize() for history in histories for each in history) < MOST_BYTES
    assert await _statements_of_a_plan(house, message_id) <= MOST_STATEMENTS


async def _histories(house: House, message_id: UUID) -> list[Sequence[HistoryEvent]]:
    history = (await handoff(house, message_id).fetch_history()).events
    children = [
        started.child_workflow_execution_started_event_attributes.workflow_execution.workflow_id
        for started in history
        if started.HasField("child_workflow_execution_started_event_attributes")
    ]
    apart = [await house.temporal.get_workflow_handle(each).fetch_history() for each in children]
    return [history, *(each.events for each in apart)]


async def _statements_of_a_plan(house: House, message_id: UUID) -> int:
    """Count what planning once more says to the database."""
    statements: list[str] = []

    def note(_: object, __: object, statement: str, *___: object) -> None:
        statements.append(statement)

    engine = make_engine(house.place.database_url)
    event.listen(engine.sync_engine, "before_cursor_execute", note)
    await HandoffPlanning(make_sessions(engine)).plan_handoff(PlanHandoff(message_id, Heed.PRESENCE))
    await engine.dispose()
    return len(statements)
