"""The API's document: what FastAPI knows of the routes, with words, examples and problem types added to it."""

import asyncio
import copy
import json
import re
import secrets
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute, iter_route_contexts

from api.bounds import BATCHES, LARGEST_BATCH
from api.dependencies import for_a_user
from api.document.examples import FOR_USER, PARAMETERS, filled, requests_of
from api.document.words import NAMES, VALUES
from api.http.problem_types import MEDIA_TYPE, PROBLEMS
from api.http.problems import ActForUser, Detail, Problem
from domain.problems import NotFound

Json = dict[str, Any]
UNKNOWN_FIELD = "colour"  # that no request has

SUMMARY = "Push notifications that stay boring."
DESCRIPTION = """\
Sends reminders of fasting sessions to every phone of a person, once and on time. The backend is the source of truth. A
push only asks the app to read it.

- **Who calls.** Each request has a bearer token: a JWT, or an API key of a backend. Its `sub` (of a key: its name) is
  the user, or the service that acts for users below `/v1/users/{user_id}/`.
- **Repeats.** The caller chooses the ids, which are UUIDs. So every request can be repeated.
- **Accepted** means stored. A 2xx comes after the commit, and what follows happens even if the API stops then.
- **Times** are UTC instants. A request may use any offset.
- **Problems** are `application/problem+json` (RFC 9457). Decide by `type`, which is `urn:fastbell:problem:` and a name
  that stays. Each status lists its types. Any request may also get 404 or 405 for an unknown path or method, 431 for a
  head that is too large, and 500.
- **Lists** are pages: send `next_cursor` as `cursor` until it is null.
- **New fields and values** may appear in answers. Ignore the ones that you do not know.
- **Examples** work when they are sent as they are, by the user `alice`: their times lie ahead of the moment at which
  you read this document, and their ids are new.
"""
TAGS: Mapping[str, str] = {
    "device tokens": "The phones of a user. The app registers after each sign-in and whenever its token changes.",
    "fasting sessions": "Start, move, end and cancel fasts. Each phone of the user gets the reminders.",
    "messages": "Conversations between users, and each user's log: all messages and reminders in one order.",
    "preferences": "Which pushes a user wants, and a hosted page on which the user chooses.",
    "people": "A person leaves, or asks what is held of them. For services.",
    "push tasks": "What the phone reports about a push.",
    "events": "What became of pushes, reminders and device tokens, in order. For backends.",
    "webhooks": "Addresses that are sent the events. For backends.",
    "support": "Why did a phone not buzz? For people with the scope `support`.",
    "operations": "Probes and metrics.",
}
THINGS: Mapping[str, str] = {  # what is not found, by the parameter that names it
    "session_id": "fasting session",
    "conversation_id": "conversation",
    "installation_id": "installation",
    "task_id": "push task",
    "test_push_id": "test push",
    "brake_id": "token-error cutoff",
    "webhook_id": "webhook",
    "erasure_id": "erasure",
}
DETAILS: Mapping[tuple[str, str], str] = {  # of one operation and problem type, where the table's example is not true
    ("send_test_push", "not-found"): str(NotFound("installation")),
    ("change_fasting_sessions", "body-too-large"): Detail.BODY_TOO_LARGE.format(most=LARGEST_BATCH),
    ("change_device_tokens", "body-too-large"): Detail.BODY_TOO_LARGE.format(most=LARGEST_BATCH),
}
_MARK = re.compile(r'"\\u0000(\d+)"')
_SENTENCE = re.compile(r"(.+?)\.(?:\s|$)", re.DOTALL)
_DONE = {"200": "Done.", "201": "Accepted.", "202": "Accepted. The rest follows.", "204": "Done. There is no body."}
_REPEATED = "Accepted before: this is a repeat."


def operation_id(route: APIRoute) -> str:
    """Name an operation after its function, in two words or more."""
    return route.name.removesuffix(FOR_USER) + FOR_USER if route.path.startswith("/v1/users/") else route.name


def install(app: FastAPI, public_url: str) -> None:
    """Serve the whole document, with new examples each time."""
    here = {"url": "/", "description": "The server that gives this document."}
    one_at_a_time = asyncio.Lock()

    @cache
    def template() -> Template:
        document = described(app, public_url)
        document["servers"].insert(0, here)
        return Template(document)

    async def serve(_: Request) -> Response:
        async with one_at_a_time:
            prepared = await asyncio.to_thread(template)  # the first time this takes about a second
        return Response(prepared.filled(), media_type="application/json")

    def openapi() -> Json:
        whole: Json = json.loads(template().filled())
        return whole

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way to extend the document
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", None) != app.openapi_url]
    app.add_route(app.openapi_url or "", serve, include_in_schema=False)


class Template:
    """A document as text between examples that are filled for each reader: nobody pays for another's reading."""

    def __init__(self, document: Json) -> None:
        self._examples: list[object] = []
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), default=self._mark)
        self._parts = _MARK.split(text)  # text, then the place of an example, and so on

    def filled(self) -> str:
        """Give the document with instants that lie ahead, and with ids that nobody else has."""
        now, salt = datetime.now(UTC), secrets.token_hex(8)
        values = [json.dumps(filled(each, now, salt)) for each in self._examples]
        return "".join(values[int(part)] if place % 2 else part for place, part in enumerate(self._parts))

    def _mark(self, example: object) -> str:
        self._examples.append(example)
        return f"\0{len(self._examples) - 1}"


