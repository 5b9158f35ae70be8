"""A whole long fast, in virtual time on the real server. Activities and the database see the wall clock."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from temporalio.testing import TimeSkipper, TimeSkippingConfig

from dispatch.relay import Relay
from simulator import Simulator
from tests.stack import Stack, iphone, make_app, make_stack


@pytest.fixture
async def skipping(stack: Stack) -> AsyncIterator[tuple[Stack, TimeSkipper]]:
    """Another API process of the stack, whose workflows start with a clock of their own."""
    skipper = TimeSkipper(stack.temporal, config=TimeSkippingConfig(enabled=False))
    app = make_app(stack.place, ARM_WINDOW="0")
    async with make_stack(stack.place, app) as api_stack:
        relay = Relay(stack.sessions, skipper.client, arm_window=0)
        app.state.services = replace(app.state.services, relay=relay)
        yield api_stack, skipper


async def test_sixteen_hours_with_three_reminders_and_a_moved_goal(
    stack: Stack, skipping: tuple[Stack, TimeSkipper], simulator: Simulator
) -> None:
    (api_stack, skipper), phone, session_id, begun_at = skipping, iphone(), uuid4(), datetime.now(UTC)
    user, path = api_stack.user(), f"/v1/fasting-sessions/{session_id}"
    await user.register(phone)
    fast = {"ends_at": (begun_at + timedelta(hours=16)).isoformat(), "reminder_minutes": [120, 30, 5]}
    assert (await user.call("PUT", path, fast)).status_code == 201
    await stack.started(session_id)
    workflow = stack.workflow(session_id)

    await skipper.fast_forward(workflow, timedelta(hours=13))
    assert not simulator.requests.for_token(phone.token)

    moved = {"ends_at": (begun_at + timedelta(hours=17)).isoformat()}
    assert (await user.call("PATCH", path, moved)).status_code == 200
    await stack.knows(session_id, rev=2)
    await skipper.fast_forward(workflow, timedelta(hours=1, minutes=55))
    assert not simulator.requests.for_token(phone.token)  # the old goal's first reminder would have come by now
    await skipper.fast_forward(workflow, timedelta(minutes=10))
    await simulator.phones.received(phone.token, 1)
    await skipper.fast_forward(workflow)

    bodies = [receipt.notification.body for receipt in await simulator.phones.received(phone.token, 3)]
    assert bodies == ["2 hours to go.", "30 minutes to go.", "5 minutes to go."]
    assert [line.body for line in simulator.phone(phone.token).screen] == ["5 minutes to go."]
    assert (await stack.finished(session_id), len(simulator.requests.for_token(phone.token))) == ("accepted", 3)
