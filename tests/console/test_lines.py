"""A person's page begins with one line for each reminder or message: what became of it, and what happened below."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html import unescape
from urllib.parse import urlencode
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from db.views.summaries import LINES
from tests.console.visits import Visit
from tests.stack import Stack, User, android, iphone
from tests.support.dead import dead_task
from tests.support.test_timeline import prefer
from tests.support.timelines import pass_unopened
from tests.talk import conversation_of, handed_off, posted, sync, tasks_of

SUMMARY = re.compile(r"<summary>\s*<span class=\"at\">.*?</summary>", re.DOTALL)
INSTANT = r"(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d UTC"


async def lines_of(carol: Visit, user: User, **query: object) -> list[str]:
    """Read the lines of a person's page, without their markup."""
    return lines(await carol.get(f"/console/person?{urlencode({'user': user.user_id, **query})}"))


def lines(page: httpx.Response) -> list[str]:
    assert page.status_code == 200, page.text
    told = [unescape(re.sub(r"<[^>]*>", "", found)) for found in SUMMARY.findall(page.text)]
    return [" ".join(each.split()) for each in told]


def is_line(line: str, *parts: str) -> bool:
    """Tell whether a line consists of an instant and these parts, in which UTC stands for any instant."""
    form = re.escape(" ".join(parts)).replace("UTC", INSTANT)
    return re.fullmatch(rf"{INSTANT} {form}", line) is not None


async def test_a_reminder_that_was_accepted_says_where_and_when_and_its_calls_are_below(
    stack: Stack, carol: Visit, alice: User
) -> None:
    await alice.register(iphone(), android())
    session_id = await alice.start_fast(due_in=0.3)
    await stack.finished(session_id)
    [pixel] = [task for task in await stack.tasks(session_id) if task.provider == "fcm"]
    async with stack.sessions.begin() as db:  # however busy this machine is
        on_time = "UPDATE push_tasks SET accepted_at = due_at + interval '0.9 s' WHERE conversation_id = :id"
        await db.execute(text(on_time), {"id": session_id})
    await alice.call("POST", f"/v1/push-tasks/{pixel.task_id}/opened")

    page = await carol.get(f"/console/person?{urlencode({'user': alice.user_id})}")

    [line] = lines(page)
    accepted = "Accepted on 2 phones at UTC, on time. Opened on 1 phone."
    assert is_line(line, "accepted Reminder 1 min before the end", accepted)
    below = page.text.partition("</summary>")[2].partition("</details>")[0]
    assert below.count('class="event attempted"') == 2
    assert str(session_id) in below


async def test_what_was_decided_against_says_why(stack: Stack, carol: Visit, alice: User, bob: User) -> None:
    now = datetime.now(UTC)
    hours = {"starts": f"{now - timedelta(hours=2):%H:%M}", "ends": f"{now + timedelta(hours=2):%H:%M}"}
    await prefer(alice, quiet_hours={**hours, "time_zone": "UTC", "mode": "withhold"})
    await alice.register(iphone())
    quiet, ended = await alice.start_fast(due_in=0.5), await alice.start_fast(due_in=120)
    nowhere = await bob.start_fast(due_in=0.5)
    await alice.cancel(ended)
    await stack.finished(quiet)
    await stack.finished(nowhere)

    assert is_line(
        (await lines_of(carol, alice, session_id=quiet))[0],
        "withheld Reminder 1 min before the end Withheld: it fell into the person's quiet hours.",
    )
    assert is_line(
        (await lines_of(carol, alice, session_id=ended))[0],
        "withdrawn Reminder 1 min before the end Not sent: the fast was cancelled.",
    )
    assert is_line(
        (await lines_of(carol, bob))[0],
        "withheld Reminder 1 min before the end Withheld: no phone of theirs had an active token.",
    )


async def test_a_reminder_that_was_set_too_late_is_skipped(carol: Visit, alice: User) -> None:
    ends_at = (datetime.now(UTC) + timedelta(minutes=10)).isoformat()
    body = {"ends_at": ends_at, "reminder_minutes": [30, 5]}
    await alice.call("PUT", f"/v1/fasting-sessions/{uuid4()}", body)

    ahead, skipped = await lines_of(carol, alice)

    assert is_line(skipped, "skipped Reminder 30 min before the end Skipped: its time had passed when it was set.")
    assert " waits Reminder The reminder 5 minutes before the end is due at " in ahead


