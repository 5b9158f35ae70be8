"""A conversation of 500: one message, a thousand phones, no history and no transaction that grows with them."""

from collections.abc import Sequence
from uuid import UUID

import pytest
from sqlalchemy import event
from temporalio.api.history.v1 import HistoryEvent

from activities.handoff import HandoffPlanning, PlanHandoff
from db.engine import make_engine, make_sessions
from domain.messages import PresencePolicy
from tests.stack import Stack
from tests.talk import conversation_of, give_phones, handed_off, handoff, posted

MEMBERS, MAX_EVENTS, MAX_STATEMENTS = 500, 2000, 8
MAX_BYTES = 30_000  # of one event: a hundred sends, and what Temporal says around them


@pytest.mark.long
@pytest.mark.timeout(90)
async def test_a_message_to_500_members_stays_within_bounds(stack: Stack) -> None:
    crowd = [stack.user() for _ in range(MEMBERS)]
    await give_phones(stack, crowd)

    message_id = await posted(crowd[0], await conversation_of(*crowd))
    assert await handed_off(stack, message_id, within=60) == "accepted"

    states = "SELECT state, count(*) AS tasks FROM push_tasks WHERE message_id = :id GROUP BY state"
    assert {row.state: row.tasks for row in await stack.rows(states, id=message_id)} == {"accepted": 2 * (MEMBERS - 1)}
    histories = await _histories(stack, message_id)
    assert len(histories) == 1 + 10
    assert max(map(len, histories)) < MAX_EVENTS
    assert max(each.ByteSize() for history in histories for each in history) < MAX_BYTES
    assert await _statements_of_a_plan(stack, message_id) <= MAX_STATEMENTS


async def _histories(stack: Stack, message_id: UUID) -> list[Sequence[HistoryEvent]]:
    history = (await handoff(stack, message_id).fetch_history()).events
    children = [
        started.child_workflow_execution_started_event_attributes.workflow_execution.workflow_id
        for started in history
        if started.HasField("child_workflow_execution_started_event_attributes")
    ]
    apart = [await stack.temporal.get_workflow_handle(each).fetch_history() for each in children]
    return [history, *(each.events for each in apart)]


async def _statements_of_a_plan(stack: Stack, message_id: UUID) -> int:
    """Count what planning once more says to the database."""
    statements: list[str] = []

    def note(_: object, __: object, statement: str, *___: object) -> None:
        statements.append(statement)

    engine = make_engine(stack.place.database_url)
    event.listen(engine.sync_engine, "before_cursor_execute", note)
    await HandoffPlanning(make_sessions(engine)).plan_handoff(PlanHandoff(message_id, PresencePolicy.PRESENCE))
    await engine.dispose()
    return len(statements)
