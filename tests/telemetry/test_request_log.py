"""Each request has an id, a line in the log and, where tracing is on, a span."""

import json
import re
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI

from api.http import problems
from api.http.request_log import RequestLog
from simulator import Simulator
from tests.servers import part
from tests.stack import eventually, iphone
from tests.telemetry.conftest import Traced


async def logged(lines: list[str], **fields: object) -> dict[str, Any]:
    """Wait until a line with these fields is logged, and give it."""

    async def matching() -> dict[str, Any] | None:
        read = (json.loads(line) for line in lines if line.startswith("{"))
        return next((line for line in read if fields.items() <= line.items()), None)

    line: dict[str, Any] = await eventually(matching)
    return line


async def test_a_request_is_one_line_under_the_id_that_it_came_with(traced: Traced) -> None:
    user, request_id = traced.stack.user(), f"app-{uuid4()}"[:40]
    headers = {**user.headers, "X-Request-ID": request_id}

    answer = await traced.stack.http.get("/v1/fasting-sessions?limit=7", headers=headers)

    assert answer.headers.get_list("X-Request-ID") == [request_id]
    line = await logged(traced.api.lines, request_id=request_id)
    assert (line["event"], line["level"], line["method"], line["status"]) == ("request", "info", "GET", 200)
    assert line["route"] == "/v1/fasting-sessions"
    assert 0 < line["ms"] < 10_000
    found = await eventually(lambda: _span(traced, line["span_id"]))
    assert (found.name, found.trace_id) == ("GET /v1/fasting-sessions", line["trace_id"])
    assert found.attributes == {
        "http.request.method": "GET",
        "http.route": "/v1/fasting-sessions",
        "http.response.status_code": 200,
    }


@pytest.mark.parametrize(
    "given", ["", "short", "a" * 41, "with space in it", "new\tline-and-so-on", "<script>alert(1)"]
)
async def test_an_id_that_could_be_anything_is_not_taken(traced: Traced, given: str) -> None:
    answer = await traced.stack.http.get("/v1/fasting-sessions", headers={"X-Request-ID": given})

    [request_id] = answer.headers.get_list("X-Request-ID")
    assert request_id != given
    assert (await logged(traced.api.lines, request_id=request_id))["status"] == 401


async def test_a_path_that_leads_nowhere_is_not_repeated(traced: Traced) -> None:
    answer = await traced.stack.http.request("BREW", "/v1/coffee")

    line = await logged(traced.api.lines, request_id=answer.headers["X-Request-ID"])
    assert (line["method"], line["route"], line["status"]) == ("_OTHER", "unmatched", 404)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/fasting-sessions/{session_id}"),
        ("PUT", "/v1/conversations/{conversation_id}/messages/{message_id}"),
        ("POST", "/v1/push-tasks/{task_id}/opened"),
        ("DELETE", "/v1/device-tokens/{installation_id}"),
        ("GET", "/console/push/{task_id}"),
    ],
)
async def test_a_request_names_the_ids_in_its_path(traced: Traced, method: str, path: str) -> None:
    ids = {name: str(uuid4()) for name in re.findall(r"{(\w+)}", path)}
    headers = traced.stack.user().headers

    answer = await traced.stack.http.request(method, path.format(**ids), headers=headers)

    line = await logged(traced.api.lines, request_id=answer.headers["X-Request-ID"])
    assert line["route"] == path
    assert {name: line[name] for name in line if name.endswith("_id")} == ids | {
        name: line[name] for name in ("request_id", "trace_id", "span_id")
    }


async def test_what_is_no_id_is_not_repeated(traced: Traced) -> None:
    carol, token, person = traced.stack.user(None, "support"), "ab" * 32, f"person-{uuid4()}"
    paths = (f"/v1/fasting-sessions/{token}", f"/v1/support/users/{person}/timeline")

    answers = [await carol.call("GET", path) for path in paths]

    assert [answer.status_code for answer in answers] == [422, 200]
    for answer in answers:
        line = await logged(traced.api.lines, request_id=answer.headers["X-Request-ID"])
        assert not [word for word in (token, person) if word in str(line)]
        assert {name for name in line if name.endswith("_id")} == {"request_id", "trace_id", "span_id"}


async def test_a_body_that_is_too_large_is_logged_too(traced: Traced) -> None:
    answer = await traced.stack.http.put(f"/v1/fasting-sessions/{uuid4()}", content=b"a" * 70_000)

    line = await logged(traced.api.lines, request_id=answer.headers["X-Request-ID"])
    assert (line["route"], line["status"]) == ("unmatched", 413)


async def test_what_asks_for_health_is_not_logged(traced: Traced) -> None:
    answers = [await traced.stack.http.get(path) for path in ("/livez", "/readyz")]
    last = await traced.stack.http.get("/v1/fasting-sessions")

    await logged(traced.api.lines, request_id=last.headers["X-Request-ID"])
    for answer in answers:
        assert not [line for line in traced.api.lines if answer.headers["X-Request-ID"] in line]


async def test_an_error_that_nobody_expected_bears_the_requests_id() -> None:
    app = FastAPI()
    problems.install(app)
    app.add_middleware(RequestLog)

    @app.get("/fail")
    async def fail() -> None:
        raise ValueError("unexpected")

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as http:
        answer = await http.get("/fail", headers={"X-Request-ID": "request-1"})

    assert (answer.status_code, answer.headers["X-Request-ID"]) == (500, "request-1")


async def test_a_caller_who_traces_finds_us_below_its_own_span(traced: Traced) -> None:
    user, trace_id, span_id = traced.stack.user(), uuid4().hex, uuid4().hex[:16]
    headers = {**user.headers, "traceparent": f"00-{trace_id}-{span_id}-01"}

    await traced.stack.http.get("/v1/device-tokens", headers=headers)

    line = await logged(traced.api.lines, trace_id=trace_id)
    assert line["route"] == "/v1/device-tokens"
    assert (await eventually(lambda: _span(traced, line["span_id"]))).parent_id == span_id


async def test_a_sends_log_lines_name_what_they_are_about(traced: Traced, simulator: Simulator) -> None:
    stack, user, phone = traced.stack, traced.stack.user(), iphone()
    await user.register(phone)
    refused = {"status": 400, "reason": "BadPriority", "count": 1}
    simulator.faults.add(provider="apns", token=phone.token, fault="answer", **refused)
    async with part(traced.environment(), "worker.py") as worker:
        session_id = await user.start_fast(due_in=0.5)
        await stack.finished(session_id)
        [task] = await stack.tasks(session_id)

        line = await logged(worker.lines, event="provider rejected our push")

    about = {"session_id": str(session_id), "task_id": str(task.task_id), "attempt": 1, "activity": "send_push"}
    assert about.items() <= line.items()
    assert line["workflow_id"] == f"fasting-reminder/{session_id}"
    assert {"trace_id", "span_id"} <= line.keys()


async def _span(traced: Traced, span_id: str) -> Any:
    return next((span for span in traced.collector.spans if span.span_id == span_id), None)
