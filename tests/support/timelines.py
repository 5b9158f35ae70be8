"""Timelines as support reads them."""

from typing import Any
from urllib.parse import quote

from tests.house import User


def of(user_id: str, what: str = "timeline") -> str:
    """Give the address of something of a person's; any user id fits."""
    return f"/v1/support/users/{quote(user_id, safe='')}/{what}"


async def timeline(carol: User, user_id: str, **query: str | int) -> list[dict[str, Any]]:
    """Read the first page of somebody's timeline, in the order in which it happened."""
    answer = await carol.house.http.get(of(user_id), params=query, headers=carol.headers)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items[::-1]


async def told(carol: User, user_id: str, **query: str | int) -> list[tuple[str, str | None]]:
    """Read the same as events with their reasons."""
    return [(item["event"], item["reason"]) for item in await timeline(carol, user_id, **query)]
