"""What was kept long enough is deleted; what waits, or may still be needed, never is."""

import asyncio
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from domain.naming import WORKFLOW_QUEUE
from settings.environment import ConfigError, retention_settings
from tests.busy import soon
from tests.housekeeping.sweeps import change
from tests.stack import Phone, Stack, User, android, eventually, iphone, uncommitted
from tests.support.dead import dead_task
from tests.talk import conversation_of, post, posted, sync
from workflows.housekeeping import Retention

LONG_AGO = "now() - interval '31 days'"


async def purge(stack: Stack) -> dict[str, int]:
    gone: dict[str, int] = await stack.temporal.execute_workflow(
        Retention.run, id=f"retention-{uuid4()}", task_queue=WORKFLOW_QUEUE
    )
    return gone


async def task_in(stack: Stack, state: str, *, due: str = LONG_AGO, expires: str = LONG_AGO) -> UUID:
    """Give somebody a push task in a state, with an attempt."""
    [task_id] = await dead_task(stack.user(), iphone())
    accepted = "now()" if state == "accepted" else "NULL"
    await change(
        stack,
        f"UPDATE push_tasks SET state = :state, accepted_at = {accepted}, due_at = {due}, expires_at = {expires}"
        " WHERE task_id = :id",
        state=state,
        id=task_id,
    )
    attempt = "INSERT INTO push_attempts (attempt_id, task_id, number, started_at)"
    await change(stack, f"{attempt} VALUES (gen_random_uuid(), :id, 1, {due})", id=task_id)
    return task_id


async def kept(stack: Stack, *task_ids: UUID) -> list[bool]:
    rows = await stack.rows(
        "SELECT task_id, count(attempt_id) FROM push_tasks JOIN push_attempts USING (task_id) GROUP BY task_id"
    )
    attempts = {row.task_id: row.count for row in rows}
    return [attempts.get(task_id) == 1 for task_id in task_ids]


async def test_finished_pushes_go_with_their_attempts_and_nothing_else_does(stack: Stack) -> None:
    gone = [await task_in(stack, state) for state in ("accepted", "withdrawn", "unregistered", "expired", "dead")]
    stays = [
        await task_in(stack, "pending"),
        await task_in(stack, "dead", expires="now() + interval '1 minute'"),
        await task_in(stack, "accepted", due="now() - interval '29 days'"),
    ]

    assert (await purge(stack))["push_tasks"] == len(gone)

    assert await kept(stack, *gone, *stays) == [False] * len(gone) + [True] * len(stays)
    assert not await stack.rows("SELECT 1 FROM push_attempts WHERE task_id = ANY(:ids)", ids=gone)


async def test_what_is_known_of_lines_goes_a_day_after_their_last_push(stack: Stack) -> None:
    old, fresh = uuid4(), uuid4()
    line = "INSERT INTO collapse_groups (installation_id, collapse_key, planned_at, sounded_at) VALUES"
    await change(stack, f"{line} (:id, 'k', now() - interval '25 hours', NULL)", id=old)
    await change(stack, f"{line} (:id, 'k', now() - interval '25 hours', now() - interval '23 hours')", id=fresh)

    await purge(stack)

    left = await stack.rows("SELECT installation_id FROM collapse_groups WHERE collapse_key = 'k'")
    assert [row.installation_id for row in left] == [fresh]


async def test_a_push_that_somebody_holds_is_passed_over(stack: Stack) -> None:
    held, free = await task_in(stack, "accepted"), await task_in(stack, "accepted")

    async with uncommitted(stack, "SELECT 1 FROM push_tasks WHERE task_id = :id FOR UPDATE", id=held):
        await purge(stack)
        assert await kept(stack, held, free) == [True, False]

    await purge(stack)
    assert await kept(stack, held) == [False]


