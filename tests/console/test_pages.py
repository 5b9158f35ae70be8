"""What the pages say and do: the same figures as the API, every text harmless, every deed done once and on record."""

import re
from collections import Counter
from dataclasses import replace
from urllib.parse import urlencode
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from db import support_actions
from tests.console.visits import Visit, engage, visit, words
from tests.servers import free_port
from tests.stack import ROOT, Stack, User, android, eventually, iphone, make_app, make_stack, refuse_once
from tests.support.dead import dead_task, redriven, task
from tests.talk import conversation_of, handed_off, posted, tasks_of

HTML = """<script>alert(1)</script>"'><img src=x onerror=alert(1)>"""


def test_whatever_scrolls_can_be_reached_by_the_keyboard() -> None:
    templates = [path.read_text() for path in (ROOT / "api/console/templates").glob("*.html")]
    scrolling = [tag for template in templates for tag in re.findall(r'<[^>]*class="wide"[^>]*>', template)]

    assert len(scrolling) > 10
    assert [tag for tag in scrolling if 'tabindex="0"' not in tag or 'role="region"' not in tag] == []


async def test_markup_in_a_user_id_or_a_reason_is_shown_and_does_nothing(stack: Stack, carol: Visit) -> None:
    mallory = stack.user(f"{HTML}{uuid4()}")
    [task_id] = await dead_task(mallory, iphone(), reason=HTML)
    pages = [
        await carol.get(f"/console/person?{urlencode({'user': mallory.user_id})}"),
        await carol.get(f"/console/dead?{urlencode({'user_id': mallory.user_id, 'reason': HTML})}"),
        await carol.get(f"/console/dead/redrive?{urlencode({'user_id': mallory.user_id})}"),
        await carol.get(f"/console/push/{task_id}"),
        await carol.get("/console/analytics?days=2"),
        await (await visit(stack, mallory.user_id)).get("/console/person"),
        await carol.get(f"/console/dead?{urlencode({'due_from': HTML})}"),
        await stack.http.get(f"/console/sign-in?{urlencode({'next': HTML})}"),
    ]

    for page in pages:
        assert page.text.count("<script") == 1  # ours, which the policy names by its digest
        assert "<img" not in page.text
    assert [HTML in words(page) for page in pages[:4]] == [True] * 4
    async with stack.sessions.begin() as db:
        await db.execute(text("DELETE FROM push_tasks WHERE task_id = :id"), {"id": task_id})


@pytest.mark.parametrize("limit", ["9" * 5000, "10001", "0", "-1", "many"], ids=len)
async def test_a_redrive_of_no_number_or_too_many_is_refused(carol: Visit, limit: str) -> None:
    rehearsed = await carol.get(f"/console/dead/redrive?limit={limit}")
    redriven = await carol.post("/console/dead/redrive", {"limit": limit})

    assert [rehearsed.status_code, redriven.status_code] == [422, 422]
    assert "a number from 1 to 10000" in words(rehearsed)


async def test_an_overview_tells_what_needs_a_person(stack: Stack, carol: Visit, alice: User) -> None:
    await dead_task(alice, iphone())
    brake_id = await engage(stack, "app.seen.in.the.console")

    page = words(await carol.get("/console/"))

    assert "APNs · app.seen.in.the.console · sandbox is stopped by its token-error cutoff" in page
    assert "not expired yet. Check whether to redrive" in page
    assert "All is well" not in page
    assert "90 of 100 users had token errors" in page
    assert "Resume APNs · app.seen.in.the.console · sandbox" in page
    await carol.post(f"/console/brakes/{brake_id}/resume")


async def test_a_cutoff_is_resumed_once_and_it_is_noted_by_whom(stack: Stack, carol: Visit) -> None:
    brake_id = await engage(stack, "app.seen.in.the.console")

    first = await carol.post(f"/console/brakes/{brake_id}/resume")
    second = await carol.post(f"/console/brakes/{brake_id}/resume")

    assert (first.status_code, first.headers["location"]) == (303, "/console/?resumed")
    assert (second.status_code, f"{carol.user_id} has already resumed" in words(second)) == (409, True)
    async with stack.sessions() as db:
        [action] = await support_actions.about(db, brake_id)
    assert (action.actor, action.action) == (carol.user_id, "resume")


