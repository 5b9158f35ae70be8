"""A worker that follows the feed for a webhook is killed: another one goes on before Temporal misses it."""

import signal
from collections.abc import Callable

import pytest

from tests.events.hooks import hooked, register_some
from tests.events.receiver import receiving
from tests.servers import part
from tests.stack import Stack, make_app, make_stack

pytestmark = pytest.mark.long
ALLOWED = {"WEBHOOKS_ALLOW_PRIVATE": "true"}


@pytest.mark.timeout(90)
async def test_a_killed_workers_webhook_is_followed_by_another_before_temporal_misses_it(
    without_worker: Stack, worker_settings: Callable[[], dict[str, str]]
) -> None:
    place = without_worker.place
    async with (
        receiving() as receiver,
        make_stack(place, make_app(place, **ALLOWED)) as stack,
        part(worker_settings() | ALLOWED, "worker.py") as one,
        part(worker_settings() | ALLOWED, "worker.py") as other,
        hooked(stack, receiver, "device_token.registered") as hook,
    ):
        workers = (one, other)
        for worker in workers:
            await worker.says("worker ready")
        await hook.call("POST", "/test")
        await hook.ends_as(1, state="accepted")
        described = await stack.temporal.get_workflow_handle(f"webhook/{hook.id}").describe()
        [following] = [each.last_worker_identity for each in described.raw_description.pending_activities]
        [victim] = [each for each in workers if following.startswith(f"{each.process.pid}@")]

        await victim.end(signal.SIGKILL)
        alice = await register_some(stack, 2)

        assert len(await receiver.got(2, alice.user_id, within=25)) == 2  # Temporal would miss it after a minute
