"""A timeline tells every decision about a person's pushes, in order and in words."""

from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text

from activities.reminders import Moment, OpenReminder, ReminderOpening
from db.views.timeline import ITEMS
from domain.push import Provider
from domain.reasons import why
from domain.timeline import TimelinePart
from simulator import Simulator
from tests.stack import Stack, User, android, eventually, iphone, refuse_once
from tests.support.dead import dead_task, redrive, redriven
from tests.support.timelines import events_of, pass_unopened, says, timeline
from tests.talk import connected, conversation_of, handed_off, post, posted, sync, tasks_of


async def test_a_reminders_life_is_told_from_registration_to_the_tap(
    stack: Stack, simulator: Simulator, alice: User, carol: User
) -> None:
    phone = iphone()
    await alice.register(phone)
    refuse_once(simulator, phone)
    session_id = await alice.start_fast(due_in=1, minutes=(60, 1))
    assert await stack.finished(session_id) == "accepted"
    [task] = await stack.tasks(session_id)
    async with stack.sessions.begin() as db:  # however busy this machine is
        planned = "UPDATE push_tasks SET created_at = least(created_at, due_at) WHERE task_id = :id"
        await db.execute(text(planned), {"id": task.task_id})
    await alice.call("POST", f"/v1/push-tasks/{task.task_id}/opened")

    items = await timeline(carol, alice.user_id)

    assert [(item["event"], item["reason"]) for item in items] == [
        ("registered", None),
        ("fast_started", None),
        ("planned", None),
        ("attempted", None),
        ("answered", "ServiceUnavailable"),
        ("attempted", None),
        ("answered", None),
        ("accepted", None),
        ("opened", None),
    ]
    short, late = str(phone.installation_id)[:8], round(items[7]["detail"]["late_seconds"])
    assert late >= 1
    ends_at, due_at = (_clock(items[1]["detail"]["ends_at"]), _clock(items[2]["detail"]["due_at"]))
    calls = [item["detail"].get("latency_ms") for item in items]
    push, on, unavailable = "the reminder 1 minute before the end", f"the iPhone {short}", _why("ServiceUnavailable")
    facts = [
        (on,),
        (ends_at, "60, 1", ": 60."),
        (push, on, due_at),
        ("Apple", push, on, "call 1"),
        ("all 1", f"{calls[4]} ms", unavailable),
        ("Apple", push, on, "call 2"),
        ("accepted", "2", f"{calls[6]} ms"),
        ("Apple accepted", push, on, f"{late} s late", unavailable, "settings"),
        (push, on),
    ]
    assert [item["text"] for item, each in zip(items, facts, strict=True) if not says(item["text"], *each)] == []
    about = {"session_id": str(session_id), "task_id": str(task.task_id), "message_id": str(task.message_id)}
    assert all(items[2][name] == value for name, value in about.items())
    assert items[2]["conversation_id"] is None
    assert phone.token not in str(items)


async def test_what_becomes_of_a_fast_is_reported(alice: User, carol: User) -> None:
    moved, cancelled = [await alice.start_fast(due_in=3600) for _ in range(2)]
    await alice.move_goal(moved, due_in=7200)
    await alice.end(moved)
    await alice.cancel(cancelled)

    of_moved = await timeline(carol, alice.user_id, session_id=str(moved))

    assert [item["event"] for item in of_moved] == ["fast_started", "goal_moved", "fast_broken"]
    assert of_moved[0]["text"].endswith(f" {_clock(of_moved[0]['detail']['first_ends_at'])}.")
    assert of_moved[1]["text"] == (
        f"Moved the fast's goal to {_clock(of_moved[1]['detail']['ends_at'])}. Reminders, in minutes before the end: 1."
    )
    assert await events_of(carol, alice.user_id, session_id=str(cancelled)) == [
        ("fast_started", None),
        ("fast_cancelled", None),
    ]


async def test_reminders_that_were_changed_are_not_reported_as_those_of_the_start(alice: User, carol: User) -> None:
    chosen, preferred = await alice.start_fast(due_in=7200, minutes=(60,)), uuid4()
    ends_at = (datetime.now(UTC) + timedelta(hours=3)).isoformat()
    await alice.call("PUT", f"/v1/fasting-sessions/{preferred}", {"ends_at": ends_at})
    for session_id in (chosen, preferred):
        await _choose(alice, session_id, 45, 20)

    texts = [(await timeline(carol, alice.user_id, session_id=str(each)))[0]["text"] for each in (chosen, preferred)]

    of_chosen, of_preferred = (text.partition(" UTC.")[2] for text in texts)
    assert says(of_chosen, "60.", "changed later", "now", "45, 20.")
    assert says(of_preferred, "changed later", "now", "45, 20.")
    assert "60" not in of_preferred