async def test_an_overview_says_so_when_temporal_cannot_be_reached(stack: Stack) -> None:
    away = replace(stack.place, temporal_address=f"127.0.0.1:{free_port()}")
    app = make_app(away)
    async with make_stack(away, app, lazy=True) as lonely:
        page = words(await (await visit(lonely)).get("/console/"))

    assert "Temporal cannot be reached" in page
    assert "The last hour" in page


async def test_a_persons_page_shows_phones_fasts_and_what_happened(stack: Stack, carol: Visit, alice: User) -> None:
    phone = iphone()
    await alice.register(phone, locale="de-AT", app_version="1.2", time_zone="GMT+02:00")
    session_id = await alice.start_fast(due_in=0.5)
    assert await stack.finished(session_id)

    page = await carol.get(f"/console/person?{urlencode({'user': alice.user_id})}")

    said = words(page)
    assert f"{str(phone.installation_id)[:8]} active" in said
    assert f"1.2 · de-AT · UTC+2 {phone.token[-6:]}" in said
    assert phone.token not in page.text
    assert f"{str(session_id)[:8]} active" in said
    assert "1 min before" in said
    assert "Apple accepted the reminder 1 minute before the end for the iPhone" in said
    only = words(await carol.get(f"/console/person?{urlencode({'user': alice.user_id, 'session_id': uuid4()})}"))
    assert "Nothing happened" in only


async def test_nobodys_page_says_that_nothing_is_known(carol: Visit) -> None:
    page = await carol.get(f"/console/person?user={uuid4()}")

    assert page.status_code == 200
    assert "no phone, no fast and no push of this user id" in words(page)


async def test_a_test_push_is_sent_and_its_fate_shown(stack: Stack, carol: Visit, alice: User) -> None:
    await alice.register(iphone(), android())

    sent = await carol.post("/console/test-push", {"user": alice.user_id, "installation_id": ""})

    assert sent.status_code == 303
    page = await _settled(carol, sent)
    assert words(page).count(" accepted ") >= 2
    assert 'http-equiv="refresh"' not in page.text
    [action] = await stack.rows(
        "SELECT * FROM support_actions WHERE actor = :a AND action = 'test_push'", a=carol.user_id
    )
    assert action.subject_kind == "test_push"


async def test_a_test_push_goes_to_nobodys_phone_but_the_persons(
    stack: Stack, carol: Visit, alice: User, bob: User
) -> None:
    phone = iphone()
    await bob.register(phone)
    await alice.register(iphone())

    for form, status in (
        ({"user": alice.user_id, "installation_id": str(phone.installation_id)}, 404),
        ({"user": alice.user_id, "installation_id": "nonsense"}, 422),
        ({"user": str(uuid4())}, 409),
        ({"user": "\0"}, 422),
        ({}, 422),
    ):
        assert (await carol.post("/console/test-push", form)).status_code == status, form
    assert not await stack.rows(
        "SELECT 1 FROM support_actions WHERE actor = :a AND action = 'test_push'", a=carol.user_id
    )


async def test_one_dead_push_is_redriven_by_its_page(stack: Stack, carol: Visit, alice: User) -> None:
    [task_id] = await dead_task(alice, iphone())
    before = words(await carol.get(f"/console/push/{task_id}"))

    answer = await carol.post(f"/console/push/{task_id}/redrive")
    again = await carol.post(f"/console/push/{task_id}/redrive")

    assert "Redrive this push" in before
    assert (answer.status_code, answer.headers["location"]) == (303, f"/console/push/{task_id}")
    assert again.status_code == 409
    assert await redriven(stack, task_id) == ("accepted", None)
    after = words(await carol.get(f"/console/push/{task_id}"))
    assert f"{carol.user_id} redrive" in after
    assert "Redrive this push" not in after


