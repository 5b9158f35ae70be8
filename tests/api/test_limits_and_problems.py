"""What the API refuses, and how it says so."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from api.bounds import LARGEST_BODY
from api.dependencies import next_cursor
from db.migrate import newest_revision
from tests.api.wishes import DEFAULTS, PREFERENCES
from tests.servers import free_port
from tests.stack import Stack, StackPlace, User, android, eventually, make_app, make_stack, uncommitted

NOT_JSON = {
    "type": "urn:fastbell:problem:invalid-request",
    "title": "Invalid request",
    "status": 422,
    "detail": "body: The body is not valid JSON.",
    "field": "body",
    "errors": [{"field": "body", "detail": "The body is not valid JSON."}],
}
TOO_LARGE = {
    "type": "urn:fastbell:problem:body-too-large",
    "title": "Body too large",
    "status": 413,
    "detail": "A body may have at most 65536 bytes.",
}
AWAY = {
    "type": "urn:fastbell:problem:unavailable",
    "title": "Temporarily unavailable",
    "status": 503,
    "detail": "The database cannot be reached. Try again: repeats are harmless.",
}


async def send(user: User, content: Any, *, content_type: str = "application/json") -> httpx.Response:
    """Replace the preferences with a body of these very bytes."""
    headers = user.headers | {"content-type": content_type}
    return await user.stack.http.put(PREFERENCES, content=content, headers=headers)


def is_problem(answer: httpx.Response, status: int, body: dict[str, Any]) -> None:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    assert answer.json() == body


async def test_a_body_at_the_limit_is_read_and_one_byte_more_is_not(alice: User) -> None:
    at_limit = b"{}".ljust(LARGEST_BODY)

    fits, too_large = await send(alice, at_limit), await send(alice, at_limit + b" ")

    assert fits.status_code == 200
    is_problem(too_large, 413, TOO_LARGE)


async def test_a_body_in_chunks_without_a_length_meets_the_same_limit(alice: User) -> None:
    async def chunks(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b" " * 1024

    fits, too_large = await send(alice, chunks(64)), await send(alice, chunks(65))

    is_problem(fits, 422, NOT_JSON)
    is_problem(too_large, 413, TOO_LARGE)


async def test_the_limit_holds_on_routes_that_take_no_body_before_anything_is_done(alice: User) -> None:
    session_id = await alice.start_fast(due_in=3600)
    path = f"/v1/fasting-sessions/{session_id}"

    answer = await alice.stack.http.post(f"{path}/end", content=b" " * (LARGEST_BODY + 1), headers=alice.headers)

    is_problem(answer, 413, TOO_LARGE)
    assert (await alice.call("GET", path)).json()["status"] == "active"


@pytest.mark.parametrize(
    "content",
    [b"{", b"", b'{"reminders": tru', b"\xff\xfe", b'{"reminder_minutes": [1' + b"0" * 5000 + b"]}", b"[" * 60_000],
    ids=["cut", "empty", "half a word", "not UTF-8", "a number without end", "a list without end"],
)
async def test_a_body_that_is_no_json_is_told_so(alice: User, content: bytes) -> None:
    answer = await send(alice, content)

    expected = NOT_JSON
    if not content:
        missing = {"detail": "body: Field required", "errors": [{"field": "body", "detail": "Field required"}]}
        expected = NOT_JSON | missing
    is_problem(answer, 422, expected)


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "nonsense"])
async def test_a_body_of_another_type_is_told_what_to_be(alice: User, content_type: str) -> None:
    answer = await send(alice, b'{"reminders": false}', content_type=content_type)

    assert answer.status_code == 422
    assert answer.json()["detail"] == "body: The body must be a JSON object, sent as application/json."
    assert (await alice.call("GET", PREFERENCES)).json() == DEFAULTS


@pytest.mark.parametrize("content", [b"[]", b"7", b"null", b'"text"'])
async def test_a_body_that_is_no_object_is_told_so(alice: User, content: bytes) -> None:
    answer = await send(alice, content)

    assert (answer.status_code, answer.json()["field"]) == (422, "body")


async def test_an_unknown_field_is_named(alice: User) -> None:
    answer = await send(alice, b'{"reminder": true}')

    is_problem(
        answer,
        422,
        {
            "type": "urn:fastbell:problem:invalid-request",
            "title": "Invalid request",
            "status": 422,
            "detail": "reminder: There is no such field.",
            "field": "reminder",
            "errors": [{"field": "reminder", "detail": "There is no such field."}],
        },
    )


@pytest.mark.parametrize("content", [rb'{"\ud800": 1}', rb'{"\u0000": 1}', rb'{"quiet_hours": {"\udfff": 1}}'], ids=str)
async def test_a_field_whose_name_is_no_text_is_refused(alice: User, content: bytes) -> None:
    answer = await send(alice, content)

    assert (answer.status_code, answer.json()["type"]) == (422, "urn:fastbell:problem:invalid-request")


async def test_every_wrong_field_is_named_up_to_twenty(alice: User) -> None:
    answer = await alice.call("PUT", PREFERENCES, {"reminders": 1} | {f"field{n}": n for n in range(50)})

    assert [error["field"] for error in answer.json()["errors"]][:3] == ["reminders", "field0", "field1"]
    assert len(answer.json()["errors"]) == 20


async def test_an_unknown_path_and_a_wrong_method_are_problems_too(alice: User) -> None:
    unknown = await alice.call("GET", "/v1/fasting-sessions/")
    wrong = await alice.call("DELETE", PREFERENCES)

    is_problem(
        unknown,
        404,
        {"type": "urn:fastbell:problem:not-found", "title": "Not found", "status": 404, "detail": "Not Found"},
    )
    is_problem(
        wrong,
        405,
        {
            "type": "urn:fastbell:problem:method-not-allowed",
            "title": "Method not allowed",
            "status": 405,
            "detail": "Method Not Allowed",
        },
    )


async def test_an_id_that_is_no_uuid_is_named(alice: User) -> None:
    answer = await alice.call("GET", "/v1/fasting-sessions/7")

    assert (answer.status_code, answer.json()["field"]) == (422, "session_id")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=many", "limit"),
        ("cursor=x", "cursor"),
        ("cursor=" + "x" * 201, "cursor"),
        ("cursor=%00", "cursor"),
        ("cursor=%ED%A0%80", "cursor"),
        ("cursor=e30=", "cursor"),  # {}
        ("cursor=WzEsMl0=", "cursor"),  # [1,2]
        # 0001-01-01T00:00:00+23:59, which no UTC instant can tell
        (
            "cursor=WyIwMDAxLTAxLTAxVDAwOjAwOjAwKzIzOjU5IiwgIjAwMDAwMDAwLTAwMDAtMDAwMC0wMDAwLTAwMDAwMDAwMDAwMCJd",
            "cursor",
        ),
    ],
)
@pytest.mark.parametrize("path", ["/v1/fasting-sessions", "/v1/device-tokens"])
async def test_a_page_that_cannot_be_is_refused(alice: User, path: str, query: str, field: str) -> None:
    answer = await alice.call("GET", f"{path}?{query}")

    assert (answer.status_code, answer.json()["field"]) == (422, field)


async def planned_task(api: Stack, user: User) -> UUID:
    """Give a user a push task."""
    phone = android()
    await user.register(phone)
    [device] = await api.rows("SELECT id FROM device_tokens WHERE user_id = :user", user=user.user_id)
    task_id = uuid4()
    async with api.sessions.begin() as db:
        await db.execute(
            text("""
                INSERT INTO push_tasks (task_id, kind, user_id, installation_id, device_id, provider, environment,
                    conversation_id, message_id, collapse_key, due_at, attempt_count, state, expires_at)
                VALUES (:id, 'reminder', :user, :installation, :device, 'fcm', 'production',
                    :id, :id, 'key', now(), 0, 'pending', now())
            """),
            {"id": task_id, "user": user.user_id, "installation": phone.installation_id, "device": device.id},
        )
    return task_id


async def test_a_tap_is_noted_once_and_only_for_the_person_it_was_addressed_to(
    api: Stack, alice: User, bob: User
) -> None:
    task_id = await planned_task(api, alice)
    path = f"/v1/push-tasks/{task_id}/opened"
    opened_at = "SELECT opened_at FROM push_tasks WHERE task_id = :id"

    his = await bob.call("POST", path)
    assert (his.status_code, his.json()["detail"]) == (404, "There is no such push task.")
    assert await api.rows(opened_at, id=task_id) == [(None,)]
    first = await alice.call("POST", path)
    noted = await api.rows(opened_at, id=task_id)
    second = await alice.call("POST", path)

    assert (first.status_code, first.content, second.status_code) == (204, b"", 204)
    assert noted[0].opened_at is not None
    assert await api.rows(opened_at, id=task_id) == noted


async def test_without_its_database_the_api_lives_is_not_ready_and_asks_to_try_again(detached: StackPlace) -> None:
    app = make_app(detached, DATABASE_URL=f"postgresql://nobody@127.0.0.1:{free_port()}/none")
    async with make_stack(detached, app) as stack:
        alive, ready = await stack.http.get("/livez"), await stack.http.get("/readyz")
        user = stack.user()
        answers = [
            await user.call("PUT", f"/v1/fasting-sessions/{uuid4()}", {"ends_at": "2099-01-01T00:00:00Z"}),
            await user.call("GET", "/v1/device-tokens"),
        ]

    assert (alive.status_code, ready.status_code, ready.json()) == (204, 503, {"database": False})
    for answer in answers:
        is_problem(answer, 503, AWAY)
        assert answer.headers["retry-after"] == "1"


async def test_a_database_that_accepts_and_never_answers_makes_the_api_not_ready_in_time(detached: StackPlace) -> None:
    held: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _, writer: held.append(writer), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    app = make_app(detached, DATABASE_URL=f"postgresql://nobody@127.0.0.1:{port}/none")

    async def was_reached() -> bool:
        return bool(held)

    async with make_stack(detached, app) as stack:
        await eventually(was_reached)  # the stream's listener has come, and waits for its own part
        others = len(held)

        began = time.monotonic()
        answers = await asyncio.gather(*(stack.http.get("/readyz") for _ in range(20)), stack.http.get("/livez"))

        looked, took = len(held) - others, time.monotonic() - began
    silent.close()
    for writer in held:
        writer.close()

    assert {(each.status_code, each.text) for each in answers[:-1]} == {
        (503, '{"database":false,"cause":"The database did not answer within 3 s."}')
    }
    assert answers[-1].status_code == 204
    # all of them by one connection; the other one is the listener's next, and more come later on a busy machine
    assert looked <= 2 + max(0, took - 4)


async def test_a_database_that_is_not_migrated_makes_the_api_not_ready(detached: StackPlace, postgres: str) -> None:
    app = make_app(detached, DATABASE_URL=postgres)
    async with make_stack(detached, app) as stack:
        ready = await stack.http.get("/readyz")

    cause = f"The database was never migrated, and this release needs {newest_revision()}: run `cli.py migrate`."
    assert (ready.status_code, ready.json()) == (503, {"database": False, "cause": cause})


async def test_the_api_is_ready_with_its_database_whatever_temporal_does(detached: StackPlace) -> None:
    app = make_app(detached)
    async with make_stack(detached, app) as stack:
        ready = await stack.http.get("/readyz")

    assert (ready.status_code, ready.json()) == (200, {"database": True})


BACKENDS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


async def test_a_database_that_ends_a_request_under_way_makes_it_try_again(api: Stack, alice: User) -> None:
    session_id = await alice.start_fast(due_in=3600)
    hold = "SELECT 1 FROM fasting_sessions WHERE id = :id FOR UPDATE"

    async with uncommitted(api, hold, id=session_id):
        ending = asyncio.create_task(alice.call("POST", f"/v1/fasting-sessions/{session_id}/end"))

        async def is_answered() -> bool:  # it may just have stopped waiting: then its next try is ended
            await api.rows(f"SELECT pg_terminate_backend(pid, 20000) {BACKENDS} AND wait_event_type = 'Lock'")
            return ending.done()

        await eventually(is_answered)
    answer = await ending

    is_problem(answer, 503, AWAY)
    assert (await alice.call("POST", f"/v1/fasting-sessions/{session_id}/end")).status_code == 200


async def test_a_database_that_was_restarted_costs_nobody_a_request(api: Stack, alice: User) -> None:
    await alice.call("GET", "/v1/device-tokens")
    await api.rows(f"SELECT pg_terminate_backend(pid, 20000) {BACKENDS} AND state = 'idle'")

    answer = await alice.call("GET", "/v1/device-tokens")

    assert answer.status_code == 200


async def test_an_error_of_ours_tells_nothing_of_itself(api: Stack, alice: User) -> None:
    broken = secrets.token_hex(4)
    async with api.sessions.begin() as db:
        await db.execute(text(f"ALTER TABLE preferences RENAME TO away_{broken}"))
    try:
        with capture_logs() as logged:
            answer = await alice.call("GET", PREFERENCES)
    finally:
        async with api.sessions.begin() as db:
            await db.execute(text(f"ALTER TABLE away_{broken} RENAME TO preferences"))

    is_problem(
        answer,
        500,
        {
            "type": "urn:fastbell:problem:internal-error",
            "title": "Internal error",
            "status": 500,
            "detail": "Something went wrong on our side.",
        },
    )
    [event] = [event for event in logged if event["log_level"] == "error"]
    assert (event["event"], event["route"]) == ("unexpected error", PREFERENCES)


async def test_a_cursor_of_ours_is_short_enough_to_be_accepted(alice: User) -> None:
    session = await alice.start_fast(due_in=3600)
    [started_at] = await alice.stack.rows("SELECT started_at FROM fasting_sessions WHERE id = :id", id=session)

    answer = await alice.call("GET", f"/v1/fasting-sessions?cursor={next_cursor(started_at[0], session)}")

    assert (answer.status_code, json.loads(answer.text)) == (200, {"items": [], "next_cursor": None})
