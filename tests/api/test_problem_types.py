"""What the document says of operations is what they do: each example request works, each problem type is provoked."""

import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from api.bounds import BATCHES, LARGEST_BATCH, LARGEST_BODY
from api.document import UNKNOWN_FIELD
from api.document.examples import FOR_USER
from api.http.auth import Caller
from api.http.problem_types import PROBLEMS
from api.http.problems import Detail, problem
from api.http.rates import RunningRequests
from db import log
from domain.problems import LimitReached
from tests.api.operations import Operation, Shapes, operations
from tests.api.test_limits_and_problems import planned_task
from tests.erasure.leaving import all_done
from tests.servers import free_port
from tests.stack import Stack, StackPlace, User, bearer, iphone, make_app, make_stack
from tests.support.dead import dead_task
from tests.talk import conversation_of, post, posted

FIRST = ("PUT", "PATCH", "POST", "GET", "DELETE")  # what makes things comes before what reads or ends them
ENDLESS = {"stream_log"}
OTHERS_IDS = {"task_id", "test_push_id", "brake_id", "erasure_id"}  # that answers give, so there is no example
DIGITS = re.compile(r"\d+")


async def read_document(api: Stack) -> tuple[dict[str, Any], list[Operation]]:
    """Read the document as anybody does."""
    document = (await api.http.get("/openapi.json")).json()
    return document, sorted(operations(document), key=lambda each: (FIRST.index(each.method), len(each.path)))


async def call(
    api: Stack, each: Operation, address: str, scopes: list[str] | None = None, **what: Any
) -> httpx.Response:
    """Call an operation as alice with these scopes, by default with those that it needs."""
    wanted = each.scopes if scopes is None else scopes
    headers = {} if wanted is None else {"Authorization": f"Bearer {bearer('alice', *wanted)}"}
    return await api.http.request(each.method, address, headers=headers, **what)


def filled(each: Operation) -> dict[str, str]:
    """Give every parameter that is required a value: its example, or the id of nothing."""
    required = [parameter for parameter in each.parameters if parameter.get("required")]
    return {parameter["name"]: parameter.get("example", str(uuid4())) for parameter in required}


def an_example(each: Operation) -> Any:
    """Give the first example of its body, if it takes one."""
    return next(iter(each.examples.values()), None)


async def test_requests_work_when_their_examples_are_sent_as_they_are(api: Stack) -> None:
    document, found = await read_document(api)
    shapes = Shapes(document)
    unexpected: list[tuple[object, ...]] = []
    sent = 0
    for each in found:
        if each.id in ENDLESS or OTHERS_IDS & filled(each).keys():
            continue
        for what in [{"json": body} for body in each.examples.values()] or [{}]:
            answer = await call(api, each, each.address, **what)
            sent += 1
            is_cancel = each.id.removesuffix(FOR_USER) == "cancel_fasting_session"
            is_repeated = answer.status_code == 409 and is_cancel  # it has just been ended
            refused = [result for result in _results(each, answer) if result["status"] >= 400]
            if (answer.status_code not in each.statuses or refused) and not is_repeated:
                unexpected.append((each.id, what, answer.status_code, answer.text))
            elif (schema := _answered_with(each, answer)) is not None and not shapes.fit(schema, answer.json()):
                unexpected.append((each.id, "answer", answer.status_code, answer.text))

    await all_done(api)  # so that alice may write again
    assert unexpected == []
    assert sent > 30


def _results(each: Operation, answer: httpx.Response) -> list[dict[str, Any]]:
    """Give what came of each item of a batch."""
    return list(answer.json()["items"]) if each.path.endswith("/batch") and answer.status_code == 200 else []


def _answered_with(each: Operation, answer: httpx.Response) -> dict[str, Any] | None:
    content = each.told["responses"].get(str(answer.status_code), {}).get("content", {})
    if answer.headers.get("content-type") == "application/x-ndjson":
        return None  # each line is JSON, the answer is not
    schema: dict[str, Any] | None = content.get(answer.headers.get("content-type"), {}).get("schema")
    return schema


async def test_what_any_operation_may_answer_is_answered_as_its_examples_say(api: Stack) -> None:
    _, found = await read_document(api)
    wrong = []
    for each in found:
        examples = each.problems
        for name, mistake in MISTAKES.items():
            if name in examples and each.id not in ENDLESS:
                answer = await mistake(api, each)
                if answer is not None and (answer.status_code, answer.json()) != (
                    examples[name]["status"],
                    examples[name],
                ):
                    wrong.append((each.id, name, answer.status_code, answer.text, examples[name]))

    assert wrong == []