async def test_more_than_one_batch_goes_in_one_run(stack: Stack, alice: User) -> None:
    await alice.register(iphone())
    [device] = await stack.rows("SELECT id FROM device_tokens WHERE user_id = :id", id=alice.user_id)
    many = (
        "INSERT INTO device_token_events (device_id, event, at)"
        f" SELECT :id, 'registered', {LONG_AGO} FROM generate_series(1, 1200)"
    )
    await change(stack, "DELETE FROM device_token_events")
    await change(stack, many, id=device.id)
    await alice.register(android())

    assert (await purge(stack))["token_events"] == 1200

    assert len(await stack.rows("SELECT 1 FROM device_token_events")) == 1


async def test_streams_that_nobody_closed_go(stack: Stack) -> None:
    stream = (
        "INSERT INTO presences (stream_id, user_id, installation_id, expires_at)"
        " VALUES (gen_random_uuid(), 'anna', gen_random_uuid(), now() - interval '{}')"
    )
    await change(stack, stream.format("2 hours"))
    await change(stack, stream.format("1 minute"))

    assert (await purge(stack))["presences"] == 1

    assert len(await stack.rows("SELECT 1 FROM presences WHERE user_id = 'anna'")) == 1


async def _long_silent(stack: Stack, phone: Phone) -> None:
    """Let a phone's rows be as old as they come, with nothing left that refers to them."""
    rows = "SELECT id FROM device_tokens WHERE installation_id = :id"
    await change(stack, f"DELETE FROM device_token_events WHERE device_id IN ({rows})", id=phone.installation_id)
    aged = "UPDATE device_tokens SET last_seen_at = last_seen_at - interval '31 days' WHERE installation_id = :id"
    await change(stack, aged, id=phone.installation_id)


async def _rows_of(user: User) -> list[tuple[str, bool, str | None]]:
    rows = "SELECT token, active, inactive_reason FROM device_tokens WHERE user_id = :id ORDER BY last_seen_at"
    return [tuple(row) for row in await user.stack.rows(rows, id=user.user_id)]


async def test_of_a_phone_that_is_gone_one_row_stays_without_its_token_and_tells_to_register_again(
    stack: Stack, alice: User
) -> None:
    phone = iphone()
    for _ in range(3):
        await alice.register(replace(iphone(), installation_id=phone.installation_id))
    dead = "UPDATE device_tokens SET active = false, inactive_reason = 'invalidated' WHERE user_id = :id AND active"
    await change(stack, dead, id=alice.user_id)
    await _long_silent(stack, phone)

    assert (await purge(stack))["device_tokens"] == 3

    assert await _rows_of(alice) == [("", False, "invalidated")]
    [shown] = (await alice.call("GET", "/v1/device-tokens")).json()["items"]
    assert (shown["token"], shown["inactive_reason"], shown["refresh_required"]) == ("", "invalidated", True)
    assert (await purge(stack))["device_tokens"] == 0

    await alice.register(phone)  # it comes back, and goes again
    assert [(active, reason) for _, active, reason in await _rows_of(alice)] == [(False, "invalidated"), (True, None)]
    await alice.call("DELETE", f"/v1/device-tokens/{phone.installation_id}")
    await _long_silent(stack, phone)
    await purge(stack)
    assert await _rows_of(alice) == [("", False, "signed_out")]


async def test_a_token_that_is_active_or_lately_seen_or_that_something_refers_to_stays(
    stack: Stack, alice: User, bob: User, carol: User
) -> None:
    active, lately, referred = iphone(), iphone(), iphone()
    await alice.register(active)
    await bob.register(lately)
    [task_id] = await dead_task(carol, referred)
    for phone in (active, referred):
        await _long_silent(stack, phone)
    await change(
        stack,
        "UPDATE device_tokens SET active = false, inactive_reason = 'signed_out' WHERE user_id = :id",
        id=carol.user_id,
    )
    await bob.call("DELETE", f"/v1/device-tokens/{lately.installation_id}")

    assert (await purge(stack))["device_tokens"] == 0

    kept_tokens = [await _rows_of(user) for user in (alice, bob, carol)]
    assert [rows[0][0] for rows in kept_tokens] == [active.token, lately.token, referred.token]
    await change(stack, "DELETE FROM push_tasks WHERE task_id = :id", id=task_id)