def described(app: FastAPI, public_url: str) -> Json:
    """Describe the API. Its examples still have to be filled."""
    document = copy.deepcopy(FastAPI.openapi(app))
    document["servers"] = [{"url": public_url, "description": "The address in `PUBLIC_URL`."}]
    document["tags"] = [{"name": name, "description": words} for name, words in TAGS.items()]
    schemas = document["components"]["schemas"]
    definitions = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= definitions.pop("$defs") | {"Problem": definitions}
    for name, schema in schemas.items():
        _describe_schema(name, schema)
    matched = {route.path_format for route in iter_route_contexts(app.routes) if ":uuid}" in (route.path or "")}
    ids = {operation["operationId"] for _, operation in operations(document)}
    for path, operation in operations(document):
        _describe_operation(operation)
        if operation["operationId"].removesuffix(FOR_USER) in ids - {operation["operationId"]}:
            _describe_acting(operation)
        _show_problems(path, operation)
        _show_invalid_request(operation, schemas, is_matched=path in matched)
    return document


def operations(document: Json) -> Iterator[tuple[str, Json]]:
    """Give the path of each operation, and the operation."""
    for path, of_path in document["paths"].items():
        for operation in of_path.values():
            yield path, operation


def _describe_schema(name: str, schema: Json) -> None:
    for field, described in schema.get("properties", {}).items():
        words = NAMES.get(f"{name}.{field}", NAMES.get(field))
        if "description" not in described and words:
            described["description"] = words
    if values := VALUES.get(name):
        listed = [f"- `{value}`: {values[value]}" for value in schema["enum"] if value in values]
        schema["description"] = "\n".join([schema["description"], "", *listed])


def _describe_operation(operation: Json) -> None:
    sentence = _SENTENCE.match(operation.get("description", ""))
    if sentence:
        operation["summary"] = sentence[1].replace("\n", " ")
    for parameter in operation.get("parameters", []):
        name = parameter["name"]
        if "description" not in parameter and name in NAMES:
            parameter["description"] = NAMES[name]
        if name in PARAMETERS and parameter.get("required"):
            parameter["example"] = PARAMETERS[name]
    if body := operation.get("requestBody"):
        examples = {name: {"value": value} for name, value in requests_of(operation["operationId"]).items()}
        body["content"]["application/json"]["examples"] = examples
    for status, response in operation["responses"].items():
        if status in _DONE and response["description"] in {"Successful Response", "OK"}:
            is_repeat = status == "200" and "201" in operation["responses"]
            response["description"] = _REPEATED if is_repeat else _DONE[status]


def _describe_acting(operation: Json) -> None:
    """Say of an operation for users that a service does it for one."""
    for part in ("summary", "description"):
        operation[part] = re.sub(r"\bcaller\b(?! chooses)", "user", operation[part])
    if "user" not in operation["summary"]:
        operation["summary"] += ", for a user"


def _show_problems(path: str, operation: Json) -> None:
    """Make the examples of general problems those of this operation."""
    names = [each["name"] for each in operation.get("parameters", []) if each.get("required")]
    thing = next((THINGS[name] for name in names if name in THINGS), None)
    scopes = [scope for each in operation.get("security", []) for scopes in each.values() for scope in scopes]
    details = {
        "not-found": str(NotFound(thing)) if thing else "Not Found",
        "act-for-a-user": str(ActForUser(for_a_user(path))),
    }
    if path in BATCHES:
        details["body-too-large"] = Detail.BODY_TOO_LARGE.format(most=LARGEST_BATCH)
    if scopes:
        details["not-allowed"] = Detail.NEEDS_SCOPE.format(scope=scopes[0])
    for response in operation["responses"].values():
        for name, example in response.get("content", {}).get(MEDIA_TYPE, {}).get("examples", {}).items():
            own = DETAILS.get((operation["operationId"].removesuffix(FOR_USER), name), details.get(name))
            if own is not None:
                example["value"]["detail"] = own


def _show_invalid_request(operation: Json, schemas: Json, *, is_matched: bool) -> None:
    """Show what is answered to a typical mistake; an operation in which nothing can be wrong has no such answer."""
    content = operation["responses"].get("422", {}).get("content", {}).get(MEDIA_TYPE)
    if content is None:
        return
    mistake = _in_body(operation, schemas) or _in_parameters(operation, is_matched=is_matched)
    if mistake is None:
        del operation["responses"]["422"]
        return
    field, detail = mistake
    errors = [{"field": field, "detail": detail}]
    example = PROBLEMS["invalid-request"].example(detail=f"{field}: {detail}", field=field, errors=errors)
    content["examples"]["invalid-request"]["value"] = example


def _in_body(operation: Json, schemas: Json) -> tuple[str, str] | None:
    """Leave out the first field that is required, else add one that is unknown."""
    if "requestBody" not in operation:
        return None
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    named = schema.get("$ref") or schema["anyOf"][0]["$ref"]
    required = schemas[named.rsplit("/", 1)[1]].get("required")
    return (required[0], Detail.FIELD_REQUIRED) if required else (UNKNOWN_FIELD, Detail.UNKNOWN_FIELD)


def _in_parameters(operation: Json, *, is_matched: bool) -> tuple[str, str] | None:
    """Leave out the first parameter that is required, else give one a value that it cannot have."""
    for parameter in operation.get("parameters", []):
        name, schema = parameter["name"], parameter["schema"]
        if parameter["in"] == "query" and parameter.get("required"):
            return name, Detail.FIELD_REQUIRED
        if parameter["in"] == "path" and schema.get("format") == "uuid" and not is_matched:
            return name, "Input should be a valid UUID, invalid length: found 1"
        if "minimum" in schema:
            return name, f"Input should be greater than or equal to {schema['minimum']:g}"
        if parameter["in"] == "path" and "maxLength" in schema:
            return name, f"String should have at most {schema['maxLength']} characters"
    return None
