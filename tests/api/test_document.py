"""The document that clients are generated from: current, and complete in names, words, examples and problem types."""

import ast
import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from api.app import create_app
from api.document import TAGS
from api.document.examples import FOR_USER, REQUESTS, Ahead, NewId, filled
from api.document.words import NAMES, VALUES
from api.http.problem_types import MEDIA_TYPE, PROBLEMS, URN, responses
from settings.environment import auth_settings, service_settings
from tests.api.document import PATH, document
from tests.api.operations import Shapes, operations
from tests.stack import SECRET

ROOT = Path(__file__).parents[2]
OPERATION_ID = re.compile(r"[a-z]+(_[a-z]+)+")
CODED = re.compile(r"\b(Conflict|Outdated|problem)\(|\bcode ?=|\bEXPECTED\b")  # what may name a problem type
BEFORE_ANY_ROUTE = {
    "not-http",
    "head-too-large",
    "internal-error",
    "outdated",
    "conflict",
}  # `info` names the first three


@pytest.fixture(scope="module")
def app() -> FastAPI:
    """An API that is not served."""
    environment = {"DATABASE_URL": "postgresql://localhost/any", "AUTH_JWT_SECRET": SECRET}
    return create_app(service_settings(environment), auth_settings(environment))


@pytest.fixture(scope="module")
def served(app: FastAPI) -> dict[str, Any]:
    """The document as a reader gets it."""
    return app.openapi()


def test_the_document_in_docs_is_the_one_that_the_api_gives() -> None:
    assert PATH.read_text() == document(), "run `make openapi`"


def test_every_operation_has_a_speaking_id_a_summary_a_description_and_a_described_tag(served: dict[str, Any]) -> None:
    tags = {tag["name"] for tag in served["tags"] if tag["description"]}
    found = list(operations(served))

    assert len(found) >= 35
    assert [each.id for each in found if not OPERATION_ID.fullmatch(each.id)] == []
    assert [name for name, count in Counter(each.id for each in found).items() if count > 1] == []
    assert [each.id for each in found if each.path.startswith("/v1/users/") != each.id.endswith(FOR_USER)] == []
    assert [each.id for each in found if each.told["summary"].lower().replace(" ", "_") == each.id] == []
    assert [each.id for each in found if not each.told.get("description") or len(each.told["summary"]) > 120] == []
    assert [each.id for each in found if not each.told.get("tags") or not set(each.told["tags"]) <= tags] == []
    assert set(TAGS) == {tag for each in found for tag in each.told["tags"]}


def test_every_field_parameter_and_value_is_described(served: dict[str, Any]) -> None:
    schemas = served["components"]["schemas"]
    fields = [(f"{name}.{field}", told) for name, schema in schemas.items() for field, told in _properties(schema)]
    parameters = [(f"{each.id}: {told['name']}", told) for each in operations(served) for told in each.parameters]
    values = [(f"{name}: {value}", schema) for name, schema in schemas.items() for value in schema.get("enum", ())]

    assert len(fields) > 250
    assert [name for name, told in [*fields, *parameters] if not told.get("description")] == []
    assert [name for name, told in values if f"- `{name.split(': ')[1]}`: " not in told["description"]] == []
    assert [name for name, schema in schemas.items() if not schema.get("description")] == []


def test_no_word_is_left_for_what_is_gone(served: dict[str, Any]) -> None:
    schemas = served["components"]["schemas"]
    named = {field for schema in schemas.values() for field, _ in _properties(schema)}
    named |= {told["name"] for each in operations(served) for told in each.parameters}
    qualified = {f"{name}.{field}" for name, schema in schemas.items() for field, _ in _properties(schema)}
    values = {(name, value) for name, schema in schemas.items() for value in schema.get("enum", ())}
    ids = {each.id for each in operations(served)}

    assert NAMES.keys() - named - qualified == set()
    assert {(name, value) for name, of_name in VALUES.items() for value in of_name} - values == set()
    assert {name for name in REQUESTS if name not in ids and name + FOR_USER not in ids} == set()