async def test_a_goal_is_not_reported_as_moved_when_a_reminder_was_added_too_late(alice: User, carol: User) -> None:
    session_id = await alice.start_fast(due_in=3600)
    await alice.move_goal(session_id, due_in=7200)
    [_, moved] = await timeline(carol, alice.user_id, session_id=str(session_id))
    await _choose(alice, session_id, 1440, 1)

    started, by_then = await timeline(carol, alice.user_id, session_id=str(session_id))

    goal = f"goal to {_clock(moved['detail']['ends_at'])}."
    assert says(moved["text"], goal, "before the end: 1.")
    assert by_then["at"] == moved["at"]
    assert says(by_then["text"], goal, "2 times", "now", "before the end: 1440, 1.", "unless sent before: 1440.")
    assert started["text"].endswith(f" {_clock(started['detail']['first_ends_at'])}.")


async def test_an_attempt_that_made_no_call_is_not_reported_as_one(stack: Stack, alice: User, carol: User) -> None:
    phone = iphone()
    await alice.register(phone)
    session_id = await alice.start_fast(due_in=1)
    async with stack.sessions.begin() as db:
        malformed = "UPDATE device_tokens SET token = 'no token of ' || user_id WHERE user_id = :user_id"
        await db.execute(text(malformed), {"user_id": alice.user_id})
    await stack.finished(session_id)

    items = await timeline(carol, alice.user_id, session_id=str(session_id))

    push, on = "the reminder 1 minute before the end", f"the iPhone {str(phone.installation_id)[:8]}"
    reason = "MalformedDeviceToken"
    attempted, answered, rejected = items[-3:]
    assert [(each["event"], each["reason"]) for each in items[-3:]] == [
        ("attempted", reason),
        ("answered", reason),
        ("rejected", reason),
    ]
    assert says(attempted["text"], "Did not ask Apple", push, on, _why(reason))
    assert says(answered["text"], "all 1", "was not made", _why(reason))
    assert says(rejected["text"], push[1:], "was not sent", on, _why(reason))


async def test_why_a_reminder_was_withheld_is_reported_once(stack: Stack, alice: User, bob: User, carol: User) -> None:
    dora, emil = stack.user(), stack.user()
    await bob.register(iphone())
    await dora.register(iphone())
    await emil.register(iphone(), time_zone="UTC")
    loud = datetime.now(UTC) + timedelta(hours=12)
    starts, ends = f"{loud + timedelta(minutes=1):%H:%M}", f"{loud:%H:%M}"
    await prefer(bob, reminders=False)
    await prefer(dora, quiet_hours={"starts": starts, "ends": ends, "time_zone": "UTC", "mode": "withhold"})
    await prefer(emil, quiet_hours={"starts": starts, "ends": ends, "time_zone": None, "mode": "withhold"})
    users = (alice, bob, dora, emil)
    fasts = [await user.start_fast(due_in=0.5) for user in users]
    for session_id in fasts:
        await stack.finished(session_id)

    found = [await timeline(carol, user.user_id, session_id=str(fast)) for user, fast in zip(users, fasts, strict=True)]

    withheld = [[item["text"] for item in items if item["event"] == "withheld"] for items in found]
    hours = (_why("quiet_hours"), starts, ends)
    facts = [("no phone", "active token"), (_why("reminders_off"),), (*hours, "UTC."), (*hours, "each phone")]
    for [sentence], each in zip(withheld, facts, strict=True):
        assert says(sentence, "Did not push", "the reminder 1 minute before the end", "any phone", *each)


async def test_who_gets_no_push_of_a_message_is_told_why(stack: Stack, alice: User, bob: User, carol: User) -> None:
    dora, emil = stack.user(), stack.user()
    tablet, phone = android(), iphone()
    await bob.register(tablet, phone)
    await dora.register(android())
    await prefer(dora, messages=False)
    await connected(stack, bob, tablet)
    conversation_id = await conversation_of(alice, bob, dora, emil)

    message_id = await posted(alice, conversation_id)
    cursor = (await sync(bob, tablet.installation_id))["next_cursor"]
    await sync(bob, tablet.installation_id, after=cursor)
    assert await handed_off(stack, message_id) == "accepted"

    assert await _withheld(carol, bob, message_id) == [
        (f"the Android phone {str(tablet.installation_id)[:8]}", "synced")
    ]
    assert await _withheld(carol, dora, message_id) == [("any phone", "messages_off")]
    assert await _withheld(carol, emil, message_id) == [("any phone", "no_active_token")]
    assert await _withheld(carol, alice, message_id) == []
    assert ("accepted", None) in await events_of(carol, bob.user_id, message_id=str(message_id))


