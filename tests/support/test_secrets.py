"""Promise 8 for what support sends: tokens, texts and credentials never appear in logs or workflow histories."""

import logging
from uuid import UUID

import pytest

from simulator import Simulator
from tests.kept import kept_of
from tests.stack import Phone, User, android, eventually, iphone, refuse_once
from tests.support.dead import dead_task, redrive, redriven
from tests.support.timelines import of


@pytest.fixture
def phones(simulator: Simulator) -> list[Phone]:
    """A phone of each provider, which it serves at the second attempt."""
    apple, pixel = iphone(), android()
    refuse_once(simulator, apple)
    simulator.faults.add(provider="fcm", token=pixel.token, fault="close", count=1)
    return [apple, pixel]


async def test_neither_logs_nor_the_history_of_a_redrive_hold_a_token_a_text_or_a_credential(
    simulator: Simulator,
    alice: User,
    carol: User,
    phones: list[Phone],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    stack = alice.stack
    task_ids = await dead_task(alice, *phones)

    for task_id in task_ids:
        assert (await redrive(carol, task_id)).status_code == 202

    assert [await redriven(stack, task_id) for task_id in task_ids] == [("accepted", None)] * 2
    kept = [await kept_of(stack.temporal.get_workflow_handle(f"redrive/{task_id}")) for task_id in task_ids]
    logs = "".join(capsys.readouterr()) + caplog.text
    assert logs
    assert all('"hold_seconds":' in history for history in kept)
    assert not [name for name, word in _secrets(simulator, phones, carol).items() if word in logs + "".join(kept)]


async def test_neither_logs_nor_the_history_of_a_test_push_hold_a_token_a_text_or_a_credential(
    simulator: Simulator,
    alice: User,
    carol: User,
    phones: list[Phone],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    stack = alice.stack
    await alice.register(*phones)

    planned = await carol.call("POST", of(alice.user_id, "test-push"), {})
    test_push_id = UUID(planned.json()["test_push_id"])

    async def is_accepted() -> bool:
        states = await stack.rows("SELECT state FROM push_tasks WHERE message_id = :id", id=test_push_id)
        return [row.state for row in states] == ["accepted"] * 2

    await eventually(is_accepted)
    handle = stack.temporal.get_workflow_handle(f"test-push/{test_push_id}")
    assert await handle.result() == {"accepted": 2}
    kept = await kept_of(handle)
    logs = "".join(capsys.readouterr()) + caplog.text
    assert logs
    assert '"hold_seconds":' in kept
    assert not [name for name, word in _secrets(simulator, phones, carol).items() if word in logs + kept]


def _secrets(simulator: Simulator, phones: list[Phone], supporter: User) -> dict[str, str]:
    """Name what must not appear: what the phones received and show, and every secret that signed somebody in."""
    secrets = {"the supporter's credential": supporter.headers["Authorization"].removeprefix("Bearer ")}
    for phone in phones:
        [line] = simulator.phone(phone.token).screen
        [*_, request] = simulator.requests.for_token(phone.token)
        secrets |= {
            f"{phone.provider} token": phone.token,
            f"{phone.provider} title": str(line.title),
            f"{phone.provider} body": str(line.body),
            f"{phone.provider} credential": request.raw_headers[b"authorization"].decode().split()[-1],
        }
    return secrets