async def _without_token(api: Stack, each: Operation) -> httpx.Response:
    return await api.http.request(each.method, each.path.format_map(filled(each)), json=an_example(each))


async def _without_scope(api: Stack, each: Operation) -> httpx.Response:
    return await call(api, each, each.at(filled(each)), [], json=an_example(each))


async def _by_a_service(api: Stack, each: Operation) -> httpx.Response:
    return await call(api, each, each.at(filled(each)), ["service"], json=an_example(each))


async def _of_nothing(api: Stack, each: Operation) -> httpx.Response | None:
    missing = {name: value if name == "user_id" else str(uuid4()) for name, value in filled(each).items()}
    if each.told["responses"].keys() & {"201"} and "session_id" in missing:
        return None  # it would be started
    body = an_example(each)
    if each.id.startswith("send_test_push"):
        body = {"installation_id": str(uuid4())}
    elif missing.keys() == {"user_id"} and each.path.startswith("/v1/support/"):
        missing = {"user_id": "two%0Alines"}  # which no user's id has
    answer = await call(api, each, each.at(missing), json=body)
    return None if answer.status_code in each.statuses else answer  # an installation that is new may sync


async def _too_large(api: Stack, each: Operation) -> httpx.Response:
    most = LARGEST_BATCH if each.path in BATCHES else LARGEST_BODY
    return await call(api, each, each.at(filled(each)), content=b" " * (most + 1))


async def _invalid(api: Stack, each: Operation) -> httpx.Response:
    values, example = filled(each), each.problems["invalid-request"]
    field, detail = example["field"], example["errors"][0]["detail"]
    if each.body is not None:
        body = (
            an_example(each) | {UNKNOWN_FIELD: "red"} if field == UNKNOWN_FIELD else _without(an_example(each), field)
        )
        return await call(api, each, each.at(values), json=body)
    if detail == Detail.FIELD_REQUIRED:
        return await call(api, each, each.at(_without(values, field)))
    number = re.search(r"than or equal to (\d+)", detail)
    values[field] = str(int(number[1]) - 1) if number else "7" if "UUID" in detail else "x" * 201
    return await call(api, each, each.at(values))


def _without(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}


MISTAKES: Mapping[str, Callable[[Stack, Operation], Awaitable[httpx.Response | None]]] = {
    "not-signed-in": _without_token,
    "not-allowed": _without_scope,
    "act-for-a-user": _by_a_service,
    "not-found": _of_nothing,
    "body-too-large": _too_large,
    "invalid-request": _invalid,
}