async def test_what_died_of_the_cutoff_blames_no_phone(stack: Stack, carol: Visit, alice: User) -> None:
    [task_id] = await dead_task(alice, iphone(), reason="BadDeviceToken")

    pages = [f"/console/push/{task_id}", f"/console/dead?user_id={alice.user_id}", "/console/analytics?days=2"]
    said = [(await carol.get(page)).text for page in pages]
    async with stack.sessions.begin() as db:
        await db.execute(text("DELETE FROM push_tasks WHERE task_id = :id"), {"id": task_id})

    assert ["This says nothing about the phone." in page for page in said] == [True, True, True]
    rows = [row for row in said.pop().split("<tr") if "BadDeviceToken" in row]  # others' pushes have other rows
    assert rows
    assert [text for text in (*said, *rows) if "the app was removed" in text] == []


async def test_what_was_said_of_a_token_before_a_redrive_is_reported_as_of_that_time(
    stack: Stack, carol: Visit, alice: User
) -> None:
    [task_id] = await dead_task(alice, iphone(), reason="BadDeviceToken")
    async with stack.sessions.begin() as db:
        refused = (
            "INSERT INTO push_attempts (attempt_id, task_id, number, started_at, outcome, reason, latency_ms)"
            " VALUES (gen_random_uuid(), :id, 1, now(), 'rejected', 'BadDeviceToken', 20)"
        )
        await db.execute(text(refused), {"id": task_id})
        await db.execute(text("UPDATE push_tasks SET attempt_count = 1 WHERE task_id = :id"), {"id": task_id})

    await carol.post(f"/console/push/{task_id}/redrive")
    waiting = words(await carol.get(f"/console/push/{task_id}"))
    assert await redriven(stack, task_id) == ("accepted", None)
    accepted = words(await carol.get(f"/console/push/{task_id}"))
    async with stack.sessions.begin() as db:
        await db.execute(text("DELETE FROM push_attempts WHERE task_id = :id AND number = 1"), {"id": task_id})

    assert "BadDeviceToken Apple refused the token at that time." in accepted
    assert [page for page in (waiting, accepted) if "the app was removed" in page] == []


async def test_the_time_that_a_stream_had_for_a_message_is_no_lateness_of_its_push(
    stack: Stack, carol: Visit, alice: User, bob: User
) -> None:
    await bob.register(iphone())
    message_id = await posted(alice, await conversation_of(alice, bob))
    await handed_off(stack, message_id)
    [push] = await tasks_of(stack, message_id)
    async with stack.sessions.begin() as db:
        late = (
            "UPDATE push_tasks SET again_at = due_at + interval '5 s', accepted_at = due_at + interval '6.5 s'"
            " WHERE task_id = :id"
        )
        await db.execute(text(late), {"id": push.task_id})

    said = words(await carol.get(f"/console/push/{push.task_id}")).replace("\u202f", " ")

    assert "1.5 s after it was due, without the time that an open stream had for it" in said


async def test_many_are_redriven_after_a_rehearsal_that_does_nothing(stack: Stack, carol: Visit, alice: User) -> None:
    task_ids = await dead_task(alice, iphone(), android())
    query = urlencode({"user_id": alice.user_id})

    listed = words(await carol.get(f"/console/dead?{query}"))
    rehearsal = words(await carol.get(f"/console/dead/redrive?{query}"))
    states = [(await task(stack, task_id)).state for task_id in task_ids]
    done = words(await carol.post("/console/dead/redrive", {"user_id": alice.user_id, "limit": "1"}))

    assert listed.count("possible") == 2
    assert "nothing has been done yet" in rehearsal
    assert "Redriven (all checks run again) 2" in rehearsal
    assert states == ["dead", "dead"]
    assert "Redriven 1" in done
    assert "The limit was reached" in done
    assert sorted([(await task(stack, task_id)).state == "dead" for task_id in task_ids]) == [False, True]


@pytest.mark.parametrize("form", [{"limit": "0"}, {"limit": "x"}, {"limit": "10001"}, {"kind": "x"}, {"unknown": "x"}])
async def test_a_redrive_by_a_form_that_cannot_be_does_nothing(carol: Visit, form: dict[str, str]) -> None:
    assert (await carol.post("/console/dead/redrive", {"user_id": "nobody", **form})).status_code == 422