async def test_what_is_not_settled_comes_first_however_old_it_is(
    stack: Stack, carol: Visit, alice: User, bob: User
) -> None:
    phone = iphone()
    [task_id] = await dead_task(bob, phone, ends_in=300)
    for _ in range(2):
        message_id = await posted(alice, await conversation_of(alice, bob))
        await handed_off(stack, message_id)
    await sync(bob, phone.installation_id)

    dead, *messages = await lines_of(carol, bob)

    assert " dead Reminder " in dead
    assert "A person can redrive it until" in dead
    assert "Given up" not in dead  # once is enough
    assert [" accepted Message Accepted on 1 phone at " in line for line in messages] == [True, True]
    assert len(await lines_of(carol, bob, message_id=message_id)) == 1
    async with stack.sessions.begin() as db:
        await db.execute(text("DELETE FROM push_tasks WHERE task_id = :id"), {"id": task_id})


async def test_what_several_phones_wait_for_is_said_once(stack: Stack, carol: Visit, bob: User) -> None:
    task_ids = await dead_task(bob, iphone(), iphone(), iphone(), ends_in=300)

    page = await carol.get(f"/console/person?{urlencode({'user': bob.user_id})}")

    [line] = lines(page)
    assert "The reminder 1 minute before the end is dead." in line
    assert line.count("A person can redrive it until") == 1
    assert line.endswith("This holds for 3 phones.")
    below = page.text.partition("</summary>")[2].partition("</details>")[0]
    assert below.count('class="event waits"') == 3
    async with stack.sessions.begin() as db:
        await db.execute(text("DELETE FROM push_tasks WHERE task_id = ANY(:ids)"), {"ids": task_ids})


async def test_a_reminder_that_nobody_processed_says_so(unarmed: Stack, carol: Visit) -> None:
    alice = unarmed.user()
    await alice.register(iphone())
    session_id = await alice.start_fast(due_in=3600, minutes=(1,))
    await pass_unopened(unarmed, session_id, timedelta(hours=2))

    [line] = await lines_of(carol, alice)

    assert "unopened Reminder 1 min before the end The reminder 1 minute before the end was due at " in line
    assert "It was not processed: the background service was down or late." in line


async def test_phones_that_fared_differently_are_told_apart(stack: Stack, carol: Visit, alice: User) -> None:
    gone, pixel = iphone(), android()
    fault = {"fault": "answer", "status": 410, "reason": "Unregistered", "count": 1}
    stack.place.simulator.faults.add(provider="apns", token=gone.token, **fault)
    await alice.register(gone, pixel)
    session_id = await alice.start_fast(due_in=0.3)
    await stack.finished(session_id)

    [line] = await lines_of(carol, alice, session_id=session_id)

    assert " accepted Reminder " in line
    assert "Accepted on 1 phone at" in line
    assert "The token of 1 phone was refused by Apple. Opening the app there once fixes it." in line
    async with stack.sessions.begin() as db:  # or the phone would get the push when it registers
        over = "UPDATE push_tasks SET expires_at = now() WHERE conversation_id = :id"
        await db.execute(text(over), {"id": session_id})
    await alice.register(replace(gone, token=iphone().token))
    assert "It is active now" in (await lines_of(carol, alice, session_id=session_id))[0]
    async with stack.sessions.begin() as db:  # other tests look for such words in the analytics of all
        of_session = "task_id IN (SELECT task_id FROM push_tasks WHERE conversation_id = :id)"
        for table in ("push_attempts", "push_tasks"):
            await db.execute(text(f"DELETE FROM {table} WHERE {of_session}"), {"id": session_id})


PLANNED = """
    INSERT INTO push_tasks (task_id, kind, user_id, installation_id, device_id, provider, environment, conversation_id,
                            message_id, reminder_minutes, collapse_key, due_at, attempt_count, state, expires_at,
                            accepted_at, settled_at, created_at)
    SELECT gen_random_uuid(), 'message', d.user_id, d.installation_id, d.id, d.provider, d.environment,
           gen_random_uuid(), gen_random_uuid(), NULL, 'conversation/' || i, at, 0, 'accepted', at + interval '1 day',
           at, at, at
      FROM device_tokens d, generate_series(1, :many) i,
           LATERAL (SELECT now() - i * interval '1 minute' AS at) AS due
     WHERE d.user_id = :user
"""


