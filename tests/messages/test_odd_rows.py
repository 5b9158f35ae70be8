"""What one person's rows hold that this release cannot read: it stays with them, and everybody else is served.

The values are written straight into the tables: a newer release, another machine or an older fault put them there.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from db import token_error_cutoffs, unreadable, workers
from db.views import signals
from simulator import Simulator
from tests.busy import in_time, lead
from tests.console.visits import visit
from tests.logs import own_logs
from tests.stack import Phone, Stack, User, android, iphone, start_held
from tests.streaming import streaming
from tests.support.dead import dead_task
from tests.talk import conversation_of, handed_off, posted, sync

ALL_DAY = {"starts": "00:00", "ends": "23:59", "time_zone": "UTC", "mode": "withhold"}


@dataclass(frozen=True)
class Odd:
    """A row of somebody's that is odd."""

    change: str  # SQL, with :user
    is_reached: bool = True  # whether their first phone gets pushes all the same


def of_preferences(values: str) -> Odd:
    """Make somebody's preferences odd."""
    return Odd(f"UPDATE preferences SET {values} WHERE user_id = :user")


def of_phones(values: str) -> Odd:
    """Make somebody's device tokens odd."""
    return Odd(f"UPDATE device_tokens SET {values} WHERE user_id = :user")


def of_first_phone(values: str) -> Odd:
    """Make the token of somebody's first phone such that this release cannot push to it."""
    return Odd(f"UPDATE device_tokens SET {values} WHERE user_id = :user AND provider = 'apns'", is_reached=False)


NOT_QUIET = "quiet_starts = NULL, quiet_ends = NULL, quiet_time_zone = NULL, quiet_mode = NULL"
ODD: dict[str, Odd] = {
    "a time zone of another planet": of_preferences("quiet_time_zone = 'Mars/Olympus'"),
    "a time zone outside": of_preferences("quiet_time_zone = '../../etc/passwd'"),
    "a time zone that is a folder": of_preferences("quiet_time_zone = 'Europe'"),
    "a time zone without end": of_preferences("quiet_time_zone = repeat('x', 9999)"),
    "a mode": of_preferences("quiet_mode = 'whisper'"),
    "an empty time zone": of_preferences("quiet_time_zone = ''"),
    "a preview": of_preferences(f"reminder_preview = 'hologram', message_preview = '', {NOT_QUIET}"),
    "reminder minutes": of_preferences(f"reminder_minutes = '{{NULL,-5,99999,30,30}}', {NOT_QUIET}"),
    "a time of day": of_preferences("quiet_starts = '24:00', quiet_ends = '00:00:01'"),
    "an instant that never comes": of_phones("registered_at = 'infinity', last_seen_at = 'infinity'"),
    "an instant before all years": of_phones("registered_at = '-infinity', last_seen_at = '4000-01-01 BC'"),
    "reminder minutes in two dimensions": of_preferences(f"reminder_minutes = '{{{{1,2}},{{3,4}}}}', {NOT_QUIET}"),
    "a locale": of_phones("locale = '@@' || repeat('x', 9999)"),
    "a phone's time zone": of_phones("time_zone = 'Mars/Olympus'"),
    "a key of no length": of_phones("public_key = ''"),
    "a key of low order": of_phones("public_key = decode(repeat('00', 32), 'hex')"),
    "a provider": of_first_phone("provider = 'webpush'"),
    "an environment": of_first_phone("environment = 'staging'"),
}


@dataclass(frozen=True)
class Member:
    """Somebody with two phones."""

    user: User
    first: Phone
    second: Phone


async def change(stack: Stack, statement: str, **values: object) -> None:
    """Change rows; at least one."""
    async with stack.sessions.begin() as db:
        changed = await db.execute(text(statement), values)
        assert changed.rowcount, statement  # type: ignore[attr-defined] # of a statement that changes rows


async def member(stack: Stack, odd: Odd | None) -> Member:
    """Let somebody sign in on two phones, and let their rows be odd."""
    found = Member(stack.user(), iphone(), android())
    await found.user.register(found.first, found.second)
    if odd is not None:
        await found.user.call("PUT", "/v1/notification-preferences", {"quiet_hours": ALL_DAY})
        if "preferences" not in odd.change:
            await found.user.call("PUT", "/v1/notification-preferences", {})
        await change(stack, odd.change, user=found.user.user_id)
    return found