class Provoking:
    """How each special type is provoked; a method's name is the type's, and gives the operation's id and the answer."""

    def __init__(self, api: Stack, place: StackPlace) -> None:
        self.api, self.place = api, place
        self.user, self.bob = api.user(), api.user()

    async def session_exists(self) -> tuple[str, httpx.Response]:
        """Start another fast under the same id."""
        path = f"/v1/fasting-sessions/{await self.user.start_fast(due_in=3600)}"
        return "start_fasting_session", await self.user.call("PUT", path, await self._ends_at())

    async def session_finished(self) -> tuple[str, httpx.Response]:
        """End a fast that was cancelled."""
        session_id = await self.user.start_fast(due_in=3600)
        await self.user.cancel(session_id)
        return "end_fasting_session", await self.user.call("POST", f"/v1/fasting-sessions/{session_id}/end")

    async def too_many_active_fasts(self) -> tuple[str, httpx.Response]:
        """Start one more than is allowed."""
        async with make_stack(self.place, make_app(self.place, MAX_ACTIVE_FASTS_PER_USER="1")) as strict:
            user = strict.user()
            await user.start_fast(due_in=3600)
            path = f"/v1/fasting-sessions/{uuid4()}"
            return "start_fasting_session", await user.call("PUT", path, await self._ends_at())

    async def installation_taken(self) -> tuple[str, httpx.Response]:
        """Register where somebody else is signed in, with neither their token nor their ticket."""
        phone, ticket = iphone(), "alice's ticket, 32 characters at least"
        await self.user.register(phone, sign_out_digest=hashlib.sha256(ticket.encode()).hexdigest())
        return "register_device_token", await self._register(self.bob, phone.installation_id)

    async def ticket_spent(self) -> tuple[str, httpx.Response]:
        """Register with a ticket that has signed out."""
        installation_id, ticket = uuid4(), "alice's ticket, 32 characters at least"
        spent = {"installation_id": str(installation_id), "ticket": ticket}
        assert (await self.api.http.post("/v1/sign-outs", json=spent)).status_code == 204
        digest = hashlib.sha256(ticket.encode()).hexdigest()
        return "register_device_token", await self._register(self.user, installation_id, sign_out_digest=digest)

    async def registration_outdated(self) -> tuple[str, httpx.Response]:
        """Register with a lower number than before."""
        phone, digest = iphone(), hashlib.sha256(b"alice's ticket, 32 characters at least").hexdigest()
        body = {"sign_out_digest": digest, "sequence": 2}
        assert (await self._register(self.user, phone.installation_id, **body)).status_code == 200
        late = await self._register(self.user, phone.installation_id, **body | {"sequence": 1})
        return "register_device_token", late

    async def installation_inactive(self) -> tuple[str, httpx.Response]:
        """Sync on a phone that is signed out."""
        phone = iphone()
        await self.user.register(phone)
        await self.user.call("DELETE", f"/v1/device-tokens/{phone.installation_id}")
        return "sync_log", await self.user.call("GET", f"/v1/sync?installation_id={phone.installation_id}")

    async def message_exists(self) -> tuple[str, httpx.Response]:
        """Post something else under the same id."""
        conversation_id = await conversation_of(self.user)
        message_id = await posted(self.user, conversation_id)
        return "post_message", await post(self.user, conversation_id, "Something else", message_id)

    async def too_many_messages(self) -> tuple[str, httpx.Response]:
        """Post one more than a burst has."""
        async with make_stack(self.place, make_app(self.place, MESSAGE_BURST="1", MESSAGE_RATE="1/minute")) as strict:
            user = strict.user()
            conversation_id = await conversation_of(user)
            await posted(user, conversation_id)
            return "post_message", await post(user, conversation_id, "One more")

    async def being_erased(self) -> tuple[str, httpx.Response]:
        """Write while one is being erased."""
        erased = await self.api.user("backend", "service").call("DELETE", f"/v1/users/{self.user.user_id}")
        assert erased.status_code == 202
        return "make_preference_link", await self.user.call("POST", "/v1/preference-links")

    async def no_active_token(self) -> tuple[str, httpx.Response]:
        """Test the phones of somebody who has none."""
        path = f"/v1/support/users/{self.user.user_id}/test-push"
        return "send_test_push", await self._supporter().call("POST", path, {})

    async def push_not_dead(self) -> tuple[str, httpx.Response]:
        """Redrive a push task that is pending."""
        task_id = await planned_task(self.api, self.user)
        return "redrive_push_task", await self._supporter().call("POST", f"/v1/support/push-tasks/{task_id}/redrive")

    async def redrive_refused(self) -> tuple[str, httpx.Response]:
        """Redrive a push task that has expired."""
        [task_id] = await dead_task(self.user, iphone())
        expired = "UPDATE push_tasks SET expires_at = now() - interval '1 second' WHERE task_id = :id"
        await self._execute(expired, id=task_id)
        return "redrive_push_task", await self._supporter().call("POST", f"/v1/support/push-tasks/{task_id}/redrive")

    async def brake_resumed(self) -> tuple[str, httpx.Response]:
        """Resume a route that carol has resumed."""
        brake_id = uuid4()
        resumed = (
            "INSERT INTO brakes (id, provider, environment, reason, token_errors, answers, resumed_at, resumed_by)"
            " VALUES (:id, 'apns', 'production', 'BadDeviceToken', 9, 10, now(), 'carol')"
        )
        await self._execute(resumed, id=brake_id)
        return "resume_brake", await self._supporter().call("POST", f"/v1/support/brakes/{brake_id}/resume")

    async def cursor_too_old(self) -> tuple[str, httpx.Response]:
        """Continue after what retention has deleted."""
        conversation_id = await conversation_of(self.user)
        for _ in range(3):
            await posted(self.user, conversation_id)
        async with self.api.sessions.begin() as db:
            await log.purge(db, self.user.user_id, until=2)
        return "sync_log", await self.user.call("GET", f"/v1/sync?installation_id={uuid4()}&after=1")

    async def event_cursor_too_old(self) -> tuple[str, httpx.Response]:
        """Continue after what retention has deleted."""
        await self._execute("UPDATE event_feed SET head = head + 9, horizon = head + 7")
        return "list_events", await self._backend().call("GET", "/v1/events?after=1")

    async def too_many_webhooks(self) -> tuple[str, httpx.Response]:
        """Store one more than is allowed."""
        ids = [str(uuid4()) for _ in range(50)]
        many = "INSERT INTO webhooks (id, url, secret, position) SELECT unnest(CAST(:ids AS uuid[])), 'x', 'x', 0"
        await self._execute(many, ids=ids)
        try:
            answer = await self._backend().call(
                "PUT", f"/v1/webhooks/{uuid4()}", {"url": "https://backend.example.com/"}
            )
        finally:
            await self._execute("DELETE FROM webhooks WHERE id = ANY(CAST(:ids AS uuid[]))", ids=ids)
        return "put_webhook", answer

    async def webhook_disabled(self) -> tuple[str, httpx.Response]:
        """Test what a receiver's 410 has disabled."""
        path = f"/v1/webhooks/{uuid4()}"
        stored = await self._backend().call("PUT", path, {"url": "https://backend.example.com/"})
        await self._execute("UPDATE webhooks SET disabled_at = now() WHERE id = :id", id=stored.json()["id"])
        answer = await self._backend().call("POST", f"{path}/test")
        assert (await self._backend().call("DELETE", path)).status_code == 204
        return "send_test_event", answer

    async def preferences_changed(self) -> tuple[str, httpx.Response]:
        """Change what was read before somebody else changed it."""
        path = "/v1/notification-preferences"
        assert (await self.user.call("PATCH", path, {"messages": False})).status_code == 200
        headers = self.user.headers | {"If-Match": '"0"'}
        answer = await self.api.http.patch(path, json={"messages": True}, headers=headers)
        return "change_preferences", answer

    async def too_many_requests(self) -> tuple[str, httpx.Response]:
        """Ask again."""
        async with make_stack(self.place, make_app(self.place, RATE_LIMIT="1/minute")) as strict:
            user = strict.user()
            await user.call("GET", "/v1/device-tokens")
            return "list_device_tokens", await user.call("GET", "/v1/device-tokens")

    async def too_many_concurrent_requests(self) -> tuple[str, httpx.Response]:
        """Ask while as many as are allowed run; without a server, where one would wait two seconds."""
        caller = Caller(self.user.user_id, frozenset(), datetime.max.replace(tzinfo=UTC))
        running = RunningRequests(8, None, wait=0.01)
        for _ in range(8):
            await running.enter(caller)
        with pytest.raises(LimitReached) as refused:
            await running.enter(caller)
        answer = problem(429, refused.value.code, str(refused.value))
        return "list_device_tokens", httpx.Response(answer.status_code, content=bytes(answer.body))

    async def unavailable(self) -> tuple[str, httpx.Response]:
        """Ask while the database is away."""
        address = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
        async with make_stack(self.place, make_app(self.place, DATABASE_URL=address)) as away:
            return "list_device_tokens", await away.user().call("GET", "/v1/device-tokens")

    def _backend(self) -> User:
        return self.api.user("backend", "service")

    def _supporter(self) -> User:
        return self.api.user(None, "support")

    async def _ends_at(self) -> dict[str, str]:
        _, found = await read_document(self.api)
        body: dict[str, str] = an_example(next(each for each in found if each.id == "start_fasting_session"))
        return body

    async def _register(self, user: User, installation_id: UUID, **more: object) -> httpx.Response:
        body = {"provider": "apns", "token": iphone().token, **more}
        return await user.call("PUT", f"/v1/device-tokens/{installation_id}", body)

    async def _execute(self, statement: str, **values: object) -> None:
        async with self.api.sessions.begin() as db:
            await db.execute(text(statement), values)


@pytest.mark.parametrize("name", [name for name in PROBLEMS if name not in MISTAKES])
async def test_a_problem_type_is_answered_as_its_example_says(api: Stack, detached: StackPlace, name: str) -> None:
    where, answer = await getattr(Provoking(api, detached), name.replace("-", "_"))()

    _, found = await read_document(api)
    documented = next(each for each in found if each.id == where).problems[name]
    assert _without_digits(answer.json()) == _without_digits(documented)


def _without_digits(content: object) -> object:
    return json.loads(DIGITS.sub("9", json.dumps(content)))