async def test_what_the_app_reads_before_the_push_goes_out_is_reported(
    stack: Stack, simulator: Simulator, alice: User, bob: User, carol: User
) -> None:
    phone = android()
    await bob.register(phone)
    refuse_once(simulator, phone)
    message_id = await posted(alice, await conversation_of(alice, bob))
    refused = "SELECT 1 FROM push_tasks WHERE message_id = :id AND last_reason = 'UNAVAILABLE' AND state = 'pending'"
    await eventually(lambda: stack.rows(refused, id=message_id))
    waiting = await timeline(carol, bob.user_id, message_id=str(message_id))
    await sync(bob, phone.installation_id, after=1)

    [planned, *_] = waiting
    assert planned["text"].endswith(f", due at {_clock(planned['detail']['due_at'])}.")
    texts = {item["event"]: item["text"] for item in await timeline(carol, bob.user_id, message_id=str(message_id))}
    short = str(phone.installation_id)[:8]
    assert says(texts["synced"], f"the Android phone {short}", "has read", "the message")
    assert texts["withdrawn"] == f"The message was not sent to the Android phone {short}: {_why('synced')}"


async def test_a_dead_push_and_who_redrove_it_are_reported(stack: Stack, alice: User, carol: User) -> None:
    phone = iphone()
    [task_id] = await dead_task(alice, phone)
    await redrive(carol, task_id)
    assert (await redriven(stack, task_id))[0] == "accepted"

    items = [each for each in await timeline(carol, alice.user_id) if each["task_id"] == str(task_id)]

    assert [item["event"] for item in items] == ["planned", "dead", "redriven", "attempted", "answered", "accepted"]
    short = str(phone.installation_id)[:8]
    push = f"the reminder 1 minute before the end for the iPhone {short}"
    assert items[1]["text"] == f"Gave up on {push}: {_why('ServiceUnavailable')}"
    assert says(items[2]["text"], f"{carol.user_id} redrove {push}", "dead", _why("ServiceUnavailable"))


async def test_a_token_that_died_before_others_were_refused_in_a_mass_is_reported_as_dead(
    stack: Stack, alice: User, carol: User
) -> None:
    [task_id] = await dead_task(alice, iphone(), reason="Unregistered")
    async with stack.sessions.begin() as db:
        for statement in (
            "UPDATE push_tasks SET state = 'unregistered', attempt_count = 1 WHERE task_id = :id",
            (
                "UPDATE device_tokens SET active = false, inactive_reason = 'invalidated' FROM push_tasks t"
                " WHERE t.device_id = device_tokens.id AND t.task_id = :id"
            ),
            (
                "INSERT INTO push_attempts (attempt_id, task_id, number, started_at, outcome, reason, latency_ms)"
                " VALUES (:id, :id, 1, now() - interval '9 s', 'unregistered', 'Unregistered', 3)"
            ),
            (
                "INSERT INTO brakes (id, provider, environment, reason, token_errors, answers, engaged_at, resumed_at)"
                " VALUES (:id, 'apns', 'production', 'BadDeviceToken', 20, 37, now() - interval '5 s', now())"
            ),
        ):
            await db.execute(text(statement), {"id": task_id})

    told_now = {item["event"]: item["text"] for item in await timeline(carol, alice.user_id)}

    async with stack.sessions.begin() as db:
        for left in ("brakes WHERE id", "push_attempts WHERE task_id", "push_tasks WHERE task_id"):
            await db.execute(text(f"DELETE FROM {left} = :id"), {"id": task_id})
    assert "Opening the app once fixes it." in _why("Unregistered")
    assert says(told_now["answered"], "all 1", "3 ms", _why("Unregistered"))
    assert told_now["unregistered"].endswith(_why("Unregistered"))


async def test_a_push_that_cannot_be_redriven_any_more_is_not_said_to_be(
    stack: Stack, alice: User, carol: User
) -> None:
    phone = iphone()
    [task_id] = await dead_task(alice, phone)
    async with stack.sessions.begin() as db:
        await db.execute(text("UPDATE push_tasks SET expires_at = now() WHERE task_id = :id"), {"id": task_id})

    [dead] = [each for each in await timeline(carol, alice.user_id) if each["event"] == "dead"]

    push = f"the reminder 1 minute before the end for the iPhone {str(phone.installation_id)[:8]}"
    assert dead["text"].startswith(f"Gave up on {push}")
    assert dead["text"].endswith(f": {_why('ServiceUnavailable')}")


