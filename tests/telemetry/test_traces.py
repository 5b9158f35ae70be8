"""One trace per reminder, message and redrive, from the request to the provider's answer."""

import json
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from simulator import Simulator
from tests.busy import ANSWERED_WITHIN
from tests.servers import Part, free_port, part
from tests.stack import SECRET, android, eventually, iphone, refuse_once
from tests.support.dead import dead_task, redrive, redriven
from tests.talk import conversation_of, handed_off, posted, tasks_of
from tests.telemetry.conftest import Traced


@pytest.fixture(scope="module", autouse=True)
async def worker(traced: Traced) -> AsyncIterator[Part]:
    """A worker process."""
    async with part(traced.environment(), "worker.py") as worker:
        await worker.says("worker ready")
        yield worker


async def test_a_reminder_is_one_trace_with_every_attempt_of_every_push(traced: Traced, simulator: Simulator) -> None:
    stack, user, phones = traced.stack, traced.stack.user(), [iphone(), android()]
    await user.register(*phones)
    refuse_once(simulator, phones[0])

    session_id = await user.start_fast(due_in=1.0)

    assert await stack.finished(session_id) == "accepted"
    task_ids = [task.task_id for task in await stack.tasks(session_id)]
    assert await traced.collector.tree(session_id, *task_ids, spans=10) == [
        "api: PUT /v1/fasting-sessions/{session_id}",
        "  api: dispatch fasting_session",
        "    worker: FastingReminder",
        "      worker: open_reminder attempt=1",
        "      worker: send_push attempt=1",
        "        worker: call fcm attempt=1 outcome=accepted",
        "      worker: send_push attempt=1 again_because=ServiceUnavailable",
        "        worker: call apns attempt=1 outcome=unavailable reason=ServiceUnavailable",
        "      worker: send_push attempt=2",
        "        worker: call apns attempt=2 outcome=accepted",
    ]


async def test_a_message_is_one_trace(traced: Traced) -> None:
    alice, bob, phones = traced.stack.user(), traced.stack.user(), [iphone(), android()]
    await bob.register(*phones)
    conversation_id = await conversation_of(alice, bob)

    message_id = await posted(alice, conversation_id)

    assert await handed_off(traced.stack, message_id) == "accepted"
    task_ids = [task.task_id for task in await tasks_of(traced.stack, message_id)]
    assert await traced.collector.tree(message_id, *task_ids, spans=8) == [
        "api: PUT /v1/conversations/{conversation_id}/messages/{message_id}",
        "  api: dispatch message",
        "    worker: MessageHandoff",
        "      worker: plan_handoff attempt=1",
        "      worker: send_push attempt=1",
        "        worker: call apns attempt=1 outcome=accepted",
        "      worker: send_push attempt=1",
        "        worker: call fcm attempt=1 outcome=accepted",
    ]


async def test_a_change_of_mind_is_a_trace_of_its_own_linked_to_the_reminders(traced: Traced) -> None:
    stack, user = traced.stack, traced.stack.user()
    session_id = await user.start_fast(due_in=600)
    await stack.started(session_id)

    await user.end(session_id)

    assert await stack.finished(session_id) == "session_ended"
    assert await eventually(lambda: _linked(traced, "FastingReminder end")) == "dispatch fasting_session"
    assert len({span.trace_id for span in traced.collector.about(session_id)}) == 1  # the signal is in the reminder's


async def test_what_another_process_dispatches_stays_in_the_requests_trace(traced: Traced) -> None:
    stack, alice, bob, phone = traced.stack, traced.stack.user(), traced.stack.user(), iphone()
    await bob.register(phone)
    conversation_id, message_id, port = await conversation_of(alice, bob), uuid4(), free_port()
    nowhere = traced.environment() | {"API_PORT": str(port), "TEMPORAL_ADDRESS": f"127.0.0.1:{free_port()}"}
    async with (
        part(nowhere, "-m", "api") as api,
        httpx.AsyncClient(headers=alice.headers, timeout=ANSWERED_WITHIN) as http,
    ):
        await api.answers(f"http://127.0.0.1:{port}/readyz")
        path = f"/v1/conversations/{conversation_id}/messages/{message_id}"
        answer = await http.put(f"http://127.0.0.1:{port}{path}", json={"body": "Hello"})
        await api.says("dispatch postponed")
        await eventually(lambda: _failed(traced, "dispatch message"))
        await traced.collector.tree(message_id, spans=2)  # with the request, which may end after that
        await api.end(signal.SIGKILL)
    async with stack.sessions.begin() as db:
        await db.execute(text("UPDATE outbox SET next_attempt_at = now()"))

    assert answer.status_code == 201
    [line] = [json.loads(line) for line in api.lines if "dispatch postponed" in line]
    assert (line["message_id"], line["request_id"]) == (str(message_id), answer.headers["X-Request-ID"])
    assert await handed_off(stack, message_id) == "accepted"
    [task] = await tasks_of(stack, message_id)
    assert await traced.collector.tree(message_id, task.task_id, spans=7) == [
        "api: PUT /v1/conversations/{conversation_id}/messages/{message_id}",
        "  api: dispatch message",  # in vain
        "  worker: dispatch message",
        "    worker: MessageHandoff",
        "      worker: plan_handoff attempt=1",
        "      worker: send_push attempt=1",
        "        worker: call apns attempt=1 outcome=accepted",
    ]


