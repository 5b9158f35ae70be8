"""Promise 11: a person who is erased leaves nothing that names them, in tables, logs and histories."""

import asyncio
import logging
from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest
from sqlalchemy import String

from db import api_keys, erasures
from db.models.table import Table
from db.support_actions import Actor
from tests.erasure.leaving import done, erased, holding, leave, path_of, workflows_about
from tests.kept import kept_of
from tests.stack import Phone, Stack, User, android, eventually, iphone
from tests.support.dead import dead_task, redrive
from tests.support.timelines import of
from tests.talk import conversation_of, handed_off, handoff, posted, sync

TEXT = "only bob was meant to read this"


@dataclass(frozen=True)
class Life:
    """What somebody did, and what of it may be found."""

    user: User
    values: list[str]
    workflows: list[UUID]  # what they are about
    conversation_id: UUID
    of_bob: UUID  # a message
    of_user: UUID


@pytest.fixture
async def life(stack: Stack, bob: User, carol: User) -> Life:
    """Somebody who used everything: fasts, messages, phones that changed hands, links, support."""
    user = stack.user(f"mal/lory%2F {uuid4()} ü")
    phones = [iphone(), android()]
    former, later = iphone(), iphone()
    version = f"planted-{uuid4()}"[:30]
    await user.register(*phones, locale="de-AT", time_zone="Europe/Vienna", app_version=version)
    await user.register(former)
    await bob.register(former)  # taken by bob, who is named in the event of a row of mallory's
    await bob.register(later)
    await user.register(later)  # and by mallory, who is named in the event of a row of bob's
    await bob.register(android())
    await user.call("PUT", "/v1/notification-preferences", {"reminder_minutes": [7], "message_preview": "full"})
    link = (await user.call("POST", "/v1/preference-links")).json()["url"]
    await stack.http.get(f"/preferences/{link.rpartition('/')[2]}")  # a page that is open
    await user.call("POST", "/v1/preference-links", {"for": "email"})

    fasts = [await user.start_fast(due_in=600) for _ in range(2)]
    await user.end(fasts[0])
    [task_id, *_] = await dead_task(user, phones[0])
    await redrive(carol, task_id)
    tested = await carol.call("POST", of(user.user_id, "test-push"), {})
    [died] = await stack.rows("SELECT conversation_id FROM push_tasks WHERE task_id = :id", id=task_id)

    conversation_id = await conversation_of(user, bob)
    of_user, of_bob = await posted(user, conversation_id, TEXT), await posted(bob, conversation_id, "hello, mallory")
    page = await sync(user, phones[0].installation_id)
    await sync(user, phones[0].installation_id, after=page["items"][0]["seq"])
    await user.call("POST", f"/v1/push-tasks/{task_id}/opened")
    await asyncio.gather(handed_off(stack, of_user), handed_off(stack, of_bob))
    values = [user.user_id, TEXT, version, *(phone.token for phone in phones)]
    values += [str(each) for each in (*fasts, *(phone.installation_id for phone in phones), task_id)]
    about = [*fasts, died.conversation_id, of_user, UUID(tested.json()["test_push_id"])]
    return Life(user, values, about, conversation_id, of_bob, of_user)


