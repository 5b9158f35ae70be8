"""Promise 8: tokens and message text never appear in logs or workflow histories."""

import logging

import pytest

from simulator import Simulator
from tests.kept import kept_of
from tests.stack import SECRET, Stack, android, iphone, refuse_once


async def test_neither_logs_nor_histories_hold_a_token_a_text_or_a_credential(
    stack: Stack, simulator: Simulator, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    user, phones = stack.user(), [iphone(), android()]
    await user.register(*phones)
    refuse_once(simulator, phones[0])
    simulator.faults.add(provider="apns", token=phones[0].token, fault="close", count=1)

    session_id = await user.start_fast(due_in=1.0)
    await user.call("PUT", f"/v1/device-tokens/{phones[0].installation_id}", {"provider": "apns", "token": "no"})
    await stack.finished(session_id)

    history = await kept_of(stack.workflow(session_id))
    logs = "".join(capsys.readouterr()) + caplog.text
    jwts = {user.headers["Authorization"].removeprefix("Bearer ")}
    for phone in phones:
        for request in simulator.requests.for_token(phone.token):
            jwts.add(request.raw_headers[b"authorization"].decode().split()[-1])
    secrets = {
        "token": phones[0].token,
        "fcm token": phones[1].token,
        "title": "Your fast is",
        "body": "to go.",
        "secret": SECRET,
    }
    secrets |= {f"jwt {number}": jwt for number, jwt in enumerate(jwts)}
    assert len(jwts) == 3  # the user's, Apple's, Google's
    assert all(word in history for word in (str(session_id), '"hold_seconds":'))
    assert logs
    assert not [name for name, value in secrets.items() if value in logs]
    assert not [name for name, value in secrets.items() if value in history]