async def test_two_people_whose_phones_are_gone_keep_a_row_each(stack: Stack, alice: User, bob: User) -> None:
    phone, other = iphone(), iphone()
    await alice.register(phone)
    await bob.register(replace(phone, installation_id=phone.installation_id))
    await bob.register(other)
    for user in (alice, bob):
        signed_out = (
            "UPDATE device_tokens SET active = false, inactive_reason = 'signed_out' WHERE user_id = :id AND active"
        )
        await change(stack, signed_out, id=user.user_id)
    for each in (phone, other):
        await _long_silent(stack, each)

    await purge(stack)

    assert await _rows_of(alice) == [("", False, "transferred")]
    assert await _rows_of(bob) == [("", False, "signed_out")] * 2


async def test_the_messages_of_reminders_go_once_no_log_holds_them(stack: Stack, alice: User) -> None:
    phone, conversation_id = iphone(), await conversation_of(alice)
    session_id = await alice.start_fast(due_in=0.5)
    await stack.finished(session_id)
    await post(alice, conversation_id, "stays")
    old = "UPDATE messages SET created_at = now() - interval '92 days' WHERE conversation_id IN (:session, :chat)"
    await change(stack, old, session=session_id, chat=conversation_id)
    reminders = "SELECT 1 FROM messages WHERE conversation_id = :id"
    assert (await purge(stack))["reminders"] == 0  # the log holds it
    await change(
        stack, f"UPDATE log_heads SET oldest_at = now() - interval '92 days' WHERE user_id = '{alice.user_id}'"
    )

    assert (await purge(stack))["reminders"] == 1

    assert not await stack.rows(reminders, id=session_id)
    assert len(await stack.rows(reminders, id=conversation_id)) == 1
    assert (await sync(alice, phone.installation_id, after=2))["items"] == []


async def test_the_positions_of_phones_that_are_gone_go(stack: Stack, alice: User, bob: User) -> None:
    here, gone = iphone(), iphone()
    await alice.register(here)
    position = "INSERT INTO sync_positions (user_id, installation_id, seq, synced_at) VALUES (:user, :id, 7, {})"
    await change(stack, position.format(LONG_AGO), user=alice.user_id, id=here.installation_id)
    await change(stack, position.format(LONG_AGO), user=bob.user_id, id=gone.installation_id)
    await change(stack, position.format("now()"), user=bob.user_id, id=here.installation_id)

    assert (await purge(stack))["sync_positions"] == 1

    left = "SELECT user_id FROM sync_positions WHERE user_id IN (:alice, :bob) ORDER BY synced_at"
    rows = await stack.rows(left, alice=alice.user_id, bob=bob.user_id)
    assert [row.user_id for row in rows] == [alice.user_id, bob.user_id]


async def test_workers_that_were_killed_and_cutoffs_that_were_resumed_go(stack: Stack) -> None:
    worker = "INSERT INTO workers (worker_id, seen_at, gates) VALUES (gen_random_uuid(), now() - interval '{}', '{{}}')"
    brake = (
        "INSERT INTO brakes (provider, app_id, environment, reason, token_errors, answers, resumed_at, resumed_by)"
        " VALUES ('apns', 'gone', 'production', 'BadDeviceToken', 1, 1, {}, 'carol')"
    )
    for age in ("25 hours", "2 hours"):
        await change(stack, worker.format(age))
    for resumed_at in (LONG_AGO, "now()", "NULL"):
        await change(stack, brake.format(resumed_at))

    gone = await purge(stack)

    assert (gone["workers"], gone["brakes"]) == (1, 1)
    await change(stack, "DELETE FROM workers WHERE seen_at < now() - interval '1 hour'")
    await change(stack, "DELETE FROM brakes WHERE app_id = 'gone'")


