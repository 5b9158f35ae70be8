"""A worker is killed while it sends to a webhook: another one goes on before Temporal misses it, and loses nothing."""

import signal
from collections.abc import Callable

import pytest

from tests.events.hooks import hooked, register_some
from tests.events.receiver import never, receiving
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

        receiver.answer(never)
        alice = await register_some(stack, 20)
        await receiver.got(5, alice.user_id)

        await victim.end(signal.SIGKILL)
        receiver.answer(204)

        accepted = await hook.ends_as(20, within=25, state="accepted", type="device_token.registered")
        assert len(accepted) == 20  # Temporal would miss the worker after a minute
        assert {int(each.id.removeprefix("evt_")) for each in receiver.of(alice.user_id)} == {
            each["event_id"] for each in accepted
        }