async def test_a_message_and_a_reminder_reach_everybody_though_many_rows_are_odd(
    stack: Stack, simulator: Simulator
) -> None:
    writer = stack.user()
    odd = {name: await member(stack, each) for name, each in ODD.items()}
    honest = [await member(stack, None) for _ in range(2)]
    conversation_id = await conversation_of(writer, *(each.user for each in (*odd.values(), *honest)))

    with own_logs() as logs:
        message_id = await posted(writer, conversation_id)
        assert await handed_off(stack, message_id) == "accepted"
        fasts = [await each.user.start_fast(due_in=4) for each in (*odd.values(), *honest)]
        for session_id in fasts:
            await stack.finished(session_id)

    reached = [phone for each in honest for phone in (each.first, each.second)]
    for name, each in odd.items():
        reached += [each.first, each.second] if ODD[name].is_reached else [each.second]
    unreached = [odd[name].first for name, each in ODD.items() if not each.is_reached]
    for phone in reached:
        assert len(await simulator.phones.received(phone.token, 2)) == 2, phone
    assert [list(simulator.requests.for_token(phone.token)) for phone in unreached] == [[]] * len(unreached)
    told = [each["what"] for each in logs if each["event"] == unreadable.NOT_UNDERSTOOD]
    assert len(told) == len(set(told))


def test_what_cannot_be_read_is_reported_once_and_cut_short() -> None:
    column = f"table.{uuid4()}"
    with own_logs() as logs:
        for value in ("x" * 1000, "another"):
            unreadable.log_unreadable(column, value)

    event = unreadable.NOT_UNDERSTOOD
    assert logs == [{"event": event, "log_level": "warning", "what": column, "value": "'" + "x" * 39}]


async def test_a_push_that_turns_odd_while_it_is_held_costs_nobody_else_theirs(
    stack: Stack, simulator: Simulator
) -> None:
    words = ("kind = 'haiku'", "provider = 'webpush'", "environment = 'staging'", "state = 'dreaming'")
    odd = {word: await member(stack, None) for word in words}
    honest = [await member(stack, None) for _ in range(3)]
    users = [each.user for each in (*odd.values(), *honest)]
    started = await start_held(*users, due_in=lead(3), sends=2)
    fasts = {user.user_id: session_id for user, session_id in zip(users, started, strict=True)}

    for word, each in odd.items():
        await change(stack, f"UPDATE push_tasks SET {word} WHERE conversation_id = :id", id=fasts[each.user.user_id])

    for each in honest:
        assert await stack.finished(fasts[each.user.user_id]) == "accepted"
        [(late,)] = await stack.rows(
            "SELECT max(extract(epoch FROM accepted_at - due_at)) FROM push_tasks WHERE conversation_id = :id",
            id=fasts[each.user.user_id],
        )
        assert in_time(float(late), 2.0)
    for each in odd.values():
        assert not simulator.requests.for_token(each.first.token)
        await stack.workflow(fasts[each.user.user_id]).terminate()
        await change(
            stack,
            "UPDATE push_tasks SET kind = 'reminder', environment = 'production', state = 'withdrawn',"
            " provider = CASE provider WHEN 'fcm' THEN 'fcm' ELSE 'apns' END, next_attempt_at = NULL"
            " WHERE conversation_id = :id",
            id=fasts[each.user.user_id],
        )


COLUMNS = {
    ("device_tokens", "id"): "provider environment inactive_reason locale time_zone app_version app_id",
    ("push_tasks", "task_id"): "kind provider environment state last_reason app_id collapse_key",
    ("fasting_sessions", "id"): "status",
    ("preferences", "user_id"): "reminder_preview message_preview quiet_time_zone quiet_mode",
    ("withheld_pushes", "id"): "kind reason",
    ("device_token_events", "id"): "event reason",
}
HERS = {
    "device_token_events": "device_id IN (SELECT id FROM device_tokens WHERE user_id = :user)",
}


@pytest.mark.long
async def test_no_word_in_any_row_keeps_its_owner_or_support_from_the_rest(stack: Stack) -> None:
    odd = await member(stack, ODD["a locale"])
    [task_id, _] = await dead_task(odd.user, odd.first, odd.second)
    await odd.user.call("DELETE", f"/v1/device-tokens/{odd.second.installation_id}")
    await change(
        stack,
        "INSERT INTO withheld_pushes (user_id, kind, conversation_id, message_id, reason)"
        " VALUES (:user, 'reminder', :id, :id, 'reminders_off')",
        user=odd.user.user_id,
        id=uuid4(),
    )
    await odd.user.call("PUT", "/v1/notification-preferences", {"quiet_hours": ALL_DAY})
    [(session_id,)] = await stack.rows("SELECT conversation_id FROM push_tasks WHERE task_id = :id", id=task_id)
    await odd.user.cancel(session_id)
    of_person, of_all = await asks(odd, task_id)
    trouble = [(("nothing", "odd"), path, status) for path, status in await refused(of_person + of_all)]

    for (table, key), columns in COLUMNS.items():
        hers = HERS.get(table, "user_id = :user")
        asked = of_person + of_all if table == "push_tasks" else of_person
        for column in columns.split():
            query = f"SELECT {key}, {column} FROM {table} WHERE {hers} AND {column} IS NOT NULL"
            before = await stack.rows(query, user=odd.user.user_id)
            for row_id, _ in before:
                await change(stack, f"UPDATE {table} SET {column} = :word WHERE {key} = :id", word="<b>odd", id=row_id)
            trouble += [((table, column), path, status) for path, status in await refused(asked)]
            for row_id, word in before:
                await change(stack, f"UPDATE {table} SET {column} = :word WHERE {key} = :id", word=word, id=row_id)

    assert trouble == []