async def test_decisions_not_to_push_go_and_so_do_sessions_and_codes_of_pages(stack: Stack) -> None:
    withheld = (
        "INSERT INTO withheld_pushes (user_id, kind, conversation_id, message_id, reason, at)"
        " VALUES ('anna', 'message', gen_random_uuid(), gen_random_uuid(), 'synced', now() - interval '{} days')"
    )
    signed_in = (
        "INSERT INTO console_sessions (digest, user_id, csrf_token, expires_at)"
        " VALUES (decode(md5('{0}'), 'hex'), 'carol', 'x', now() - interval '{0}')"
    )
    code = (
        "INSERT INTO console_codes (digest, user_id, expires_at)"
        " VALUES (decode(md5('{0}'), 'hex'), 'carol', now() - interval '{0}')"
    )
    link = (
        "INSERT INTO preference_codes (digest, user_id, kind, expires_at)"
        " VALUES (decode(md5('{0}'), 'hex'), 'carol', 'app', now() - interval '{0}')"
    )
    tables = ("withheld_pushes", "console_sessions", "console_codes", "preference_codes", "preference_sessions")
    for days in (31, 32, 29):
        await change(stack, withheld.format(days))
    for age in ("2 hours", "1 minute", "-1 hour"):
        for statement in (signed_in, code, link, signed_in.replace("console", "preference")):
            await change(stack, statement.format(age))

    gone = await purge(stack)

    assert [gone[what] for what in tables] == [2, 1, 1, 1, 1]
    for table in tables:
        left = await stack.rows(f"SELECT 1 FROM {table} WHERE user_id IN ('anna', 'carol')")
        assert len(left) == (1 if table == "withheld_pushes" else 2), table


async def test_tickets_that_were_used_go_and_one_that_a_registration_may_still_name_stays(stack: Stack) -> None:
    one, other = uuid4(), uuid4()
    spent = (
        "INSERT INTO spent_tickets (installation_id, digest, expires_at)"
        " VALUES (:id, decode(md5('{0}'), 'hex'), now() - interval '{1}')"
    )
    for installation_id, name, age in ((one, "a", "2 hours"), (other, "a", "1 minute"), (one, "b", "-1 hour")):
        await change(stack, spent.format(name, age), id=installation_id)

    assert (await purge(stack))["spent_tickets"] == 1

    left = await stack.rows(
        "SELECT installation_id FROM spent_tickets WHERE installation_id IN (:one, :other)", one=one, other=other
    )
    assert {row.installation_id for row in left} == {one, other}


async def test_old_items_leave_the_log_and_their_messages_stay_in_the_conversation(
    stack: Stack, alice: User, bob: User
) -> None:
    phone = iphone()
    conversation_id = await conversation_of(alice, bob)
    for body in ("one", "two", "three"):
        await post(alice, conversation_id, body)
    await _aged(stack, conversation_id, upto=2)

    assert (await purge(stack))["log_items"] == 4

    answer = await bob.call("GET", f"/v1/sync?installation_id={phone.installation_id}&after=1")
    assert (answer.status_code, answer.json()["next_cursor"]) == (410, 2)
    assert _bodies(await sync(bob, phone.installation_id, after=2)) == ["three"]
    messages = (await bob.call("GET", f"/v1/conversations/{conversation_id}/messages")).json()
    assert _bodies(messages) == ["three", "two", "one"]
    assert (await purge(stack))["log_items"] == 0


@pytest.mark.parametrize(
    "held",
    [
        "SELECT 1 FROM log_heads WHERE user_id = :user FOR UPDATE",
        "SELECT 1 FROM log_items WHERE user_id = :user FOR UPDATE",
    ],
    ids=["head", "items"],
)
async def test_a_log_that_somebody_holds_keeps_no_other_from_being_cut(
    stack: Stack, alice: User, bob: User, held: str
) -> None:
    writer = stack.user()
    for reader in (alice, bob):
        await posted(writer, await conversation_of(writer, reader))
        await change(
            stack, "UPDATE log_heads SET oldest_at = now() - interval '99 days' WHERE user_id = :id", id=reader.user_id
        )
    await change(
        stack, "UPDATE log_heads SET oldest_at = oldest_at - interval '1 day' WHERE user_id = :id", id=alice.user_id
    )
    ripe = "UPDATE messages SET created_at = now() - interval '98 days' WHERE sender_id = :id"
    await change(stack, ripe, id=writer.user_id)

    async with uncommitted(stack, held, user=alice.user_id):
        await purge(stack)
        left = await stack.rows(
            "SELECT user_id FROM log_items WHERE user_id IN (:a, :b)", a=alice.user_id, b=bob.user_id
        )
    assert [row.user_id for row in left] == [alice.user_id]

    later = "UPDATE log_heads SET oldest_at = oldest_at - interval '2 days' WHERE user_id = :id"
    await change(stack, later, id=alice.user_id)
    await purge(stack)
    assert not await stack.rows("SELECT 1 FROM log_items WHERE user_id = :id", id=alice.user_id)