async def test_nothing_that_was_planted_is_found_in_any_table_log_or_history(
    stack: Stack,
    life: Life,
    carol: User,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    capsys.readouterr()
    assert {value for _, value in await holding(stack, life.values)} == set(life.values)
    kept = [await kept_of(handoff(stack, life.of_bob))]
    await eventually(lambda: workflows_about(stack, *life.workflows))  # Temporal lists them a moment later

    erasure_id = await erased(stack, life.user.user_id)

    assert await holding(stack, life.values) == set()
    logs = "".join(capsys.readouterr()) + caplog.text
    assert str(erasure_id) in logs
    assert not [value for value in life.values[:5] if value in logs or value in "".join(kept)]

    async def no_workflow() -> bool:
        return not await workflows_about(stack, *life.workflows)

    await eventually(no_workflow)
    timeline = await carol.call("GET", of(life.user.user_id, "timeline"))
    assert (timeline.status_code, timeline.json()["items"]) == (200, [])


async def test_others_keep_their_conversation_without_the_person(stack: Stack, life: Life, bob: User) -> None:
    await erased(stack, life.user.user_id)

    conversation = await bob.call("GET", f"/v1/conversations/{life.conversation_id}")
    assert conversation.json()["member_ids"] == [bob.user_id]
    listed = await bob.call("GET", f"/v1/conversations/{life.conversation_id}/messages")
    assert [(item["sender_id"], item["body"]) for item in listed.json()["items"]] == [
        (bob.user_id, "hello, mallory"),
        (None, None),
    ]
    phone = (await bob.call("GET", "/v1/device-tokens")).json()["items"][0]["installation_id"]
    items = (await sync(bob, phone))["items"]
    assert [(item["id"], item["sender_id"], item["body"]) for item in items if item["id"] == str(life.of_user)] == [
        (str(life.of_user), None, None)
    ]
    again = await bob.call("PUT", f"/v1/conversations/{life.conversation_id}/messages/{life.of_user}", {"body": TEXT})
    assert (again.status_code, again.json()["type"]) == (409, "urn:fastbell:problem:message-exists")


async def test_the_last_member_who_leaves_leaves_an_empty_conversation(stack: Stack, alice: User) -> None:
    conversation_id = await conversation_of(alice)
    await posted(alice, conversation_id, TEXT)

    await erased(stack, alice.user_id)

    backend = stack.user("backend", "service")
    read = await backend.call("GET", f"/v1/conversations/{conversation_id}")
    assert (read.status_code, read.json()["member_ids"], read.json()["member_count"]) == (200, [], 0)


async def test_a_supporter_who_leaves_is_not_named_by_what_they_did(stack: Stack, alice: User, carol: User) -> None:
    [task_id] = await dead_task(alice, iphone())
    await redrive(carol, task_id)

    await erased(stack, carol.user_id)

    assert await holding(stack, [carol.user_id]) == set()
    [action] = await stack.rows("SELECT actor FROM support_actions WHERE subject_id = :id", id=task_id)
    assert action.actor == erasures.NOBODY


async def test_a_user_who_was_named_like_an_api_key_leaves_the_key_as_it_is(stack: Stack, alice: User) -> None:
    async with stack.sessions.begin() as db:
        key = await api_keys.create(db, alice.user_id, ["service"], lasts=None, actor=Actor(alice.user_id))
    await alice.register(iphone())

    erasure_id = await erased(stack, alice.user_id)

    headers = {"Authorization": f"Bearer {key}"}
    assert (await stack.http.get(f"/v1/erasures/{erasure_id}", headers=headers)).status_code == 200
    assert {table for table, _ in await holding(stack, [alice.user_id])} == {"api_keys", "support_actions"}


async def test_somebody_who_never_existed_is_erased_and_named_nowhere(stack: Stack) -> None:
    user_id = f"nobody-{uuid4()}"

    erasure_id = await erased(stack, user_id)

    assert await holding(stack, [user_id]) == set()
    [row] = await stack.rows("SELECT digest, user_id FROM erasures WHERE id = :id", id=erasure_id)
    assert (len(row.digest), row.user_id) == (32, None)


async def test_a_person_who_comes_back_starts_afresh(stack: Stack, alice: User) -> None:
    phone = iphone()
    await alice.register(phone)
    await alice.call("PUT", "/v1/notification-preferences", {"reminder_minutes": [9]})
    await alice.start_fast(due_in=600)
    await erased(stack, alice.user_id)

    await alice.register(phone)

    assert (await alice.call("GET", "/v1/fasting-sessions")).json()["items"] == []
    preferences = (await alice.call("GET", "/v1/notification-preferences")).json()
    assert (preferences["rev"], preferences["reminder_minutes"] == [9]) == (0, False)
    session_id = await alice.start_fast(due_in=1.0)
    assert await stack.finished(session_id) == "accepted"


def test_every_column_that_may_name_a_person_is_seen_to() -> None:
    """User ids have columns of 200 characters, or one of these names. A new one belongs into `db/erasures.py`."""
    cascades = {("message_allowances", "user_id"), ("erasures", "user_id")}  # with the membership; forgotten at the end
    of_nobody = {("api_keys", "name")}

    seen_to = " ".join(erasures.ROWS)
    assert _naming() - cascades - of_nobody == {each for each in _naming() if f"{each[0]} WHERE {each[1]} " in seen_to}


async def test_every_table_that_may_name_a_person_keeps_those_out_who_are_being_erased(stack: Stack) -> None:
    """A new table needs a trigger, as migration 0022 has them."""
    by_another = {  # its rows come with one of another table, which has a trigger
        *("log_items", "message_allowances", "events", "device_token_events", "brakes", "erasures", "api_keys"),
    }

    rows = await stack.rows("SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname LIKE 'being_erased%'")

    assert {table for table, _ in _naming()} - by_another == {row[0] for row in rows}


def _naming() -> set[tuple[str, str]]:
    names = {"user_id", "sender_id", "taken_by", "actor", "resumed_by"}
    return {
        (table.name, column.name)
        for table in Table.metadata.sorted_tables
        for column in table.columns
        if isinstance(column.type, String) and (column.name in names or column.type.length == 200)
    }


async def test_an_erasure_is_asked_for_while_the_same_phone_is_bobs(stack: Stack, alice: User, bob: User) -> None:
    """What is known of a phone stays where somebody else is signed in on it."""
    phone = iphone()
    await alice.register(phone)
    await bob.register(Phone(phone.provider, phone.token, phone.installation_id))

    await erased(stack, alice.user_id)

    [row] = (await bob.call("GET", "/v1/device-tokens")).json()["items"]
    assert (row["active"], row["installation_id"]) == (True, str(phone.installation_id))


async def test_two_who_ask_at_the_same_moment_get_the_same_erasure(stack: Stack, alice: User) -> None:
    await alice.register(iphone())

    first, second = await asyncio.gather(leave(stack, alice.user_id), leave(stack, alice.user_id))

    assert first == second
    await done(stack, first)
    again = await erased(stack, alice.user_id)
    assert again != first
    assert (await stack.user("backend", "service").call("GET", path_of(alice.user_id, "/export"))).text == ""
