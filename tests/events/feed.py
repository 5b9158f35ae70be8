"""The feed as a backend reads it."""

from typing import Any

from db import events as events_in_db
from tests.stack import Stack, User, eventually


async def whole_feed(stack: Stack, *, after: int = 0) -> list[dict[str, Any]]:
    """Read all events after a cursor; whoever else is numbering the latest of them is waited for."""
    await eventually(lambda: _are_numbered(stack))
    backend, events = stack.user("backend", "service"), []
    while True:
        answer = await backend.call("GET", f"/v1/events?after={after}&limit=500")
        assert answer.status_code == 200, answer.text
        page = answer.json()
        events += page["items"]
        after = page["next_cursor"]
        if not page["has_more"]:
            return events


async def _are_numbered(stack: Stack) -> bool:
    await events_in_db.number(stack.sessions)
    return not await stack.rows("SELECT 1 FROM unnumbered_events")


async def feed_of(user: User) -> list[dict[str, Any]]:
    """Read a person's events."""
    return [each for each in await whole_feed(user.stack) if each["user_id"] == user.user_id]
