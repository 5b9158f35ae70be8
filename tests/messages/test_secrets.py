"""Promise 8 for messages: tokens and texts never appear in logs, errors or workflow histories."""

import logging

import pytest

from simulator import Simulator
from tests.kept import kept_of
from tests.stack import Phone, Stack, User, android, iphone, refuse_once
from tests.talk import conversation_of, give_phones, handed_off, handoff, post, posted

SECRET = "the words that only alice and bob should know"


async def test_neither_logs_nor_errors_nor_histories_hold_a_token_or_a_text(
    stack: Stack,
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
    await handed_off(stack, message_id)

    history = await kept_of(handoff(stack, message_id))
    logs = "".join(capsys.readouterr()) + caplog.text
    assert all(word in history for word in (str(message_id), '"hold_seconds":'))
    assert logs
    assert [answer.status_code for answer in refused] == [409, 422, 422]
    assert not [answer.text for answer in refused if SECRET in answer.text]
    for phone in phones:
        [*_, receipt] = await simulator.phones.received(phone.token)
        assert SECRET in str(receipt.request.payload)
    assert not [word for word in (SECRET, *(phone.token for phone in phones)) if word in history or word in logs]


async def test_nor_do_the_histories_of_a_crowd_that_is_pushed_to_in_pages(stack: Stack, simulator: Simulator) -> None:
    alice, bob, *others = [stack.user() for _ in range(52)]  # two phones each but for hers: two pages
    crowd = [alice, bob, *others]
    await give_phones(stack, crowd)
    await bob.call("PUT", "/v1/notification-preferences", {"message_preview": "full"})
    devices = await stack.rows(
        "SELECT user_id, provider, token FROM device_tokens WHERE user_id = ANY(:ids)",
        ids=[member.user_id for member in crowd],
    )
    bobs = [Phone(each.provider, each.token) for each in devices if each.user_id == bob.user_id]
    for phone in bobs:
        simulator.faults.add(provider=phone.provider, token=phone.token, fault="close", count=1)

    message_id = await posted(alice, await conversation_of(*crowd), SECRET)
    await handed_off(stack, message_id)

    pages = [stack.temporal.get_workflow_handle(f"message-handoff/{message_id}/{number}") for number in (1, 2)]
    histories = [await kept_of(each) for each in (handoff(stack, message_id), *pages)]
    assert ['"hold_seconds":' in history for history in histories] == [False, True, True]
    for phone in bobs:
        [*_, receipt] = await simulator.phones.received(phone.token)
        assert SECRET in str(receipt.request.payload)
    assert not [word for word in (SECRET, *(each.token for each in devices)) if any(word in each for each in histories)]