async def test_rows_that_cannot_go_keep_no_other_kind(stack: Stack) -> None:
    stuck = await task_in(stack, "accepted")
    await change(stack, "DELETE FROM presences")
    await change(
        stack,
        "INSERT INTO presences (stream_id, user_id, installation_id, expires_at)"
        " VALUES (gen_random_uuid(), 'anna', gen_random_uuid(), now() - interval '2 hours')",
    )

    async with uncommitted(stack, "SELECT 1 FROM push_attempts WHERE task_id = :id FOR UPDATE", id=stuck):
        gone = await purge(stack)

    assert (gone["push_tasks"], gone["presences"]) == (0, 1)
    assert await kept(stack, stuck) == [True]
    assert (await purge(stack))["push_tasks"] == 1


async def test_a_log_that_is_all_old_is_empty_and_goes_on_counting(stack: Stack, alice: User) -> None:
    phone = iphone()
    conversation_id = await conversation_of(alice)
    for _ in range(2):
        await post(alice, conversation_id)
    await _aged(stack, conversation_id, upto=2)

    await purge(stack)
    await post(alice, conversation_id, "after all")

    page = await sync(alice, phone.installation_id, after=2)
    assert (_bodies(page), page["next_cursor"]) == (["after all"], 3)


async def test_a_message_is_accepted_at_once_while_its_readers_log_is_cut(stack: Stack) -> None:
    while await _cut_while_one_posts(stack, stack.user(), stack.user()) != 4:
        pass  # the batch waited in vain, on a machine that stood still: nothing is wrong, and nothing shown


async def _cut_while_one_posts(stack: Stack, alice: User, bob: User) -> int:
    """Let the logs of two be cut of two items each, hold up one of them, and post; gives how many items went."""
    conversation_id = await conversation_of(alice, bob)
    for body in ("one", "two"):
        await post(alice, conversation_id, body)
    await _aged(stack, conversation_id, upto=2)

    old = "SELECT 1 FROM log_items WHERE user_id = :id AND seq = 1 FOR UPDATE"
    async with uncommitted(stack, old, id=bob.user_id):
        cutting = asyncio.create_task(purge(stack))
        await eventually(stack.someone_waits_for_a_lock)  # the batch is under way, and hangs
        async with soon(2):  # less than the batch or a writer waits for a lock
            await posted(alice, conversation_id, "three")

    items = (await cutting)["log_items"]
    assert _bodies(await sync(bob, iphone().installation_id, after=2)) == ["three"]
    return items


def test_what_is_kept_may_be_set_in_days() -> None:
    assert retention_settings({}).model_dump() == {
        "retention_days": 30,
        "log_retention_days": 90,
        "event_retention_days": 7,
    }
    assert retention_settings({"RETENTION_DAYS": "7", "LOG_RETENTION_DAYS": "365"}).retention_days == 7
    with pytest.raises(ConfigError, match="RETENTION_DAYS: Input should be greater than or equal to 2"):
        retention_settings({"RETENTION_DAYS": "1"})


def _bodies(page: dict[str, Any]) -> list[str]:
    return [item["body"] for item in page["items"]]


async def _aged(stack: Stack, conversation_id: UUID, *, upto: int) -> None:
    """Let the first messages of a conversation, and so the logs of its members, be older than they are."""
    old = "now() - interval '92 days'"
    messages = f"UPDATE messages SET created_at = {old} WHERE conversation_id = :id AND number <= :upto"
    members = "SELECT user_id FROM members WHERE conversation_id = :id"
    await change(stack, messages, id=conversation_id, upto=upto)
    await change(stack, f"UPDATE log_heads SET oldest_at = {old} WHERE user_id IN ({members})", id=conversation_id)
