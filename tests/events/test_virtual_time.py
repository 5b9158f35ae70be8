"""A receiver that is down for an hour, in virtual time: rests are by the workflow's clock."""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from temporalio.testing import TimeSkipper, TimeSkippingConfig

from dispatch.relay import Relay
from tests.events.hooks import hooked, register_some
from tests.events.receiver import Receiver
from tests.stack import Stack, eventually, make_app, make_stack


@pytest.fixture
async def skipping(stack: Stack) -> AsyncIterator[tuple[Stack, TimeSkipper]]:
    """Another API process of the stack, whose workflows start with a clock of their own."""
    skipper = TimeSkipper(stack.temporal, config=TimeSkippingConfig(enabled=False))
    app = make_app(stack.place, WEBHOOKS_ALLOW_PRIVATE="true")
    async with make_stack(stack.place, app) as api_stack:
        relay = Relay(stack.sessions, skipper.client, arm_window=0)
        app.state.services = replace(app.state.services, relay=relay)
        yield api_stack, skipper


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_after_an_hour_without_a_receiver_each_event_arrives(
    skipping: tuple[Stack, TimeSkipper], receiver: Receiver
) -> None:
    stack, skipper = skipping
    async with hooked(stack, receiver, "device_token.registered") as hook:
        workflow = stack.temporal.get_workflow_handle(f"webhook/{hook.id}")
        receiver.answer(503)
        alice = await register_some(stack, 30)

        async def rests() -> bool:
            return bool(await stack.rows("SELECT 1 FROM webhooks WHERE id = :id AND rests_until > now()", id=hook.id))

        await eventually(rests)
        assert await skipper.fast_forward(workflow, timedelta(hours=1))
        tried = len(receiver.requests)
        receiver.answer(204)
        assert (await hook.call("POST", "/test")).status_code == 202  # ends the present rest

        await hook.ends_as(30, state="accepted", type="device_token.registered")
        assert 15 <= tried <= 80  # the first ones, and one at a time, at the latest after five minutes
        taken = Counter(each.id for each in receiver.of(alice.user_id)[tried:])
        assert (len(taken), set(taken.values())) == (30, {1})
        assert (await hook.shown())["state"] == "enabled"