async def test_a_reminder_that_nobody_opens_is_reported_as_due_as_expired_and_as_given_up(
    stack: Stack, alice: User, carol: User
) -> None:
    await alice.register(iphone())
    session_id = await alice.start_fast(due_in=3600)
    await pass_unopened(stack, session_id, timedelta(seconds=3610))
    [due] = await _unopened(carol, alice)
    due_states = await _reminder_states(alice, session_id)
    await pass_unopened(stack, session_id, timedelta(seconds=60))
    [expired] = await _unopened(carol, alice)
    expired_states = await _reminder_states(alice, session_id)
    due_at = datetime.fromisoformat(expired["at"])
    await ReminderOpening(stack.sessions).open_reminder(OpenReminder(session_id, 1, due_at, Moment.DUE))
    recovered = await timeline(carol, alice.user_id)

    assert says(
        due["text"],
        "The reminder 1 minute before the end",
        f"due since {_clock(due['at'])}",
        "It has not been processed yet: the background service may be down.",
    )
    of_expired = (_clock(expired["at"]), f"expired at {_clock(expired['detail']['expires_at'])}", "not processed")
    assert says(expired["text"], "The reminder 1 minute before the end", *of_expired)
    assert (due["session_id"], _clock(due["detail"]["due_at"])) == (str(session_id), _clock(due["at"]))
    assert (due_states, expired_states) == (["due"], ["dead"])
    assert "unopened" not in {item["event"] for item in recovered}
    [dead] = [item["text"] for item in recovered if item["event"] == "dead"]
    assert dead.endswith(f": {_why('opened_too_late')}")
    assert await _reminder_states(alice, session_id) == ["dead"]


async def test_a_reminder_that_was_decided_against_is_not_reported_as_unopened(
    stack: Stack, alice: User, carol: User
) -> None:
    session_id = await alice.start_fast(due_in=3600)
    await pass_unopened(stack, session_id, timedelta(seconds=3610))
    [before] = await _unopened(carol, alice)
    due_at = datetime.fromisoformat(before["at"])
    await ReminderOpening(stack.sessions).open_reminder(OpenReminder(session_id, 1, due_at, Moment.DUE))

    assert ("unopened", None) not in await events_of(carol, alice.user_id)
    assert ("withheld", "no_active_token") in await events_of(carol, alice.user_id)
    assert await _reminder_states(alice, session_id) == ["withdrawn"]


async def test_unopened_reminders_have_their_place_in_pages_and_parts(stack: Stack, alice: User, carol: User) -> None:
    fasts = [await alice.start_fast(due_in=3600, minutes=(1, 2, 3)) for _ in range(2)]
    for session_id in fasts:
        await pass_unopened(stack, session_id, timedelta(seconds=3700))
    await alice.register(iphone())
    whole = await timeline(carol, alice.user_id)

    seen: list[str] = []
    first_page = f"/v1/support/users/{alice.user_id}/timeline?limit=2"
    path: str | None = first_page
    while path:
        page = (await carol.call("GET", path)).json()
        seen += [item["id"] for item in page["items"]]
        path = page["next_cursor"] and f"{first_page}&cursor={page['next_cursor']}"

    unopened = [item for item in whole if item["event"] == "unopened"]
    assert (len(whole), len(unopened)) == (9, 6)
    assert seen == [item["id"] for item in whole][::-1]
    assert [item["at"] for item in whole] == sorted(item["at"] for item in whole)
    first, *others = unopened
    about = {"message_id": first["message_id"]}
    assert [item["id"] for item in await timeline(carol, alice.user_id, **about)] == [first["id"]]
    of_one = await events_of(carol, alice.user_id, session_id=str(fasts[0]))
    assert of_one == [("fast_started", None), *[("unopened", None)] * 3]
    stretch = {"from": first["at"], "to": others[-1]["at"]}
    assert [each["id"] for each in await timeline(carol, alice.user_id, **stretch)] == [
        each["id"] for each in unopened if each["at"] < others[-1]["at"]
    ]


async def test_a_push_that_was_missed_and_revived_is_reported(stack: Stack, bob: User, carol: User) -> None:
    phone = android()
    [task_id] = await dead_task(bob, phone, ends_in=50)
    withdrawn = "UPDATE push_tasks SET state = 'withdrawn', last_reason = 'no_active_token', settled_at = now()"
    async with stack.sessions.begin() as db:
        await db.execute(text(f"{withdrawn} WHERE task_id = :id"), {"id": task_id})
    await bob.register(phone)
    assert (await redriven(stack, task_id))[0] == "accepted"

    happened = await events_of(carol, bob.user_id)

    assert happened[happened.index(("withheld", "no_active_token")) + 1 :][-1] == ("accepted", None)
    assert ("withdrawn", "no_active_token") not in happened


