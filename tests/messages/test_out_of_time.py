"""A push of a message that runs out of time ends visibly: dead, with the reason, and the message stays in the log."""

from datetime import timedelta
from uuid import UUID, uuid4

from sqlalchemy import text

from db import messages, outbox
from domain.kinds import RULES, Kind
from simulator import Simulator
from tests.stack import Stack, User, android
from tests.talk import conversation_of, handed_off, sync, tasks_of

LEFT = timedelta(minutes=1)  # until the push is of no use


async def test_a_push_that_an_outage_outlasts_is_dead_with_the_providers_reason(
    stack: Stack, simulator: Simulator, alice: User, bob: User
) -> None:
    phone = android()
    await bob.register(phone)
    outage = {"status": 503, "error_code": "UNAVAILABLE", "retry_after": 2 * LEFT.seconds}
    simulator.faults.add(provider="fcm", token=phone.token, fault="answer", **outage)

    message_id = await _posted_long_ago(alice, await conversation_of(alice, bob))

    assert await handed_off(stack, message_id) == "dead"
    [task] = await tasks_of(stack, message_id)
    assert (task.state, task.last_reason, task.next_attempt_at) == ("dead", "UNAVAILABLE", None)
    assert (task.attempt_count, task.settled_at < task.expires_at) == (1, True)
    assert [item["id"] for item in (await sync(bob, phone.installation_id))["items"]] == [str(message_id)]


async def _posted_long_ago(user: User, conversation_id: UUID) -> UUID:
    """Post a message that the handoff gets to when its pushes are nearly of no use."""
    message_id, useful_for = uuid4(), RULES[Kind.MESSAGE].useful_for
    assert useful_for is not None
    ago = text("UPDATE messages SET created_at = created_at - CAST(:ago AS interval) WHERE id = :id")
    async with user.stack.sessions.begin() as db:
        await messages.post(db, conversation_id, message_id, user.user_id, "Hello")
        await db.execute(ago, {"id": message_id, "ago": useful_for - LEFT})
        await outbox.add_for_sweepers(db, messages.OUTBOX_KIND, [message_id])
    return message_id