async def test_dead_pushes_are_paged(stack: Stack, carol: Visit, alice: User) -> None:
    phones = [iphone() for _ in range(17)]
    for _ in range(3):
        await dead_task(alice, *phones)
    query = urlencode({"user_id": alice.user_id})

    first = await carol.get(f"/console/dead?{query}")
    [following] = [
        line for line in first.text.split('href="') if line.startswith("/console/dead?") and "cursor=" in line
    ]
    second = await carol.get(following.partition('"')[0].replace("&amp;", "&"))

    assert first.text.count('href="/console/push/') == 50
    assert second.text.count('href="/console/push/') == 1
    async with stack.sessions.begin() as db:
        await db.execute(text("DELETE FROM push_tasks WHERE user_id = :user"), {"user": alice.user_id})


async def test_analytics_count_what_happened_and_the_api_counts_the_same(stack: Stack, carol: Visit) -> None:
    app_id, user = f"app.{uuid4()}", stack.user()
    phones = [iphone(), iphone(), android()]
    refuse_once(stack.place.simulator, phones[0])
    await user.register(*phones)
    sessions = [await user.start_fast(due_in=0.3), await user.start_fast(due_in=0.3)]
    for session_id in sessions:
        await stack.finished(session_id)
    async with stack.sessions.begin() as db:  # told apart from all else that this stack sends
        move = "UPDATE push_tasks SET app_id = :app_id WHERE user_id = :user"
        await db.execute(text(move), {"app_id": app_id, "user": user.user_id})
    [opened] = await stack.rows(
        "SELECT task_id FROM push_tasks WHERE app_id = :a AND provider = 'fcm' LIMIT 1", a=app_id
    )
    await user.call("POST", f"/v1/push-tasks/{opened.task_id}/opened")

    supporter = stack.user(None, "support")
    told = (await supporter.call("GET", f"/v1/support/analytics?days=2&app_id={app_id}")).json()
    page = words(await carol.get(f"/console/analytics?days=2&app_id={app_id}"))

    counts = Counter[tuple[str, str]]()
    for item in told["items"]:  # of two days where midnight came meanwhile
        counts.update({(item["provider"], each): item[each] for each in ("pushes", "attempts", "accepted", "opened")})
    of_apns = {("apns", "pushes"): 4, ("apns", "attempts"): 5, ("apns", "accepted"): 4, ("apns", "opened"): 0}
    of_fcm = {("fcm", "pushes"): 2, ("fcm", "attempts"): 2, ("fcm", "accepted"): 2, ("fcm", "opened"): 1}
    assert dict(counts) == of_apns | of_fcm
    [error] = told["unaccepted"]
    assert (error["provider"], error["outcome"], error["reason"], error["count"]) == (
        "apns",
        "unavailable",
        "ServiceUnavailable",
        1,
    )
    assert told["fates"] == []
    assert told["next_cursor"] is None
    total = "Pushes due 6 0 withdrawn Send attempts 7 Accepted 100 % 6 of 6 not withdrawn Opened 16.7 % 1 of 6 accepted"
    assert total in page.replace("\u202f", " ")
    assert "ServiceUnavailable Apple answered that it is unavailable. 1 unavailable" in page


async def test_counting_walks_the_index_of_due_instants(stack: Stack) -> None:
    async with stack.sessions() as db:
        await db.execute(text("SET LOCAL enable_seqscan = off"))
        plan = "EXPLAIN SELECT count(*) FROM push_tasks t WHERE due_at >= now() - interval '1 day' AND due_at < now()"
        rows = (await db.execute(text(plan))).scalars().all()

    assert "ix_push_tasks_due_at" in " ".join(rows)


async def _settled(carol: Visit, sent: httpx.Response) -> httpx.Response:
    """Follow a test push until nothing more will come of it."""

    async def page() -> httpx.Response | None:
        answer = await carol.get(sent.headers["location"])
        return answer if "It is settled." in words(answer) else None

    settled: httpx.Response = await eventually(page)
    return settled