async def test_a_redrive_is_one_trace(traced: Traced) -> None:
    stack, alice, carol = traced.stack, traced.stack.user(), traced.stack.user(None, "support")
    [task_id] = await dead_task(alice, iphone())

    assert (await redrive(carol, task_id)).status_code == 202

    assert await redriven(stack, task_id) == ("accepted", None)
    assert await traced.collector.tree(task_id, spans=5) == [
        "api: POST /v1/support/push-tasks/{task_id}/redrive",
        "  worker: dispatch push_task",
        "    worker: Redrive",
        "      worker: send_push attempt=1",
        "        worker: call apns attempt=1 outcome=accepted",
    ]


async def test_what_a_phone_missed_is_in_the_trace_of_its_registration(traced: Traced) -> None:
    stack, alice, phone = traced.stack, traced.stack.user(), iphone()
    [task_id] = await dead_task(alice, phone, reason="Unregistered")
    async with stack.sessions.begin() as db:
        missed = text("UPDATE push_tasks SET state = 'unregistered' WHERE task_id = :id")
        await db.execute(missed, {"id": task_id})

    await alice.register(replace(iphone(), installation_id=phone.installation_id))

    assert await redriven(stack, task_id) == ("accepted", None)
    assert await traced.collector.tree(task_id, spans=5) == [
        "api: PUT /v1/device-tokens/{installation_id}",
        "  worker: dispatch push_task",
        "    worker: Redrive",
        "      worker: send_push attempt=1",
        "        worker: call apns attempt=1 outcome=accepted",
    ]


async def test_neither_spans_nor_log_lines_hold_a_token_a_text_or_a_credential(
    traced: Traced, simulator: Simulator, worker: Part
) -> None:
    stack, user, phones = traced.stack, traced.stack.user(), [iphone(), android()]
    await user.register(*phones)
    refuse_once(simulator, phones[0])
    simulator.faults.add(provider="apns", token=phones[0].token, fault="close", count=1)

    session_id = await user.start_fast(due_in=0.5)
    await stack.finished(session_id)
    message_id = await posted(user, await conversation_of(user, (other := stack.user())), "For your eyes only")
    await user.call("PUT", f"/v1/device-tokens/{phones[0].installation_id}?token={phones[1].token}", {"token": "no"})
    await handed_off(stack, message_id)
    await traced.collector.tree(message_id, spans=4)

    told = {"spans": b"".join(traced.collector.bodies).decode("latin-1"), "api": "".join(traced.api.lines)}
    told["worker"] = "".join(worker.lines)
    secrets = {"title": "Your fast is", "text": "For your eyes only", "secret": SECRET}
    secrets |= {phone.provider: phone.token for phone in phones} | {"user": user.user_id, "other": other.user_id}
    secrets["jwt"] = user.headers["Authorization"].removeprefix("Bearer ")
    for phone in phones:
        for request in simulator.requests.for_token(phone.token):
            secrets[f"jwt of {phone.provider}"] = request.raw_headers[b"authorization"].decode().split()[-1]
    assert len(secrets) == 10
    assert str(session_id) in told["spans"]
    assert [(name, where) for name, secret in secrets.items() for where, words in told.items() if secret in words] == []
    for span in traced.collector.spans:
        assert not span.otlp.events, span  # a recorded exception would be one
        assert not span.otlp.status.message, span


async def _linked(traced: Traced, name: str) -> str | None:
    """Give the name of what a span is linked to."""
    links = [link.span_id.hex() for span in traced.collector.spans if span.name == name for link in span.otlp.links]
    return next((span.name for span in traced.collector.spans if span.span_id in links), None)


async def _failed(traced: Traced, name: str) -> bool:
    return any(span.name == name and "error.type" in span.attributes for span in traced.collector.spans)
