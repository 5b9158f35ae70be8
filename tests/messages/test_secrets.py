"""Promise 8 for messages: tokens and texts never appear in logs, errors or workflow histories."""

import json
import logging

import pytest
from google.protobuf.json_format import MessageToJson

from simulator import Simulator
from tests.house import House, User, android, iphone, refuse_once
from tests.talk import conversation_of, handed_off, handoff, post, posted

SECRET = "the words that only alice and bob should know"


async def test_neither_logs_nor_errors_nor_histories_hold_a_token_or_a_text(
    house: House,
    simulator: Simulator,
    alice: User,
    bob: User,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    phones = [iphone(), android()]
    await bob.register(*phones)
    await bob.call("PUT", "/v1/notification-preferences", {"message_preview": "full"})
    refuse_once(simulator, phones[0])
    simulator.faults.add(provider="fcm", token=phones[1].token, fault="close", count=1)
    conversation_id = await conversation_of(alice, bob)

    message_id = await posted(alice, conversation_id, SECRET)
    refused = [
        await post(alice, conversation_id, f"other than {SECRET}", message_id),
        await post(alice, conversation_id, SECRET + "\0"),
        await post(alice, conversation_id, SECRET * 1000),
    ]
    await handed_off(house, message_id)

    handle = handoff(house, message_id)
    history = json.dumps((await handle.fetch_history()).to_json_dict())
    history += MessageToJson((await handle.describe()).raw_description)
    logs = "".join(capsys.readouterr()) + caplog.text
    assert str(message_id) in history
    assert logs
    assert [answer.status_code for answer in refused] == [409, 422, 422]
    assert not [answer.text for answer in refused if SECRET in answer.text]
    for phone in phones:
        [*_, receipt] = await simulator.received(phone.token)
        assert SECRET in str(receipt.request.payload)
    assert not [word for word in (SECRET, *(phone.token for phone in phones)) if word in history or word in logs]
