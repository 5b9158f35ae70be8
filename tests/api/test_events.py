"""The feed of events: its order and cursor, whatever transactions do meanwhile; its bounds; its purged start."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from db import events, retention
from domain.events import EventType
from domain.housekeeping import Keep, RetentionTarget
from tests.busy import soon
from tests.stack import Stack, User, iphone, uncommitted

_WRITE = "INSERT INTO unnumbered_events (type, occurred_at, user_id) VALUES ('push.accepted', now(), :user_id)"


@pytest.fixture
def backend(api: Stack) -> User:
    """A backend."""
    return api.user("backend", "service")


@pytest.fixture
async def whose(api: Stack) -> str:
    """A user, and a feed whose other events are numbered."""
    while await events.number(api.sessions):
        pass
    return f"user-{uuid4()}"


async def page(backend: User, **query: Any) -> dict[str, Any]:
    answer = await backend.call("GET", "/v1/events?" + "&".join(f"{name}={value}" for name, value in query.items()))
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def head(api: Stack) -> int:
    [(number,)] = await api.rows("SELECT head FROM event_feed")
    return int(number)


async def write(api: Stack, user_id: str, count: int = 1) -> None:
    async with api.sessions.begin() as db:
        await db.execute(text(_WRITE), [{"user_id": user_id}] * count)


@pytest.mark.usefixtures("whose")
async def test_an_event_has_its_place_its_person_and_what_applies(api: Stack, alice: User, backend: User) -> None:
    before, phone = await head(api), iphone()
    await alice.register(phone)

    body = await page(backend, after=before, types="device_token.registered")

    [item] = [each for each in body["items"] if each["user_id"] == alice.user_id]
    assert item == {
        "id": item["id"],
        "type": "device_token.registered",
        "occurred_at": item["occurred_at"],
        "user_id": alice.user_id,
        "data": {"installation_id": str(phone.installation_id), "provider": "apns"},
    }
    assert item["occurred_at"].endswith("Z")
    assert (body["next_cursor"], body["has_more"]) == (await head(api), False)


async def test_the_feed_is_read_page_by_page_to_its_end(api: Stack, backend: User, whose: str) -> None:
    before = await head(api)
    await write(api, whose, 3)

    first = await page(backend, after=before, limit=2)
    rest = await page(backend, after=first["next_cursor"], limit=2)
    nothing = await page(backend, after=rest["next_cursor"], limit=500)

    assert [[each["id"] for each in body["items"]] for body in (first, rest, nothing)] == [
        [before + 1, before + 2],
        [before + 3],
        [],
    ]
    assert [(body["next_cursor"], body["has_more"]) for body in (first, rest, nothing)] == [
        (before + 2, True),
        (before + 3, False),
        (before + 3, False),
    ]


async def test_an_event_of_a_transaction_that_commits_late_comes_after_the_cursor_and_holds_up_no_other(
    api: Stack, backend: User, whose: str
) -> None:
    before = await head(api)

    async with uncommitted(api, _WRITE, user_id="the first to write, the last to commit"):
        await write(api, whose)
        early = await page(backend, after=before)
    late = await page(backend, after=early["next_cursor"])

    assert [each["user_id"] for each in early["items"]] == [whose]
    assert [each["user_id"] for each in late["items"]] == ["the first to write, the last to commit"]


async def test_readers_at_once_number_each_event_once_and_see_the_same_order(
    api: Stack, backend: User, whose: str
) -> None:
    before = await head(api)

    async def write_some() -> None:
        for _ in range(10):
            await write(api, whose, 3)

    async def follow() -> list[int]:
        seen: list[int] = []
        after = before
        while len(seen) < 120:
            body = await page(backend, after=after, limit=50)
            seen += [each["id"] for each in body["items"]]
            after = body["next_cursor"]
        return seen

    async with soon(20):
        *_, one, other, third = await asyncio.gather(*(write_some() for _ in range(4)), *(follow() for _ in range(3)))

    assert one == other == third == list(range(before + 1, before + 121))


async def test_while_somebody_numbers_others_read_what_is_numbered(api: Stack, backend: User, whose: str) -> None:
    before = await head(api)
    await write(api, whose)

    async with uncommitted(api, "SELECT head FROM event_feed FOR UPDATE"):
        meanwhile = await page(backend, after=before)
    then = await page(backend, after=meanwhile["next_cursor"])

    assert (meanwhile["items"], meanwhile["next_cursor"]) == ([], before)
    assert len(then["items"]) == 1


async def test_a_filter_skips_other_types_and_moves_the_cursor_past_them(api: Stack, backend: User, whose: str) -> None:
    before = await head(api)
    await write(api, whose, 3)

    some = await page(backend, after=before, types="push.dead,push.accepted", limit=1)
    repeated = await page(backend, after=before, types="push.dead&types=push.opened")
    blank = await page(backend, after=before, types="")

    assert [each["type"] for each in some["items"]] == ["push.accepted"]
    assert (repeated["items"], repeated["next_cursor"], repeated["has_more"]) == ([], before + 3, False)
    assert len(blank["items"]) == 3


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("after=-1", "after"),
        ("after=soon", "after"),
        ("after=9223372036854775807", "after"),
        ("after=9223372036854775808", "after"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("types=push.accepted,push.delivered", "types"),
        ("types=%00", "types"),
    ],
)
async def test_a_question_that_makes_no_sense_names_its_field(backend: User, query: str, field: str) -> None:
    answer = await backend.call("GET", f"/v1/events?{query}")

    assert (answer.status_code, answer.json()["field"]) == (422, field)


async def test_the_feed_is_for_backends(api: Stack, alice: User) -> None:
    assert (await alice.call("GET", "/v1/events")).status_code == 403
    assert (await api.user(None, "support").call("GET", "/v1/events")).status_code == 403


async def test_a_cursor_older_than_what_is_kept_is_told_where_to_continue(
    api: Stack, backend: User, whose: str
) -> None:
    await write(api, whose, 4)
    while await events.number(api.sessions):
        pass
    last = await head(api)
    days = text("UPDATE events SET occurred_at = now() - interval '8 days' WHERE number <= :last")
    async with api.sessions.begin() as db:
        await db.execute(days, {"last": last - 1})
        await db.execute(text(_WRITE.replace("now()", "now() - interval '9 days'")), {"user_id": whose})
    unread = last + 1  # as old, and nobody has read it: it stays behind the one that is kept

    while not (await _purge(api)).is_all:
        pass

    [(horizon,)] = await api.rows("SELECT horizon FROM event_feed")
    gone = await backend.call("GET", f"/v1/events?after={last - 2}")
    from_the_start = await page(backend, after=0)
    from_the_horizon = await page(backend, after=horizon)
    assert horizon == last - 1
    assert (gone.status_code, gone.json()["type"], gone.json()["next_cursor"]) == (
        410,
        "urn:fastbell:problem:event-cursor-too-old",
        horizon,
    )
    assert [each["id"] for each in from_the_start["items"]] == [last, unread]
    assert from_the_horizon == from_the_start


async def _purge(api: Stack) -> retention.Purged:
    async with api.sessions.begin() as db:
        return await retention.purge(db, RetentionTarget.EVENTS, Keep(events=timedelta(days=7)))


async def test_rare_types_are_found_however_many_others_lie_between(api: Stack, backend: User, whose: str) -> None:
    before = await head(api)
    many = (
        "INSERT INTO events (number, type, occurred_at)"
        " SELECT :head + n, 'push.synced', now() FROM generate_series(1, 60000) AS n"
    )
    async with api.sessions.begin() as db:
        await db.execute(text(many), {"head": before})
        await db.execute(text("UPDATE event_feed SET head = head + 60000"))
    await write(api, whose)

    first = await page(backend, after=before, types="push.accepted")
    then = await page(backend, after=first["next_cursor"], types="push.accepted")

    async with api.sessions.begin() as db:  # or other tests had to read them
        await db.execute(text("DELETE FROM events WHERE number > :head AND user_id IS NULL"), {"head": before})
    assert (first["items"], first["next_cursor"], first["has_more"]) == ([], before + 50_000, True)
    assert [each["id"] for each in then["items"]] == [before + 60_001]


def test_the_types_of_the_contract_are_all_there() -> None:
    contract = (
        "push.accepted push.dead push.withdrawn push.expired push.opened push.synced reminder.skipped"
        " reminder.withheld device_token.registered device_token.invalidated device_token.transferred"
        " device_token.signed_out webhook.disabled"
    )
    assert set(EventType) >= set(contract.split())