async def test_what_happens_to_tokens_is_reported(alice: User, bob: User, carol: User) -> None:
    phone, other = iphone(), android()
    await alice.register(phone, other)
    await alice.register(replace(phone, token=iphone().token))
    await alice.call("DELETE", f"/v1/device-tokens/{other.installation_id}")
    await alice.register(other)
    await bob.register(other)

    assert await events_of(carol, alice.user_id) == [
        ("registered", None),
        ("registered", None),
        ("rotated", None),
        ("registered", None),
        ("signed_out", None),
        ("reactivated", None),
        ("transferred", None),
    ]
    assert await events_of(carol, bob.user_id) == [("registered", None)]


async def test_pages_lose_and_repeat_nothing_while_more_happens(
    stack: Stack, alice: User, bob: User, carol: User
) -> None:
    await bob.register(iphone(), android())
    conversation_id = await conversation_of(alice, bob)
    message_ids = [await posted(alice, conversation_id) for _ in range(4)]
    for message_id in message_ids:
        await handed_off(stack, message_id)
    eldest = (await tasks_of(stack, message_ids[0]))[0].task_id  # planned first, opened last
    assert (await bob.call("POST", f"/v1/push-tasks/{eldest}/opened")).status_code == 204
    whole = [item["id"] for item in await timeline(carol, bob.user_id, limit=200)][::-1]

    seen: list[str] = []
    path, cursor = f"/v1/support/users/{bob.user_id}/timeline?limit=3", ""
    while True:
        page = (await carol.call("GET", path + cursor)).json()
        seen += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        await post(alice, conversation_id)
        cursor = f"&cursor={page['next_cursor']}"

    assert len(whole) > 12
    assert whole[0] == seen[0]
    assert seen == whole


async def test_a_stretch_of_time_can_be_asked_for(alice: User, carol: User) -> None:
    await alice.register(iphone())
    await alice.start_fast(due_in=3600)
    await alice.register(android())
    first, started, last = await timeline(carol, alice.user_id)

    stretch = {"from": started["at"], "to": last["at"]}

    assert [item["id"] for item in await timeline(carol, alice.user_id, **stretch)] == [started["id"]]
    assert await timeline(carol, alice.user_id, to=first["at"]) == []
    assert await timeline(carol, alice.user_id, message_id=str(uuid4())) == []


async def test_indexes_serve_all_parts_of_a_timeline(stack: Stack) -> None:
    values = {"user_id": "anna", "limit": 51, "before_at": None, "before_id": None, **asdict(TimelinePart())}
    async with stack.sessions() as db:
        await db.execute(text("SET LOCAL enable_seqscan = off"))
        plan = "\n".join(await db.scalars(text(f"EXPLAIN {ITEMS.text}"), values))

    for table in ("push_tasks", "push_attempts", "withheld_pushes", "fasting_sessions", "device_token_events"):
        assert f"_{table}" in plan, table  # the name of an index
    assert "Seq Scan" not in plan, plan


async def _unopened(carol: User, user: User) -> list[dict[str, Any]]:
    return [item for item in await timeline(carol, user.user_id) if item["event"] == "unopened"]


async def _reminder_states(user: User, session_id: UUID) -> list[str]:
    session = (await user.call("GET", f"/v1/fasting-sessions/{session_id}")).json()
    return [reminder["state"] for reminder in session["reminders"]]


async def _choose(user: User, session_id: UUID, *minutes: int) -> None:
    """Choose other reminders of a fast."""
    answer = await user.call("PATCH", f"/v1/fasting-sessions/{session_id}", {"reminder_minutes": minutes})
    assert answer.status_code == 200, answer.text


async def prefer(user: User, **wishes: object) -> None:
    """Change some preferences."""
    path = "/v1/notification-preferences"
    answer = await user.call("PUT", path, (await user.call("GET", path)).json() | wishes)
    assert answer.status_code == 200, answer.text


async def _withheld(carol: User, user: User, message_id: object) -> list[tuple[str, str]]:
    items = await timeline(carol, user.user_id, message_id=str(message_id))
    found = [item for item in items if item["event"] == "withheld"]
    return [
        (each["text"].removeprefix("Did not push the message to ").partition(":")[0], each["reason"]) for each in found
    ]


def _why(reason: str) -> str:
    return why(reason, Provider.APNS)


def _clock(instant: Any) -> str:
    return f"{datetime.fromisoformat(instant):%Y-%m-%d %H:%M:%S} UTC"