Ask = tuple[str, Callable[[str], Awaitable[httpx.Response]]]


async def asks(odd: Member, task_id: UUID) -> tuple[list[Ask], list[Ask]]:
    """List what the owner asks for, and support about them; and what support asks for about all."""
    user, stack = odd.user, odd.user.stack
    support, carol = stack.user("carol", "support"), await visit(stack)
    mine = ("device-tokens", "fasting-sessions", "notification-preferences", "conversations")
    of_her = (f"users/{user.user_id}/{each}" for each in ("timeline", "devices", "fasting-sessions"))
    of_all = (f"push-tasks?user_id={user.user_id}", "push-tasks", f"push-tasks/{task_id}", "gates", "analytics")
    return [
        *((f"/v1/{each}", partial(user.call, "GET")) for each in mine),
        (f"/v1/sync?installation_id={odd.first.installation_id}", partial(user.call, "GET")),
        *((f"/v1/support/{each}", partial(support.call, "GET")) for each in of_her),
        (f"/console/person?user={user.user_id}", carol.get),
    ], [
        *((f"/v1/support/{each}", partial(support.call, "GET")) for each in of_all),
        *((f"/console/{each}", carol.get) for each in ("", "dead", f"push/{task_id}", "analytics")),
    ]


async def refused(asks: list[Ask]) -> list[tuple[str, int]]:
    """Ask for all; a push that cannot be read may be missing."""
    answers = [(path, await ask(path)) for path, ask in asks]
    found = [(path, each.status_code) for path, each in answers]
    return [(path, status) for path, status in found if status != 200 and (status != 404 or "/push" not in path)]


async def test_a_log_goes_on_after_an_item_of_a_newer_release(stack: Stack) -> None:
    alice, bob = stack.user(), stack.user()
    phone = iphone()
    await bob.register(phone)
    conversation_id = await conversation_of(alice, bob)
    ids = [await posted(alice, conversation_id) for _ in range(3)]
    newer = "UPDATE messages SET kind = 'haiku', number = NULL, sender_id = NULL, body = NULL WHERE id = :id"
    await change(stack, newer, id=ids[1])

    synced = await sync(bob, phone.installation_id)
    first = await sync(bob, phone.installation_id, limit=2)
    async with streaming(bob, phone.installation_id) as events:
        streamed = await events.take(2)

    assert [item["id"] for item in synced["items"]] == [str(ids[0]), str(ids[2])]
    assert synced["next_cursor"] == 3
    assert ([item["id"] for item in first["items"]], first["next_cursor"], first["has_more"]) == (
        [str(ids[0])],
        2,
        True,
    )
    assert streamed == synced["items"]


@pytest.mark.parametrize(
    "gates",
    [
        '{"gates": [{"provider": "webpush", "app_id": null, "environment": "production", "state": "closed"}]}',
        '{"gates": [{"provider": "apns"}, 7, null]}',
        '{"gates": {"apns": 1}, "unknown_refusals": [{"provider": "webpush"}]}',
        '{"gates": null, "host": "here", "pid": "one"}',
        "[]",
        "7",
    ],
)
async def test_a_worker_that_reports_in_another_way_stops_no_other(stack: Stack, gates: str) -> None:
    worker_id, support = uuid4(), stack.user("carol", "support")
    await change(
        stack,
        "INSERT INTO workers (worker_id, seen_at, gates)"
        " VALUES (:id, clock_timestamp() + interval '1 minute', CAST(:gates AS jsonb))",
        id=worker_id,
        gates=gates,
    )
    try:
        answers = [await support.call("GET", "/v1/support/gates"), await (await visit(stack)).get("/console/")]
        async with stack.sessions.begin() as db:
            await workers.forget_dead(db, "here", lambda _: False)
            await signals.present(db)
    finally:
        await change(stack, "DELETE FROM workers WHERE worker_id = :id", id=worker_id)

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json()["items"]


async def test_a_cutoff_of_a_newer_release_stops_no_heartbeat(stack: Stack) -> None:
    brake_id = uuid4()
    await change(
        stack,
        "INSERT INTO brakes (id, provider, environment, reason, token_errors, answers)"
        " VALUES (:id, 'webpush', 'production', 'Gone', 1, 1)",
        id=brake_id,
    )
    try:
        async with stack.sessions() as db:
            assert all(route.provider in {"apns", "fcm"} for route in await token_error_cutoffs.engaged(db))
            await signals.present(db)
    finally:
        await change(stack, "DELETE FROM brakes WHERE id = :id", id=brake_id)