def test_every_problem_is_listed_by_type_with_an_example_that_fits_the_schema(served: dict[str, Any]) -> None:
    missing, wrong, shapes = [], [], Shapes(served)
    for each in operations(served):
        for status, response in each.told["responses"].items():
            content = response.get("content", {}).get(MEDIA_TYPE)
            if int(status) < 400 or each.path == "/readyz":
                continue
            examples = content and content.get("examples")
            if not examples:
                missing.append((each.id, status))
                continue
            for name, example in examples.items():
                told = example["value"]
                is_its_own = (told["type"], told["status"]) == (URN + name, int(status))
                if not is_its_own or not shapes.fit("Problem", told) or f"- `{name}`: " not in response["description"]:
                    wrong.append((each.id, status, name))

    assert (missing, wrong) == ([], []), "name the types: responses('not-found', …)"


def test_every_problem_type_is_answered_by_some_operation(served: dict[str, Any]) -> None:
    assert {name for each in operations(served) for name in each.problems} == set(PROBLEMS)


def test_every_problem_type_that_the_code_names_is_in_the_table() -> None:
    texts = {path: path.read_text() for path in _product()}
    named = {name: path.name for path in texts if CODED.search(texts[path]) for name in _codes(ast.parse(texts[path]))}

    assert len(named) > 12
    assert {name: path for name, path in named.items() if name not in PROBLEMS}.keys() <= BEFORE_ANY_ROUTE
    assert set(PROBLEMS) - named.keys() == set()


def test_a_problem_type_that_is_in_no_table_or_a_status_with_several_is_not_documented_by_chance() -> None:
    with pytest.raises(AssertionError, match="no-such-type"):
        responses("no-such-type")
    assert responses(409)[409]["content"][MEDIA_TYPE]["examples"] == {}
    assert responses(404) == responses("not-found")


def test_every_request_has_examples_that_fit_its_schema_and_differ_for_each_reader(
    app: FastAPI, served: dict[str, Any]
) -> None:
    again = {each.id: each for each in operations(app.openapi())}
    shapes = Shapes(served)
    with_body = [each for each in operations(served) if each.body is not None]

    assert [each.id for each in with_body if not each.examples] == []
    for each in with_body:
        for name, example in each.examples.items():
            assert shapes.fit(each.body, example), (each.id, name)
    start = next(each for each in with_body if each.id == "start_fasting_session")
    assert start.address != again[start.id].address


def test_instants_in_examples_lie_ahead_and_ids_are_those_that_callers_may_choose() -> None:
    now = datetime(2026, 1, 31, 8, tzinfo=UTC)
    template = {"at": Ahead(timedelta(hours=16)), "ids": [NewId("a"), NewId("a"), NewId("b")]}

    one, other = filled(template, now, "one"), filled(template, now, "other")

    assert one["at"] == "2026-02-01T00:00:00Z"
    assert one["ids"][0] == one["ids"][1] != one["ids"][2]
    assert set(one["ids"]).isdisjoint(other["ids"])
    assert {each[14] for each in one["ids"]} == {"4"}  # version 5 is kept for reminders


def test_servers_are_the_one_that_is_asked_and_the_public_one(served: dict[str, Any]) -> None:
    public = "http://127.0.0.1:8000"

    assert [server["url"] for server in served["servers"]] == ["/", public]
    assert [server["url"] for server in json.loads(PATH.read_text())["servers"]] == [public]


def _properties(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from schema.get("properties", {}).items()


def _product() -> Iterator[Path]:
    for room in ("api", "db", "domain", "operations"):
        yield from (ROOT / room).rglob("*.py")


def _codes(tree: ast.Module) -> Iterator[str]:
    """Find the names of problem types: what these take by position or by name, and what is mapped from exceptions."""
    positions = {"Conflict": 0, "Outdated": 0, "problem": 1}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            place = positions.get(node.func.id)
            given = [] if place is None else node.args[place : place + 1]
            given += [word.value for word in node.keywords if word.arg == "code"]
            yield from (each.value for each in given if isinstance(each, ast.Constant) and isinstance(each.value, str))
        if (
            isinstance(node, ast.Assign)
            and ast.unparse(node.targets[0]) == "code"
            and isinstance(node.value, ast.Constant)
        ):
            yield str(node.value.value)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "EXPECTED":
            yield from (
                each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)
            )
