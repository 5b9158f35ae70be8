"""Conversations as tests lead them."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import httpx
from sqlalchemy import text
from temporalio.client import WorkflowHandle
from temporalio.service import RPCError

from tests.stack import Phone, Stack, User, eventually, refuse_once


async def store(stack: Stack, conversation_id: UUID, *members: User) -> httpx.Response:
    """Make a conversation, or give one these members."""
    body = {"member_ids": [member.user_id for member in members]}
    return await stack.user("backend", "service").call("PUT", f"/v1/conversations/{conversation_id}", body)


async def conversation_of(*members: User) -> UUID:
    """Make a conversation."""
    conversation_id = uuid4()
    answer = await store(members[0].stack, conversation_id, *members)
    assert answer.status_code == 201, answer.text
    return conversation_id


async def post(
    user: User, conversation_id: UUID, body: str = "Hello", message_id: UUID | None = None
) -> httpx.Response:
    """Post a message."""
    path = f"/v1/conversations/{conversation_id}/messages/{message_id or uuid4()}"
    return await user.call("PUT", path, {"body": body})


async def posted(user: User, conversation_id: UUID, body: str = "Hello") -> UUID:
    """Post a message that is accepted; gives its id."""
    answer = await post(user, conversation_id, body)
    assert answer.status_code == 201, answer.text
    return UUID(answer.json()["id"])


async def posted_and_refused(author: User, conversation_id: UUID, phone: Phone) -> UUID:
    """Post a message whose first push to this phone is refused; gives its id once that is on record."""
    stack = author.stack
    refuse_once(stack.place.simulator, phone)
    message_id = await posted(author, conversation_id)

    async def is_refused() -> bool:
        return any(row.last_reason for row in await tasks_of(stack, message_id))

    await eventually(is_refused)
    return message_id


async def sync(user: User, installation_id: UUID, **query: int) -> dict[str, Any]:
    """Read a page of the user's log."""
    words = "&".join(f"{name}={value}" for name, value in query.items())
    answer = await user.call("GET", f"/v1/sync?installation_id={installation_id}&{words}")
    assert answer.status_code == 200, answer.text
    synced: dict[str, Any] = answer.json()
    return synced


def handoff(stack: Stack, message_id: UUID) -> WorkflowHandle[Any, Any]:
    """Find the workflow that hands a message off."""
    return stack.temporal.get_workflow_handle(f"message-handoff/{message_id}")


async def handed_off(stack: Stack, message_id: UUID, *, within: float = 30.0) -> str:
    """Wait until the handoff of a message has nothing left to do; gives its result."""

    async def result() -> str | None:
        try:
            return str(await handoff(stack, message_id).result())
        except RPCError:  # not started yet
            return None

    return str(await eventually(result, within=within))


async def has_looked(stack: Stack, message_id: UUID) -> bool:
    """Tell whether the handoff of a message has looked at whom to tell, if only to wait for somebody's line."""
    try:
        history = (await handoff(stack, message_id).fetch_history()).events
    except RPCError:  # not started yet
        return False
    return any(event.HasField("marker_recorded_event_attributes") for event in history)


async def tasks_of(stack: Stack, message_id: UUID) -> list[Any]:
    """Read the push tasks of a message."""
    return await stack.rows("SELECT * FROM push_tasks WHERE message_id = :id ORDER BY provider", id=message_id)


async def connected(stack: Stack, user: User, phone: Phone) -> None:
    """Let the database believe that a phone's stream is open, for a minute."""
    stream = text(
        "INSERT INTO presences (stream_id, user_id, installation_id, expires_at)"
        " VALUES (gen_random_uuid(), :user_id, :installation_id, now() + interval '1 minute')"
    )
    async with stack.sessions.begin() as db:
        await db.execute(stream, {"user_id": user.user_id, "installation_id": phone.installation_id})


async def give_phones(stack: Stack, users: Sequence[User]) -> None:
    """Give each of many an iPhone and an Android phone, in one transaction."""
    rows = [
        {"user_id": user.user_id, "installation_id": uuid4(), "provider": provider, "token": uuid4().hex * 2}
        for user in users
        for provider in ("apns", "fcm")
    ]
    registered = text(
        "INSERT INTO device_tokens (user_id, installation_id, provider, environment, token, active, registered_at,"
        " last_seen_at) VALUES (:user_id, :installation_id, :provider, 'production', :token, true, now(), now())"
    )
    async with stack.sessions.begin() as db:
        await db.execute(registered, rows)
