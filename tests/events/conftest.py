"""A receiver, and a webhook that points to it."""

from collections.abc import AsyncIterator

import pytest

from tests.events.hooks import Hook, hooked
from tests.events.receiver import Receiver, receiving
from tests.stack import Stack


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver."""
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
async def hook(stack: Stack, receiver: Receiver) -> AsyncIterator[Hook]:
    """A webhook for registrations, which a test causes in an instant."""
    async with hooked(stack, receiver, "device_token.registered", "webhook.disabled") as hook:
        yield hook
