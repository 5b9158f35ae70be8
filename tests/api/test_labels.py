"""Labels of fasts: what is kept, what is the same request, and what is refused with the field."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from tests.stack import User

NAMES = {f"name_{number}": "x" * 100 for number in range(10)}
KEPT: list[dict[str, str]] = [
    {"name": "Assam {left} %s", "cup-size": ""},
    {"emoji": "👩‍👩‍👧‍👦 می‌خواهم", "turned": "\u202etea\u2066"},
    NAMES,
    {},
]
JSON = {"content-type": "application/json"}
REFUSED = {
    "too many": (NAMES | {"more": "x"}, "labels"),
    "too long": ({"name": "x" * 101}, "labels.name"),
    "two lines": ({"name": "a\nb"}, "labels.name"),
    "NUL": ({"name": "a\0b"}, "labels.name"),
    "half a pair": ({"name": "a\ud83d"}, "labels.name"),
    "a number": ({"name": 7}, "labels.name"),
    "null": ({"name": None}, "labels.name"),
    "a list": (["name"], "labels"),
    "no name": ({"": "x"}, "labels.."),
    "a name with a dot": ({"a.b": "x"}, "labels.a.b."),
    "a long name": ({"n" * 51: "x"}, f"labels.{'n' * 51}."),
}


def body(labels: Any) -> dict[str, Any]:
    """A request to start a fast."""
    return {"ends_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat(), "labels": labels}


@pytest.mark.parametrize("labels", KEPT, ids=["text", "signs", "most", "none"])
async def test_labels_are_kept_as_they_are_and_a_repeat_is_the_same(alice: User, labels: dict[str, str]) -> None:
    path, request = f"/v1/fasting-sessions/{uuid4()}", body(labels)

    first, again = await alice.call("PUT", path, request), await alice.call("PUT", path, request)
    without = await alice.call("PUT", path, {"ends_at": request["ends_at"]})
    other = await alice.call("PUT", path, request | {"labels": {"name": "Ceylon"}})

    assert [answer.status_code for answer in (first, again, without, other)] == [201, 200, 200, 409]
    assert first.json()["labels"] == labels == (await alice.call("GET", path)).json()["labels"]
    moved = await alice.call("PATCH", path, {"reminder_minutes": [5]})
    assert (moved.status_code, moved.json()["labels"]) == (200, labels)


@pytest.mark.parametrize("case", REFUSED)
async def test_labels_that_cannot_be_shown_are_refused_by_name(alice: User, case: str) -> None:
    labels, field = REFUSED[case]
    path = f"/v1/fasting-sessions/{uuid4()}"

    content = json.dumps(body(labels)).encode()  # half a pair is no UTF-8, but JSON can name it
    answer = await alice.stack.http.put(path, content=content, headers=alice.headers | JSON)

    assert (answer.status_code, answer.json()["type"]) == (422, "urn:fastbell:problem:invalid-request")
    assert answer.json()["field"].startswith(field.rstrip("."))
    assert (await alice.call("GET", path)).status_code == 404
