"""A person asks: all that is held, as lines of JSON, in bounded memory."""

import json
from collections import defaultdict
from typing import Any
from uuid import uuid4

import httpx
import pytest

from db.models.table import Table
from db.views import export
from tests.erasure.leaving import ask, change, done, erased, leave, path_of
from tests.stack import Stack, User, android, iphone
from tests.support.dead import dead_task, redrive
from tests.support.timelines import of
from tests.talk import conversation_of, posted, sync

NOT_EXPORTED = {  # what holds nothing of one person, or only what a line has already
    *("workers", "leases", "brakes", "outbox", "spent_tickets", "collapse_groups", "erasures", "erased_subjects"),
    *("conversations", "push_attempts", "event_feed", "webhooks", "webhook_deliveries", "api_keys"),
}


async def lines(stack: Stack, user_id: str) -> list[dict[str, Any]]:
    """Export somebody."""
    answer = await stack.user("backend", "service").call("GET", path_of(user_id, "/export"))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
    return [json.loads(line) for line in answer.text.splitlines()]


async def test_an_export_has_all_that_is_held_and_no_secret_of_ours(
    stack: Stack, alice: User, bob: User, carol: User
) -> None:
    phones = [iphone(), android()]
    await alice.register(*phones, time_zone="Europe/Berlin")
    await alice.call("PUT", "/v1/notification-preferences", {"reminder_minutes": [3]})
    session_id = await alice.start_fast(due_in=600)
    conversation_id = await conversation_of(alice, bob)
    sent, received = await posted(alice, conversation_id, "from alice"), await posted(bob, conversation_id, "from bob")
    await sync(alice, phones[0].installation_id, after=1)
    [task_id, *_] = await dead_task(alice, phones[1])
    await redrive(carol, task_id)
    await carol.call("POST", of(alice.user_id, "test-push"), {})
    link = (await alice.call("POST", "/v1/preference-links")).json()["url"]

    exported = await lines(stack, alice.user_id)

    by: dict[str, list[Any]] = defaultdict(list)
    for line in exported:
        by[line["type"]].append(line["data"])
    assert {row["token"] for row in by["device_token"]} == {phone.token for phone in phones}
    assert {row["events"][0]["event"] for row in by["device_token"]} == {"registered"}
    assert by["preferences"][0]["reminder_minutes"] == [3]
    assert str(session_id) in {row["id"] for row in by["fasting_session"]}
    assert [row["id"] for row in by["conversation"]] == [str(conversation_id)]
    assert [(row["id"], row["body"]) for row in by["message"]] == [(str(sent), "from alice")]
    in_log = [
        row["message"] for row in by["log_item"] if row["message"]["kind"] == "message"
    ]  # the reminder comes late
    assert [(message["id"], message["body"]) for message in in_log] == [
        (str(sent), "from alice"),
        (str(received), "from bob"),
    ]
    assert str(task_id) in {row["task_id"] for row in by["push_task"]}
    assert {"attempts", "expires_at"} <= by["push_task"][0].keys()
    assert {"sync_position", "preference_link", "support_action"} <= by.keys()
    whole = json.dumps(exported)
    assert carol.user_id not in whole
    assert link.rpartition("/")[2] not in whole
    assert '"digest"' not in whole
    assert '"csrf_token"' not in whole
    assert by["fasting_session"][0]["ends_at"].endswith("+00:00")


async def test_an_export_of_many_rows_comes_in_pages_and_has_each_once(stack: Stack, alice: User) -> None:
    await alice.register(iphone())
    count = 2 * export.PAGE + 1
    many = (
        "INSERT INTO withheld_pushes (user_id, kind, conversation_id, message_id, reason)"
        " SELECT :id, 'reminder', gen_random_uuid(), gen_random_uuid(), 'quiet_hours'"
        f" FROM generate_series(1, {count})"
    )
    await change(stack, many, id=alice.user_id)
    pages = [page async for page in export.pages_of(stack.sessions, alice.user_id)]

    exported = await lines(stack, alice.user_id)

    assert [len(page) for page in pages if "withheld_push" in page[0]] == [export.PAGE, export.PAGE, 1]
    assert len({line["data"]["id"] for line in exported if line["type"] == "withheld_push"}) == count


async def test_an_export_breaks_off_when_the_person_is_being_erased(stack: Stack, alice: User) -> None:
    large = (
        "INSERT INTO withheld_pushes (user_id, kind, conversation_id, message_id, reason)"
        " SELECT :id, 'reminder', gen_random_uuid(), gen_random_uuid(), repeat('x', 100000)"
        f" FROM generate_series(1, {2 * export.PAGE + 1})"  # more than sockets hold
    )
    await change(stack, large, id=alice.user_id)
    path, headers = path_of(alice.user_id, "/export"), stack.user("backend", "service").headers

    async with stack.http.stream("GET", path, headers=headers) as answer:
        pieces = answer.aiter_bytes()
        await anext(pieces)
        erasure_id = await leave(stack, alice.user_id)
        with pytest.raises(httpx.RemoteProtocolError):
            async for _ in pieces:
                pass

    assert (await stack.user("backend", "service").call("GET", path)).status_code == 409
    await done(stack, erasure_id)


async def test_of_somebody_who_is_erased_or_never_was_nothing_is_exported(stack: Stack, alice: User) -> None:
    await alice.register(iphone())
    await erased(stack, alice.user_id)

    assert await lines(stack, alice.user_id) == await lines(stack, f"nobody/{uuid4()}") == []


async def test_only_a_service_may_erase_or_export(stack: Stack, alice: User, carol: User) -> None:
    erasure_id = await erased(stack, f"nobody-{uuid4()}")
    for user in (alice, carol):
        answers = [
            await user.call("DELETE", path_of(alice.user_id)),
            await user.call("GET", f"/v1/erasures/{erasure_id}"),
            await user.call("GET", path_of(alice.user_id, "/export")),
        ]
        assert [answer.status_code for answer in answers] == [403, 403, 403]
    backend = stack.user("backend", "service")
    assert (await backend.call("GET", f"/v1/erasures/{uuid4()}")).status_code == 404


async def test_a_user_id_is_any_printable_text_of_200_characters(stack: Stack) -> None:
    """A slash belongs to the id; what no token may name is refused with the field's name."""
    for user_id in ("a/b", "a/export", "%2F", "é" * 200, " ", "?#"):
        await erased(stack, f"{user_id}")
    for user_id in ("nul\0", "x" * 201, "line\nbreak"):
        answer = await ask(stack, user_id)
        assert (answer.status_code, answer.json().get("field")) == (422, "user_id")
    bare = await stack.user("backend", "service").call("DELETE", "/v1/users/a/b")
    assert bare.status_code in {404, 405}  # an id with a slash is not meant by it


def test_every_table_is_exported_or_holds_nothing_of_one_person() -> None:
    """A table to come belongs to one of them."""
    exported = {held.key[0].class_.__tablename__ for held in export.HELD}

    assert {table.name for table in Table.metadata.sorted_tables} - exported - NOT_EXPORTED == set()
