"""Timelines as support reads them."""

from datetime import timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID

from sqlalchemy import text

from tests.stack import Stack, User


def of(user_id: str, what: str = "timeline") -> str:
    """Give the address of something of a person's; any user id fits."""
    return f"/v1/support/users/{quote(user_id, safe='')}/{what}"


async def timeline(carol: User, user_id: str, **query: str | int) -> list[dict[str, Any]]:
    """Read the first page of somebody's timeline, in the order in which it happened."""
    answer = await carol.stack.http.get(of(user_id), params=query, headers=carol.headers)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items[::-1]


async def events_of(carol: User, user_id: str, **query: str | int) -> list[tuple[str, str | None]]:
    """Read the same as events with their reasons."""
    return [(item["event"], item["reason"]) for item in await timeline(carol, user_id, **query)]


def says(sentence: str, *facts: str) -> bool:
    """Tell whether a sentence names these facts, each after the one before; its other words are free."""
    for fact in facts:
        _, found, sentence = sentence.partition(fact)
        if not found:
            return False
    return True


async def pass_unopened(stack: Stack, session_id: UUID, time: timedelta) -> None:
    """Let time pass for a fast as it does in an outage: its workflow, asleep by then, learns nothing of it.

    So it does for the phones of its user.
    """
    await stack.started(session_id)
    async with stack.sessions.begin() as db:
        for earlier in (_EARLIER, _REGISTERED_EARLIER):
            await db.execute(earlier, {"time": time, "id": session_id})


_EARLIER = text("""
    UPDATE fasting_sessions AS s
       SET started_at = s.started_at - passed.time, ends_at = s.ends_at - passed.time,
           scheduled_at = s.scheduled_at - passed.time,
           started_with = jsonb_set(s.started_with, '{ends_at}', to_jsonb(s.ends_at - passed.time))
      FROM (SELECT CAST(:time AS interval) AS time) AS passed
     WHERE s.id = :id
""")

_REGISTERED_EARLIER = text("""
    UPDATE device_token_events AS e
       SET at = e.at - CAST(:time AS interval)
      FROM device_tokens d JOIN fasting_sessions s USING (user_id)
     WHERE d.id = e.device_id AND s.id = :id
""")