@pytest.mark.parametrize("many", [60, pytest.param(10_000, marks=pytest.mark.long)])
async def test_many_pushes_of_one_person_are_paged(stack: Stack, carol: Visit, alice: User, many: int) -> None:
    await alice.register(iphone())
    async with stack.sessions.begin() as db:
        await db.execute(text(PLANNED), {"many": many, "user": alice.user_id})
    try:
        first = await carol.get(f"/console/person?{urlencode({'user': alice.user_id})}")
        earlier = re.search(r'href="([^"]*before=[^"]*)">Earlier', first.text)
        assert earlier is not None
        second = await carol.get(earlier[1].replace("&amp;", "&"))
    finally:
        async with stack.sessions.begin() as db:
            for table in ("push_tasks", "unnumbered_events", "events"):  # or other tests had thousands more to read
                await db.execute(text(f"DELETE FROM {table} WHERE user_id = :user"), {"user": alice.user_id})

    assert [len(lines(first)), len(lines(second))] == [25, 25]
    messages = [set(re.findall(r"message_id=([0-9a-f-]{36})", page.text)) for page in (first, second)]
    assert [len(each) for each in messages] == [25, 25]
    assert not messages[0] & messages[1]
    assert max(len(page.content) for page in (first, second)) < 300_000


async def test_indexes_serve_the_lines(stack: Stack) -> None:
    values: dict[str, object] = {
        "user_id": "anna",
        "session_id": None,
        "only": None,
        "but": [],
        "spoken_of": [],
        "limit": 26,
    }
    values |= {"before_at": None, "before_id": None, "grace": timedelta(seconds=5)}
    async with stack.sessions() as db:
        await db.execute(text("SET LOCAL enable_seqscan = off"))
        plan = "\n".join(await db.scalars(text(f"EXPLAIN {LINES.text}"), values))

    assert "Seq Scan" not in plan, plan


async def test_people_are_found_by_the_id_of_anything_of_theirs(
    stack: Stack, carol: Visit, alice: User, bob: User
) -> None:
    phone, old = iphone(), android()
    await bob.register(phone, old)
    await bob.call("DELETE", f"/v1/device-tokens/{old.installation_id}")
    message_id = await posted(alice, conversation_id := await conversation_of(alice, bob))
    await handed_off(stack, message_id)
    [push] = await tasks_of(stack, message_id)
    [attempt] = await stack.rows("SELECT attempt_id FROM push_attempts WHERE task_id = :id", id=push.task_id)
    session_id = await bob.start_fast(due_in=3600)
    whole, of_message = {"user": bob.user_id}, {"user": bob.user_id, "message_id": str(message_id)}

    for wanted, query in (
        (bob.user_id, whole),
        (f" {phone.installation_id} ", whole),
        (str(phone.installation_id).upper(), whole),
        (old.installation_id, whole),  # signed out
        (session_id, {"user": bob.user_id, "session_id": str(session_id)}),
        (push.task_id, of_message),
        (attempt.attempt_id, of_message),
    ):
        answer = await _found(carol, wanted)
        assert (answer.status_code, answer.headers.get("location")) == (303, f"/console/person?{urlencode(query)}"), (
            wanted
        )
    for several in (message_id, conversation_id):
        page = await _found(carol, several)
        assert page.status_code == 200
        assert [user.user_id in page.text for user in (alice, bob)] == [True, True]
    nobody = await _found(carol, uuid4())
    assert "no other id like it is known" in (await carol.get(nobody.headers["location"])).text


async def test_a_user_id_may_look_like_any_other_id(stack: Stack, carol: Visit, alice: User) -> None:
    phone = iphone()
    await alice.register(phone)
    namesake = stack.user(str(phone.installation_id))
    await namesake.register(android())

    page = await _found(carol, phone.installation_id)

    assert page.status_code == 200
    assert f'?user={namesake.user_id}">' in page.text
    assert f'?user={alice.user_id}">' in page.text


@pytest.mark.parametrize("q", ["x" * 201, "\0", "a\u202eb"])
async def test_what_cannot_be_an_id_is_refused(carol: Visit, q: str) -> None:
    answer = await _found(carol, q)

    assert answer.status_code == 422
    assert "q: " in answer.text


@pytest.mark.parametrize("user_id", ["\u05d0\u0628" * 100, "W" * 200, "<b>&amp;\"'</b>", "%2F..?#&user=x"])
async def test_any_user_id_has_a_page(stack: Stack, carol: Visit, user_id: str) -> None:
    await stack.user(user_id).register(iphone())

    page = await carol.get((await _found(carol, user_id)).headers["location"])

    assert page.status_code == 200
    assert '<h2 id="phones">' in page.text
    assert "No phone is registered" not in page.text


async def _found(carol: Visit, q: object) -> httpx.Response:
    return await carol.get(f"/console/find?{urlencode({'q': str(q)})}")
