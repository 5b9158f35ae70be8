"""What Temporal stores is encrypted if a file of keys is set, and read by those who hold the keys."""

import base64
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.json_format import MessageToDict
from temporalio.api.common.v1 import Payload
from temporalio.client import Client

from dispatch import payload_encryption
from dispatch.client import converter
from dispatch.payload_encryption import PayloadEncryption, UnreadablePayload
from settings.environment import ConfigError
from simulator import Simulator
from tests.console.visits import visit
from tests.stack import Stack, StackPlace, iphone, make_app, make_stack, working

UI = "http://temporal.example:8233"
ODD = (
    b"no JSON",
    b'{"payloads": [{"data": "\xff"}]}',
    '{"payloads": []}'.encode("utf-16"),
    b"[" * 20_000,
    b"null",
    b"",
)
ENCODED = base64.b64encode(payload_encryption.ENCODING).decode()
NOTED = {
    *("seq", "attempt", "activity_id", "activity_type", "complete_time"),
    *("backoff", "original_schedule_time", "activation_index"),
}
PLAIN = Payload(metadata={"encoding": b"json/plain"}, data=b'"a text"')


def _line(name: str) -> str:
    return f"{name} {base64.b64encode(os.urandom(32)).decode()}\n"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A file with one key."""
    path = tmp_path / "payload-keys"
    path.write_text(f"# newest first\n{_line('first')}")
    return path


@pytest.fixture
async def encrypted(
    keys: Path,
    new_database: Callable[[str], Awaitable[str]],
    temporal: str,
    simulator: Simulator,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Stack]:
    """A stack whose processes have the keys."""
    monkeypatch.setenv("PAYLOAD_KEYS_FILE", str(keys))
    place = StackPlace(await new_database("encrypted"), temporal, "encrypted", simulator)
    async with make_stack(place, make_app(place, TEMPORAL_UI_URL=UI)) as plain:
        client = await Client.connect(temporal, namespace=place.namespace, data_converter=converter())
        stack = replace(plain, temporal=client)
        async with working(stack, place.environment()):
            yield stack


async def test_a_reminder_is_sent_while_temporal_reads_nothing_and_a_key_is_replaced(
    encrypted: Stack, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payload_encryption, "_LOOK_EVERY", 0.0)
    user = encrypted.user()
    await user.register(iphone())
    sessions = [await user.start_fast(due_in=0.5)]
    assert await encrypted.finished(sessions[0]) == "accepted"

    _put_on_top(keys, "second")
    sessions.append(await user.start_fast(due_in=0.5))
    assert await encrypted.finished(sessions[1]) == "accepted"

    first, second = [await _payloads(encrypted, session_id) for session_id in sessions]
    for session_id, payloads in zip(sessions, (first, second), strict=True):
        assert len(payloads) > 5
        assert not any(str(session_id).encode() in base64.b64decode(payload["data"]) for payload in payloads)
    assert [_key_names(payloads) for payloads in (first, second)] == [{"first"}, {"second"}]

    headers = (await visit(encrypted)).headers(origin=UI)
    answer = await encrypted.http.post("/console/payloads/decode", json={"payloads": first}, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == UI
    assert str(sessions[0]) in "".join(
        base64.b64decode(payload["data"]).decode() for payload in answer.json()["payloads"] if "data" in payload
    )


async def test_only_the_web_ui_of_somebody_who_is_signed_in_reads_payloads(
    new_database: Callable[[str], Awaitable[str]], temporal: str, simulator: Simulator
) -> None:
    place = StackPlace(await new_database("payloads"), temporal, "encrypted", simulator)
    async with make_stack(place, make_app(place, TEMPORAL_UI_URL=UI)) as stack:
        signed_in, path, body = await visit(stack), "/console/payloads/decode", b'{"payloads": [{"data": "YQ=="}]}'

        answers = [
            await stack.http.post(path, content=body, headers={"origin": UI}),
            await stack.http.post(path, content=body, headers=signed_in.headers(origin="http://evil.example")),
            await stack.http.post(path, content=body, headers=signed_in.headers()),
            *[await stack.http.post(path, content=odd, headers=signed_in.headers(origin=UI)) for odd in ODD],
            await stack.http.post(path, content=body, headers=signed_in.headers(origin=UI)),
            await stack.http.request("OPTIONS", path, headers={"origin": UI}),
        ]

    assert [answer.status_code for answer in answers] == [401, 403, 403, *[400] * len(ODD), 200, 204]
    assert answers[-2].json() == json.loads(body)
    assert answers[-1].headers["access-control-allow-credentials"] == "true"


async def test_what_was_stored_before_is_read_as_it_is(keys: Path) -> None:
    assert await PayloadEncryption(keys).decode([PLAIN]) == [PLAIN]


async def test_a_payload_of_an_unknown_or_another_key_is_refused_with_its_name(keys: Path, tmp_path: Path) -> None:
    [payload] = await PayloadEncryption(keys).encode([PLAIN])
    for other, refusal in (("other", "holds no key 'first'"), ("first", "the key 'first' .* does not fit")):
        path = tmp_path / other
        path.write_text(_line(other))
        with pytest.raises(UnreadablePayload, match=refusal):
            await PayloadEncryption(path).decode([payload])


async def test_a_process_without_the_file_says_what_it_lacks(keys: Path) -> None:
    [payload] = await PayloadEncryption(keys).encode([PLAIN])
    with pytest.raises(UnreadablePayload, match=r"^PAYLOAD_KEYS_FILE is not set in this process, and the key 'first'"):
        await converter({}).decode([payload])


async def test_a_key_that_another_process_has_already_is_read_at_once_and_old_ones_go_on_decrypting(
    keys: Path, tmp_path: Path
) -> None:
    encryption, added = PayloadEncryption(keys), _line("second")
    before = await encryption.encode([PLAIN])
    ahead = tmp_path / "ahead"
    ahead.write_text(added)
    _put_below(keys, added)

    assert await encryption.decode(await PayloadEncryption(ahead).encode([PLAIN])) == [PLAIN]
    assert await encryption.decode(before) == [PLAIN]
    assert [each.metadata["encryption-key-id"] for each in await encryption.encode([PLAIN])] == [b"first"]


async def test_a_file_that_becomes_unusable_changes_nothing(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload_encryption, "_LOOK_EVERY", 0.0)
    encryption = PayloadEncryption(keys)
    for spoil in (lambda: keys.write_text("first short"), keys.unlink):
        spoil()
        assert await encryption.decode(await encryption.encode([PLAIN])) == [PLAIN]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "it holds no key"),
        ("# nothing", "it holds no key"),
        ("first", "line 1 is not a name and 32 bytes"),
        ("first c2hvcnQ=", "line 1 is not a name and 32 bytes"),
        ("first !!!", "line 1 is not a name and 32 bytes"),
        (2 * f"one {base64.b64encode(bytes(32)).decode()}\n", "line 2 does not begin with a name of its own"),
        ("n\N{LATIN SMALL LETTER O WITH DIAERESIS} AAAA", "line 1 does not begin with a name of its own"),
    ],
)
def test_an_unusable_file_is_told_in_one_sentence(keys: Path, content: str, problem: str) -> None:
    keys.write_text(content)
    with pytest.raises(ConfigError, match=rf"^PAYLOAD_KEYS_FILE cannot be used: {problem}[^\n]*\.$"):
        converter({"PAYLOAD_KEYS_FILE": str(keys)})


def _put_on_top(keys: Path, name: str) -> None:
    keys.write_text(_line(name) + keys.read_text())


def _put_below(keys: Path, line: str) -> None:
    keys.write_text(keys.read_text() + line)


async def _payloads(stack: Stack, session_id: UUID) -> list[dict[str, Any]]:
    """List all payloads of a history as Temporal stores them, but for search attributes."""
    plain = await Client.connect(stack.place.temporal_address, namespace=stack.place.namespace)
    history = await plain.get_workflow_handle(f"fasting-reminder/{session_id}").fetch_history()
    payloads = [payload for event in history.events for payload in _found(MessageToDict(event))]
    encrypted = [payload for payload in payloads if payload["metadata"]["encoding"] == ENCODED]
    for payload in payloads:  # the SDK's own notes of a local activity: its type and times
        assert payload in encrypted or json.loads(base64.b64decode(payload["data"])).keys() == NOTED
    return encrypted


def _found(node: object) -> Iterator[dict[str, Any]]:
    if isinstance(node, list):
        for each in node:
            yield from _found(each)
    elif isinstance(node, dict):
        if "metadata" in node and "encoding" in node["metadata"]:
            yield node
            return
        for name, each in node.items():
            if name not in {"searchAttributes", "upsertWorkflowSearchAttributesEventAttributes"}:
                yield from _found(each)


def _key_names(payloads: list[dict[str, Any]]) -> set[str]:
    return {base64.b64decode(payload["metadata"]["encryption-key-id"]).decode() for payload in payloads}
